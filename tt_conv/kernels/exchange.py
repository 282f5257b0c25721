"""Factors of a kernel <-> factorized tensors of TensorLy and TensorLy-Torch.

CP and Tucker tensors have the modes (out_channels, in_channels, \\*kernel_size), trains the modes
(in_channels, \\*kernel_size, out_channels), as in TensorLy-Torch's own convolutions.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tt_conv.checks import one_of
from tt_conv.kernels.factorization import Factorization, Factors, kernel_factorization
from tt_conv.kernels.tensorly import tensorly_torch


def read(weight: object) -> tuple[Factorization, Factors]:
    """Return the format and copies of the factors of a factorized tensor.

    Raises
    ------
    TypeError
        If it is not a CP, Tucker or tensor-train tensor of TensorLy or TensorLy-Torch.
    ValueError
        If it is not a kernel of 1 to 3 spatial axes.
    """
    name = _name(weight)
    tensors = _tensors(weight, name)
    shape = _kernel_shape(tensors, name)
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"a kernel has 2 channel modes and 1 to 3 spatial ones, got a tensor with {len(shape)} modes")
    kind = kernel_factorization(name, shape)
    if name == "tt":
        first, *middle, last = tensors
        tensors = [first.squeeze(0), *middle, last.squeeze(-1).T]
    factors = dict(zip(kind.terms, tensors, strict=True))
    expected = kind.shapes(kind.rank(factors))
    given = {key: tuple(factor.shape) for key, factor in factors.items()}
    if given != expected:
        raise ValueError(f"the factors don't fit together: got {given}, expected {expected}")
    return kind, factors


def _name(weight: object) -> str:
    """Return the name of the format of a factorized tensor."""
    from tensorly.cp_tensor import CPTensor
    from tensorly.tt_tensor import TTTensor
    from tensorly.tucker_tensor import TuckerTensor

    classes: dict[str, tuple[type, ...]] = {"cp": (CPTensor,), "tucker": (TuckerTensor,), "tt": (TTTensor,)}
    if (tltorch := sys.modules.get("tltorch")) is not None:
        classes["cp"] += (tltorch.CPTensor,)
        classes["tucker"] += (tltorch.TuckerTensor,)
        classes["tt"] += (tltorch.TTTensor,)
    for name, accepted in classes.items():
        if isinstance(weight, accepted):
            return name
    raise TypeError(
        "expected a CPTensor, TuckerTensor or TTTensor of TensorLy or TensorLy-Torch, "
        f"got {type(weight).__module__}.{type(weight).__name__}"
    )


def _tensors(weight: Any, name: str) -> list[Tensor]:
    """Return copies of all factors, the weights of a CP tensor and the core of a Tucker tensor first."""
    factors = list(weight.factors)
    if name == "cp":
        factors.insert(0, weight.weights)
    if name == "tucker":
        factors.insert(0, weight.core)
    if factors[0] is None:
        factors[0] = torch.ones_like(torch.as_tensor(factors[1][0]))
    tensors = [torch.as_tensor(factor) for factor in factors]
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise TypeError(f"the factors must be real and floating, got dtype {tensor.dtype}")
    frozen = [isinstance(factor, nn.Parameter) and not factor.requires_grad for factor in factors]
    return [tensor.detach().clone().requires_grad_(not f) for tensor, f in zip(tensors, frozen, strict=True)]


def _kernel_shape(tensors: Sequence[Tensor], name: str) -> tuple[int, ...]:
    if name == "tt":
        *modes, out_channels = (int(core.shape[1]) for core in tensors)
        return (out_channels, *modes)
    return tuple(int(factor.shape[0]) for factor in tensors[1:])


def write(kind: Factorization, factors: Factors) -> Any:
    """Return the factors, copied, as a factorized tensor of TensorLy-Torch.

    A channel SVD is a Tucker tensor whose factors but that of the output channels are identities, which
    take no gradient.
    """
    write = _WRITERS[one_of(kind.form.name, "a format with a tensor of TensorLy-Torch", tuple(_WRITERS))]
    copies = {name: nn.Parameter(factor.detach().clone(), factor.requires_grad) for name, factor in factors.items()}
    return write(tensorly_torch(), copies)


def _write_cp(tltorch: Any, copies: Mapping[str, nn.Parameter]) -> Any:
    weights, *rest = copies.values()
    return tltorch.CPTensor(weights, rest)


def _write_tucker(tltorch: Any, copies: Mapping[str, nn.Parameter]) -> Any:
    core, *rest = copies.values()
    return tltorch.TuckerTensor(core, rest)


def _write_svd(tltorch: Any, copies: Mapping[str, nn.Parameter]) -> Any:
    kernel = copies["kernel"]
    identities = [torch.eye(size).to(kernel) for size in kernel.shape[1:]]
    return tltorch.TuckerTensor(kernel, [copies["output"], *identities])


def _write_tt(tltorch: Any, copies: Mapping[str, nn.Parameter]) -> Any:
    first, *middle, last = copies.values()
    ends = [(first, first.detach().unsqueeze(0)), (last, last.detach().T.unsqueeze(-1).contiguous())]
    first, last = (nn.Parameter(end, source.requires_grad) for source, end in ends)
    return tltorch.TTTensor([first, *middle, last])


_WRITERS: dict[str, Callable[[Any, Mapping[str, nn.Parameter]], Any]] = {
    "cp": _write_cp,
    "tucker": _write_tucker,
    "tt": _write_tt,
    "svd": _write_svd,
}
