"""What may be kept of a module's weights between calls, and when it is stale: one rule for all modules.

Whatever a module makes of its weights alone (merged factors, joined kernels, compiled expressions that hold them) is
kept in a :class:`Kept`, and nowhere else. It is used again only while a call takes no gradient of a weight and the
weights are bit by bit what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from tt_conv.runtime.modes import is_traced, is_transformed

# NumPy lacks some of PyTorch's dtypes, and NaN differs from itself: values are compared as integers of their size.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_FEW_BYTES = 1 << 14
_MOST_KEYS = 64

Value = TypeVar("Value")

_off: ContextVar[bool] = ContextVar("keeping_off", default=False)


@contextmanager
def without_keeping() -> Iterator[None]:
    """Keep nothing of weights in the block, as for who records operations to run them again on changed weights."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


class Memo(Generic[Value]):
    """Values by key, at most 64; then it begins anew. Copies and pickles are empty.

    Threads may share it: each step on the dictionary is one operation of the interpreter, so the worst that can happen
    is that two of them make the same value.
    """

    def __init__(self) -> None:
        self._values: dict[Hashable, Value] = {}

    def __reduce__(self) -> tuple[type[Memo[Value]], tuple[()]]:
        return Memo, ()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now if it is new."""
        values = self._values
        try:
            return values[key]
        except KeyError:
            value = make()
        if len(values) >= _MOST_KEYS:
            # Not cleared: another thread may be about to read it.
            self._values = values = {}
        values[key] = value
        return value


class _Weight:
    """A weight as it was.

    The detached alias keeps its memory from being given to another tensor at the same address. Version
    counters miss what goes through ``.data``, through NumPy and through fused optimizers, so where the
    values can be read without waiting for a device they are compared with a copy, bit by bit.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.alias = weight.detach()
        self.layout = (weight.data_ptr(), weight._version, weight.dtype, weight.stride())
        self.values = None
        if weight.device.type == "cpu":
            self.values = self.alias.view(_INTEGERS[weight.itemsize]).numpy()
            self.few = self.values.nbytes <= _FEW_BYTES
            self.copy = self.values.tobytes() if self.few else self.values.copy()

    def is_as_it_was(self) -> bool:
        """Tell whether the tensor has the same memory and the same values."""
        weight = self.weight
        if (weight.data_ptr(), weight._version, weight.dtype, weight.stride()) != self.layout:
            return False
        if self.values is None:
            return True
        return self.values.tobytes() == self.copy if self.few else bool((self.values == self.copy).all())


class _State:
    """All parts of a module with all of their weights, as they were, and what was made of them since."""

    def __init__(self, parts: Sequence[nn.Module], weights: Sequence[Tensor | None]) -> None:
        self.parts, self.weights = parts, weights
        self.witnesses = [_Weight(weight) for weight in weights if weight is not None]
        self.made: Memo[Any] = Memo()

    def is_of(self, parts: Sequence[nn.Module], weights: Sequence[Tensor | None]) -> bool:
        """Tell whether these are the same parts and weights, and nothing about them has changed."""
        return (
            len(parts) == len(self.parts)
            and len(weights) == len(self.weights)
            and all(map(_is, parts, self.parts))
            and all(map(_is, weights, self.weights))
            and all(map(_Weight.is_as_it_was, self.witnesses))
        )


class Kept:
    """What a module keeps of its weights, by key, until one of them or one of its parts is another.

    Weights are the parameters and the buffers of the module and of everything inside, in their places: one that is
    added, removed or replaced counts as changed. Threads may share a module.
    """

    def __init__(self) -> None:
        self._state: _State | None = None

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        # Copies and pickles of a module make everything for themselves.
        return Kept, ()

    def __len__(self) -> int:
        state = self._state
        return 0 if state is None else len(state.made)

    def forget(self) -> None:
        """Drop everything."""
        self._state = None

    def get(self, module: nn.Module, key: Hashable, make: Callable[[], Value]) -> Value | None:
        """Return what ``make`` makes of a module's weights, from an earlier call if nothing has changed since.

        Parameters
        ----------
        module : nn.Module
            ``make`` may read the weights of this module and of its parts, and must have them from nowhere else.
        key : hashable
            What the result depends on besides the weights: shapes, precision, attributes of the parts that are no
            weights.
        make : callable
            It runs without gradients and outside inference mode, so that the result serves all calls. Autocast is as
            the caller has it; a result that depends on it has its dtype in the key.

        Returns
        -------
        Whatever ``make`` returns, or None if nothing may be kept: in training mode; if a weight takes a gradient in
        this call, since it is about to change, perhaps behind its version counter; while PyTorch traces or
        ``torch.func`` transforms the call; if a weight is none of the module's own, as those that
        ``torch.func.functional_call`` puts in their place, or is computed by a parametrization, which may depend on
        anything.
        """
        if module.training:
            self._state = None
            return None
        if _off.get() or is_traced() or is_transformed():
            return None
        parts, weights = parts_and_weights(module)
        if torch.is_grad_enabled() and any(weight is not None and weight.requires_grad for weight in weights):
            self._state = None
            return None
        # Read once: another thread may exchange it for a newer one.
        state = self._state
        if state is None or not state.is_of(parts, weights):
            if not _can_be_witnessed(parts):
                self._state = None
                return None
            self._state = state = _State(parts, weights)
        return state.made.get(key, lambda: _without_gradients(make))


def forget_weights(module: nn.Module) -> None:
    """Drop what a module and its parts keep of their weights."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Kept):
                value.forget()


def parts_and_weights(module: nn.Module) -> tuple[list[nn.Module], list[Tensor | None]]:
    """Return a module with all modules inside, and their parameters and buffers, each in its place."""
    # What ``modules()`` and ``parameters()`` give in a fifth of their time, for which frames of small networks wait.
    parts = [module]
    weights: list[Tensor | None] = []
    for part in parts:
        held = part.__dict__
        weights.extend(held["_parameters"].values())
        weights.extend(held["_buffers"].values())
        parts.extend([child for child in held["_modules"].values() if child is not None])
    return parts, weights


def _is(one: object, other: object) -> bool:
    return one is other


def _can_be_witnessed(parts: Sequence[nn.Module]) -> bool:
    for part in parts:
        # A parametrized module holds a module of the functions that compute its weights.
        if "parametrizations" in part._modules:
            return False
        own = [*part._parameters.values(), *part._buffers.values()]
        kinds = [nn.Parameter] * len(part._parameters) + [Tensor] * len(part._buffers)
        if not all(weight is None or _is_ordinary(weight, kind) for weight, kind in zip(own, kinds, strict=True)):
            return False
    return True


def _is_ordinary(weight: Tensor, kind: type[Tensor]) -> bool:
    """Say whether a weight is a plain tensor with values, and not put there in the place of another."""
    return (
        type(weight) in (kind, nn.Buffer if kind is Tensor else kind)
        and weight.device.type != "meta"
        and weight.layout == torch.strided
        and weight.itemsize in _INTEGERS
        and not weight.is_inference()
    )


def _without_gradients(make: Callable[[], Value]) -> Value:
    with torch.inference_mode(False), torch.no_grad():
        return make()
