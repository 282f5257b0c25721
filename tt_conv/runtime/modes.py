"""How a call is being run: traced, transformed, recorded, or watched by hooks.

PyTorch has no public question for some of these. All of its private names that this package uses are in this file, and
each says what it stands in for. They are the same from torch 2.6 to 2.14.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

# What torch.export and FakeTensorMode make of tensors; torch has no public name for it.
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable[..., object])

_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS = (*_FORWARD_HOOKS, "_backward_hooks", "_backward_pre_hooks")


def assume_constant_result(function: Function) -> Function:
    """Mark a function as ``torch.compiler.assume_constant_result`` does, which would import the compiler first.

    That import takes as long as that of torch itself.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@assume_constant_result
def has_autocast(device_type: str) -> bool:
    """Say whether there is automatic mixed precision for a type of device; to be asked before whether it is on."""
    # Dynamo of torch 2.6 cannot follow the question.
    return torch.amp.is_autocast_available(device_type)


def is_traced() -> bool:
    """Say whether a graph is made of the present calls, by ``torch.compile``, ``torch.export`` or ``torch.jit``."""
    return torch.compiler.is_compiling() or is_jit_traced()


def is_jit_traced() -> bool:
    """Say whether ``torch.jit.trace``, or an exporter built on it, follows the present calls."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined]


def is_transformed() -> bool:
    """Say whether ``torch.func`` or dual numbers transform the present calls: no values to read, no memory to reuse."""
    # The level of dual numbers is -1 outside of all of them.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batch_of_gradients(tensor: Tensor) -> bool:
    """Say whether a tensor is one of the gradients that ``torch.autograd.grad(is_grads_batched=True)`` takes at once.

    The older ``vmap`` that does it is not seen by :func:`is_transformed`.
    """
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_recorded() -> bool:
    """Say whether a ``TorchDispatchMode`` sees the present calls, which may count them or replace their results."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_fake(tensor: Tensor) -> bool:
    """Say whether a tensor has a shape and no values."""
    return isinstance(tensor, FakeTensor)


def has_forward_hooks(module: nn.Module) -> bool:
    """Say whether a module itself has hooks that may change what it computes."""
    return any(getattr(module, hooks) for hooks in _FORWARD_HOOKS)


def has_hooks(module: nn.Module) -> bool:
    """Say whether a module itself has hooks, of the forward or the backward pass."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def replaces(module: nn.Module, *names: str) -> bool:
    """Say whether a module has an attribute of its own where its class has a method."""
    # Dynamo of torch 2.6 knows nothing of ``vars`` or of the keys of ``__dict__``.
    return any(name in module.__dict__ for name in names)


def has_hooked_parts(module: nn.Module) -> bool:
    """Say whether a part of a module has hooks, which want to be called."""
    return any(has_hooks(child) for child in module.modules() if child is not module)
