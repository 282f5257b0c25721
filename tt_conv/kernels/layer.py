"""An ordinary convolution whose kernel is a factorized tensor."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv.checks import check_shape, one_of, positive_int, spatial_dim
from tt_conv.conv_einsum import (
    ConvEinsumError,
    ConvEinsumExpression,
    PathInfo,
    conv_einsum,
    conv_einsum_expression,
    conv_einsum_path,
)
from tt_conv.conv_einsum.arguments import hashable
from tt_conv.conv_einsum.options import is_int
from tt_conv.conv_einsum.plan import Optimize
from tt_conv.kernels.chain import KernelChain
from tt_conv.kernels.convolution import (
    MODULES,
    ConvolutionGeometry,
    PlainConvolution,
    convolution,
    is_trained,
    plain_convolution,
)
from tt_conv.kernels.format import KernelFactors
from tt_conv.kernels.rank import RankArgument, choose_rank
from tt_conv.kernels.table import FORMATS, kernel_format, read_factorized
from tt_conv.runtime.formats import autocast_dtype
from tt_conv.runtime.kept import Kept, Memo
from tt_conv.runtime.modes import is_fake, is_jit_traced, is_transformed

_INPUT = "[batch, channels, *spatial]"
_FLOATING_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class TensorizedConv(nn.Module):
    r"""Convolution in 1, 2 or 3 dimensions whose kernel is a CP, Tucker or TT tensor, a channel SVD or two stacked.

    It computes what ``torch.nn.ConvNd`` computes with the kernel ``to_tensor()``, along the path that the
    conv-einsum compiler finds for the shape of the input: factor by factor, with some of them merged first,
    or with the dense kernel rebuilt. With I, O the channels, K the kernel size and g the groups, which share
    their input factors, the parameters in ``factors`` are

    =========  ====================================================================================
    "cp"       weights [R], output [O, R], input [I/g, R], and d, h, w [K, R]
    "tucker"   core [R_o, R_i, R_d, R_h, R_w], output [O, R_o], input [I/g, R_i], d, h, w [K, R_dhw]
    "tt"       input [I/g, R_1], d, h, w [R_m, K, R_m+1], output [O, R_last]
    "svd"      output [O, R], kernel [R, I/g, \*K]
    "conv_tt"  projection [R, I/g, \*k], core [O, R, \*k], for K = 2k - 1 = 5, 9, 13, ... (or 1)
    =========  ====================================================================================

    with d, h, w as far as there are such axes. In eval mode, when the weights take no gradient, what depends
    on weights alone is computed once and kept, until a weight has changed.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of int
        Per spatial axis.
    factorization : {"cp", "tucker", "tt", "svd", "conv_tt"}
    rank : int, float or sequence of int
        One rank, a fraction of the dense parameters in (0, 1], or every rank of the format; see
        :func:`tt_conv.kernels.rank.choose_rank`. Ranks larger than the kernel can use are lowered.
    stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``. The padding modes "reflect" and "replicate" pad a copy of the input first.
    dim : {1, 2, 3}
        Number of spatial axes.
    optimize : str, bool, path or PathOptimizer
        How the path is searched, as in :func:`tt_conv.conv_einsum`; "measure" times the best few.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    factors : torch.nn.ParameterDict
    bias : torch.nn.Parameter or None
        ``[out_channels]``.

    Notes
    -----
    A fresh layer's dense kernel has the mean square of PyTorch's own initialization, at any rank.

    On the CPU every change of a weight is noticed. On other devices, reading the values would wait for the
    device, so a folded weight is taken as unchanged if it is the same tensor with the same version counter,
    the mode has not been switched, and no call has taken its gradient since. What that misses is a change
    through ``.data`` between two calls in eval mode: call ``eval()`` again after one.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, naming it.

    Example
    -------
    >>> layer = TensorizedConv(16, 32, 3, factorization="tucker", rank=8, padding="same")
    >>> layer(torch.zeros(4, 16, 20, 20)).shape
    torch.Size([4, 32, 20, 20])
    >>> conv = torch.nn.Conv2d(16, 32, 3, stride=2)
    >>> smaller = TensorizedConv.from_conv(conv, "cp", rank=0.25)
    >>> smaller.rank
    20
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        factorization: str = "cp",
        rank: RankArgument,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dim: int = 2,
        optimize: Optimize = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.dim = spatial_dim(dim)
        self.factorization = one_of(factorization, "factorization", tuple(FORMATS))
        if isinstance(optimize, str):
            conv_einsum_path("ab,bc->ac", (1, 1), (1, 1), shapes=True, optimize=optimize)  # refuses unknown names
        else:
            hashable(f"of a {factorization} convolution", optimize)  # refuses what is no path
        self.optimize = optimize
        channels = (self.in_channels, self.out_channels)
        self._convolution = convolution(
            kernel_size, stride, padding, dilation, groups, padding_mode, channels, self.dim
        )
        self._kind = kernel_format(self.factorization, self._convolution.kernel_shape(*channels))
        self._equation = self._kind.equation(self.groups)
        self._options = _options(self._convolution, self._kind.axes)
        if dtype is not None and dtype not in _FLOATING_DTYPES:
            names = ", ".join(map(str, _FLOATING_DTYPES))
            raise TypeError(f"dtype must be one of {names}, got {dtype!r}")
        shapes = self._kind.shapes(choose_rank(self._kind, rank))
        self.factors = nn.ParameterDict()
        for name, shape in shapes.items():
            self.factors[name] = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if bias else None
        self._compiled: Memo[ConvEinsumExpression] = Memo()
        self._kept = Kept()
        self.reset_parameters()

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Size of the kernel, per spatial axis."""
        return self._convolution.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        """Stride, per spatial axis."""
        return self._convolution.stride

    @property
    def padding(self) -> str | tuple[int, ...]:
        """Padding: "same", "valid", or one amount per spatial axis."""
        return self._convolution.padding

    @property
    def dilation(self) -> tuple[int, ...]:
        """Dilation, per spatial axis."""
        return self._convolution.dilation

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self._convolution.groups

    @property
    def padding_mode(self) -> str:
        """What lies beyond the border."""
        return self._convolution.padding_mode

    def _weights(self) -> KernelFactors:
        """The factors in their order; ``ParameterDict`` itself sorts and takes its time."""
        parameters = self.factors._parameters
        if all(name in parameters for name in self._kind.terms):
            return {name: parameters[name] for name in self._kind.terms}  # type: ignore[misc]
        for name in self._kind.terms:
            if f"{name}_orig" in parameters:
                raise TypeError(
                    f"the factor {name!r} is pruned by a hook that a ParameterDict never calls; make it permanent with "
                    "torch.nn.utils.prune.remove, or mask it with torch.nn.utils.parametrize"
                )
        return {name: self.factors[name] for name in self._kind.terms}  # some are computed, by a parametrization

    @property
    def rank(self) -> int | tuple[int, ...]:
        """The rank as TensorLy writes it: an int, one per mode, or a train's with 1 at both ends."""
        return self._kind.written_rank(self._kind.rank(self._weights()))

    @property
    def weight(self) -> Tensor:
        """The dense kernel, for modules that read it instead of calling the layer."""
        return self.to_tensor()

    def reset_parameters(self) -> None:
        """Draw fresh factors: the dense kernel has the mean square of PyTorch's own initialization."""
        fan_in = math.prod(self._kind.shape[1:])
        with torch.no_grad():
            self._kind.draw(self._weights(), 1 / (3 * fan_in))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @classmethod
    def from_conv(
        cls,
        conv: nn.Module,
        factorization: str = "cp",
        rank: RankArgument | None = None,
        *,
        tol: float | None = None,
        optimize: Optimize = "auto",
    ) -> Self:
        """Replace the kernel of a convolution by a factorized approximation of it.

        Stride, padding, padding mode, dilation, groups, dtype, device, ``requires_grad`` and the mode are
        kept, and the bias is copied. The decomposition runs in float64 and gives the same result every time.

        Parameters
        ----------
        conv : torch.nn.Conv1d, Conv2d or Conv3d
        factorization : {"cp", "tucker", "tt", "svd", "conv_tt"}
        rank : int, float, sequence of int or "vbmf"
            As in the constructor; "vbmf" estimates the rank by variational Bayes ("tucker", "tt", "svd").
        tol : float
            Relative error of the kernel, in (0, 1), to reach with the smallest rank; in place of ``rank``.
        optimize
            As in the constructor.

        Returns
        -------
        TensorizedConv

        Raises
        ------
        TypeError
            If ``conv`` is transposed, lazy, no convolution, or changes what a convolution computes.
        ValueError
            If its kernel has no finite values, or no rank is within the budget or the tolerance.

        Example
        -------
        >>> conv = torch.nn.Conv1d(16, 8, 5, padding="same", padding_mode="circular")
        >>> layer = TensorizedConv.from_conv(conv, "svd", rank=8)
        >>> x = torch.randn(2, 16, 50)
        >>> torch.allclose(layer(x), conv(x), atol=1e-5)
        True
        """
        conv = plain_convolution(conv)
        factors = kernel_format(factorization, conv.weight.shape).decompose(conv.weight, rank, tol)
        return cls.with_factors(conv, factorization, factors, optimize=optimize)

    @classmethod
    def with_factors(
        cls, conv: nn.Module, factorization: str, factors: KernelFactors, *, optimize: Optimize = "auto"
    ) -> Self:
        """Replace the kernel of a convolution by given factors, however they were found.

        What :meth:`from_conv` keeps of the convolution is kept.

        Parameters
        ----------
        conv : torch.nn.Conv1d, Conv2d or Conv3d
        factorization : {"cp", "tucker", "tt", "svd", "conv_tt"}
        factors : dict of str to Tensor
            By the names and with the shapes that the class lists; they take the kernel's dtype and device.
        optimize
            As in the constructor.

        Returns
        -------
        TensorizedConv

        Raises
        ------
        TypeError
            If ``conv`` is not a plain convolution.
        ValueError
            If the factors are not those of this factorization of its kernel.

        Example
        -------
        >>> conv = torch.nn.Conv2d(4, 6, 3)
        >>> factors = {"output": torch.eye(6), "kernel": conv.weight.detach()}
        >>> layer = TensorizedConv.with_factors(conv, "svd", factors)
        >>> torch.allclose(layer.to_tensor(), conv.weight)
        True
        """
        conv = plain_convolution(conv)
        kernel = conv.weight.detach()
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            factorization=factorization,
            rank=1,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            padding_mode=conv.padding_mode,
            dim=len(conv.kernel_size),
            optimize=optimize,
            device="meta",
        )
        layer._check_factors(factors)
        for name in layer._kind.terms:
            value = factors[name].detach().to(kernel.device, kernel.dtype, copy=True).contiguous()
            layer.factors[name] = nn.Parameter(value, is_trained(conv))
        layer._copy_bias(conv.bias)
        return layer.train(conv.training)

    def _check_factors(self, factors: KernelFactors) -> None:
        """Refuse factors that are not those of one rank of this kernel."""
        terms = self._kind.terms
        if set(factors) != set(terms):
            raise ValueError(f"{self.factorization} has the factors {', '.join(terms)}, got {', '.join(factors)}")
        for name, modes in terms.items():
            if factors[name].ndim != len(modes):
                raise ValueError(f"the factor {name!r} must have {len(modes)} axes, got {tuple(factors[name].shape)}")
        expected = self._kind.shapes(self._kind.rank(factors))
        for name, shape in expected.items():
            if tuple(factors[name].shape) != shape:
                raise ValueError(f"the factor {name!r} must be {shape}, got {tuple(factors[name].shape)}")

    @classmethod
    def from_factorized(
        cls,
        weight: Any,
        *,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        optimize: Optimize = "auto",
    ) -> Self:
        """Make a layer of a factorized kernel of TensorLy or TensorLy-Torch, and of a bias; both are copied.

        Parameters
        ----------
        weight : CPTensor, TuckerTensor or TTTensor
            With the modes ``(out_channels, in_channels / groups, *kernel_size)``, but
            ``(in_channels / groups, *kernel_size, out_channels)`` for a TTTensor, as TensorLy-Torch's own
            convolutions have them.
        bias : Tensor, optional
            ``[out_channels]``.
        stride, padding, dilation, groups, padding_mode, optimize
            As in the constructor.

        Returns
        -------
        TensorizedConv

        Raises
        ------
        TypeError
            If ``weight`` is another kind of tensor.
        ValueError
            If it is no kernel, or ``bias`` does not fit it.
        """
        kind, factors = read_factorized(weight)
        out_channels, in_channels, *kernel_size = kind.shape
        layer = cls(
            in_channels * positive_int(groups, "groups"),
            out_channels,
            kernel_size,
            factorization=kind.name,
            rank=1,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
            dim=len(kernel_size),
            optimize=optimize,
            device="meta",
        )
        for name, factor in factors.items():
            layer.factors[name] = nn.Parameter(factor.detach(), factor.requires_grad)
        if bias is not None and tuple(bias.shape) != (out_channels,):
            raise ValueError(f"bias must be [out_channels={out_channels}], got shape {tuple(bias.shape)}")
        layer._copy_bias(bias)
        return layer

    def _copy_bias(self, bias: Tensor | None) -> None:
        if bias is None:
            self.bias = None
        else:
            frozen = isinstance(bias, nn.Parameter) and not bias.requires_grad
            self.bias = nn.Parameter(bias.detach().clone(), not frozen)

    def to_tensor(self) -> Tensor:
        """Return the dense kernel ``[out_channels, in_channels / groups, *kernel_size]``, differentiably."""
        return self._kind.rebuild(self._weights())

    def to_conv(self) -> PlainConvolution:
        """Return an ordinary convolution with the dense kernel and a copy of the bias."""
        conv = MODULES[self.dim](
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            bias=False,
            padding_mode=self.padding_mode,  # type: ignore[arg-type]
            device="meta",
        )
        trainable = any(factor.requires_grad for factor in self.factors.values())
        conv.weight = nn.Parameter(self.to_tensor().detach(), trainable)
        if self.bias is not None:
            conv.bias = nn.Parameter(self.bias.detach().clone(), self.bias.requires_grad)
        return conv.train(self.training)

    def to_plain(self) -> nn.Sequential:
        """Return ordinary convolutions, one after the other, with copies of the weights, that compute the same.

        Of the ways to merge adjacent factors, the one with the fewest parameters is taken. Groups share factors, which
        ordinary convolutions cannot: theirs are repeated.
        """
        chains = self._kind.chains(self._weights())
        chain = min(chains, key=lambda chain: (self._parameters_of(chain), len(chain)))
        sides = self._convolution.sides
        # Only "same" with an even kernel pads one side more, and then one link has all taps of an axis.
        uneven = any(before != after for before, after in sides)
        spread = [[n for n, link in enumerate(chain) if link.shape[2 + a] > 1] or [0] for a in range(self.dim)]
        trained = any(factor.requires_grad for factor in self.factors.values())
        convolutions = []
        for number, link in enumerate(chain):
            kernel, groups = link.kernel.detach(), link.groups * self.groups
            if number < len(chain) - 1:
                kernel = kernel.repeat(self.groups, *(1,) * (kernel.ndim - 1))
            # A frame is extended once, before the first taps along an axis; positions are left out after the last.
            padding: Any = tuple(side[0] if axis[0] == number else 0 for side, axis in zip(sides, spread, strict=True))
            if uneven:
                padding = "same" if max(kernel.shape[2:]) > 1 else padding
            stride: Any = tuple(s if axis[-1] == number else 1 for s, axis in zip(self.stride, spread, strict=True))
            mode: Any = self.padding_mode if padding == "same" or any(padding) else "zeros"
            conv = MODULES[self.dim](
                kernel.shape[1] * groups,
                kernel.shape[0],
                tuple(kernel.shape[2:]),  # type: ignore[arg-type]
                stride,
                padding,
                self.dilation,  # type: ignore[arg-type]
                groups,
                bias=False,
                padding_mode=mode,
                device="meta",
            )
            conv.weight = nn.Parameter(kernel.clone(memory_format=torch.contiguous_format), trained)
            convolutions.append(conv)
        if self.bias is not None:
            convolutions[-1].bias = nn.Parameter(self.bias.detach().clone(), self.bias.requires_grad)
        return nn.Sequential(*convolutions).train(self.training)

    def _parameters_of(self, chain: KernelChain) -> int:
        counts = [math.prod(link.shape) for link in chain]
        return self.groups * sum(counts[:-1]) + counts[-1]

    def to_factorized(self) -> Any:
        """Return a copy of the kernel as a CPTensor, TuckerTensor or TTTensor of TensorLy-Torch.

        A channel SVD becomes a TuckerTensor, and a TTTensor has the modes
        ``(in_channels / groups, *kernel_size, out_channels)``. Its own methods need TensorLy's backend to be
        "pytorch"; this leaves the backend as it is.

        Raises
        ------
        TypeError
            For two stacked kernels, which are none of these tensors.
        """
        return self._kind.to_tensorly(self._weights())

    def forward(self, input: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        input : Tensor
            ``[batch, in_channels, *spatial]``, or ``[in_channels, *spatial]``.

        Returns
        -------
        Tensor
            ``[batch, out_channels, *spatial]``, or ``[out_channels, *spatial]``.
        """
        if isinstance(input, Tensor) and input.ndim == self.dim + 1:
            check_shape(input, "input", "[channels, *spatial]", self.in_channels, self.dim, channel_axis=0)
            return self.forward(input.unsqueeze(0)).squeeze(0)
        check_shape(input, "input", _INPUT, self.in_channels, self.dim, channel_axis=1)
        if input.shape[0] == 0:
            return self._convolve(torch.cat([input, input.new_zeros(1, *input.shape[1:])]))[:0]
        return self._convolve(input)

    def _convolve(self, x: Tensor) -> Tensor:
        try:
            return self._convolved(x)
        except ConvEinsumError as error:
            self._refuse(x, error)
            raise

    def _refuse(self, x: Tensor, error: Exception) -> None:
        """Say in the layer's own words why it cannot take an input."""
        factor = next(iter(self.factors.values()))
        if x.device != factor.device:
            raise ValueError(f"input is on {x.device}, the layer on {factor.device}; move one of them") from error
        if x.dtype != factor.dtype and autocast_dtype(x.device) is None:
            raise ValueError(
                f"input is {x.dtype}, the layer {factor.dtype}; convert one of them, or use torch.autocast"
            ) from error
        support = [1 + e * (k - 1) for k, e in zip(self.kernel_size, self.dilation, strict=True)]
        padded = [size + sum(sides) for size, sides in zip(x.shape[2:], self._convolution.sides, strict=True)]
        if any(size < needed for size, needed in zip(padded, support, strict=True)):
            raise ValueError(
                f"input of spatial size {tuple(x.shape[2:])}, {tuple(padded)} with padding, is smaller than the "
                f"kernel, which spans {tuple(support)}"
            ) from error

    def _convolved(self, x: Tensor) -> Tensor:
        if self.padding_mode in ("reflect", "replicate"):
            amounts = [amount for side in reversed(self._convolution.sides) for amount in side]
            x = F.pad(x, amounts, mode=self.padding_mode)
        if self.groups == 1:
            y = self._evaluate(x)
        else:
            y = self._evaluate(x.unflatten(1, (self.groups, -1))).flatten(1, 2)
        if self.bias is None:
            return y
        bias = self.bias.to(y.dtype).view(-1, *(1,) * self.dim)
        if y.requires_grad or bias.requires_grad or is_transformed():
            return y + bias
        return y.add_(bias)

    def _evaluate(self, x: Tensor) -> Tensor:
        """Evaluate the equation: traced, with the weights folded in, or with the weights as operands."""
        factors = self._weights()
        operands = self._kind.operands(factors, self.groups)
        if torch.compiler.is_compiling():
            return conv_einsum(self._equation, x, *operands, optimize=self.optimize, **self._options)
        learning = torch.is_grad_enabled()
        train = tuple([i for i, t in enumerate((x, *operands)) if learning and t.requires_grad])
        if is_jit_traced() or is_fake(x):
            return conv_einsum(self._equation, x, *operands, optimize=self.optimize, **self._options)
        key = (train, x.shape, *[operand.shape for operand in operands])
        folded = self._kept.get(self.factors, key, lambda: self._fold(x, operands, bool(train)))
        if folded is not None:
            return folded(x)
        return self._compiled.get(key, lambda: self._compile(train, x, *operands))(x, *operands)

    def _compile(self, train: Sequence[int], *operands: Tensor) -> ConvEinsumExpression:
        """Compile for the shapes of the operands, with the gradients of those in ``train``."""
        shapes = [tuple(operand.shape) for operand in operands]
        return conv_einsum_expression(self._equation, *shapes, train=train, optimize=self.optimize, **self._options)

    def _fold(self, x: Tensor, operands: Sequence[Tensor], train: bool) -> ConvEinsumExpression:
        """Compile for the shape of ``x`` with all weights as constants, and with its gradient if asked."""
        if x.device != operands[0].device:
            raise ConvEinsumError(f"the input is on {x.device}, the weights on {operands[0].device}")
        # What is kept must serve calls outside autocast as well.
        with torch.autocast(x.device.type, enabled=False):
            return conv_einsum_expression(
                self._equation,
                x.shape,
                *[operand.detach() for operand in operands],
                constants=range(1, len(operands) + 1),
                train=(0,) if train else (),
                optimize=self.optimize,
                **self._options,
            )

    def chains(self) -> list[KernelChain]:
        """Return the ways to apply the kernel as a few convolutions one after the other; see ``tt_conv.kernels.chain``.

        Only without groups, and for what then keeps stride, dilation and borders to itself.
        """
        if self.groups > 1:
            raise ValueError("the groups of a convolution share factors: it is no chain of ordinary convolutions")
        return self._kind.chains(self._weights())

    def explain(self, input_shape: Sequence[int], *, train: bool | None = None) -> PathInfo:
        """Return what the evaluation of an input costs, step by step; ``print`` it for a table.

        Parameters
        ----------
        input_shape : sequence of int
            ``[batch, in_channels, *spatial]``.
        train : bool, optional
            With all gradients, or with frozen weights folded in; ``None`` means ``self.training``.
        """
        train = self.training if train is None else train
        operands = self._kind.operands(self._weights(), self.groups)
        shape = tuple(input_shape) if isinstance(input_shape, Sequence) else (None,)
        if not all(is_int(size) and size >= 0 for size in shape):
            raise TypeError(f"input_shape must be {_INPUT}, a sequence of sizes, got {input_shape!r}")
        x = torch.empty(shape, device="meta")
        check_shape(x, "input", _INPUT, self.in_channels, self.dim, channel_axis=1)
        if self.padding_mode in ("reflect", "replicate"):
            sides = zip(shape[2:], self._convolution.sides, strict=True)
            shape = (*shape[:2], *(size + before + after for size, (before, after) in sides))
        if self.groups > 1:
            shape = (shape[0], self.groups, shape[1] // self.groups, *shape[2:])
        _, info = conv_einsum_path(
            self._equation,
            shape,
            *[tuple(operand.shape) for operand in operands],
            shapes=True,
            constants=() if train else range(1, len(operands) + 1),
            train=train,
            optimize=self.optimize,
            **self._options,
        )
        return info

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what was kept of the weights is dropped."""
        self._kept.forget()
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Two stacked kernels once were a module of their own that held them without a ParameterDict.
        for name in self._kind.terms:
            if f"{prefix}{name}" in state_dict:
                state_dict[f"{prefix}factors.{name}"] = state_dict.pop(f"{prefix}{name}")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._kept.forget()
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Describe the layer as its constructor call would."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"factorization={self.factorization!r}, rank={self.rank}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"bias={self.bias is not None}, padding_mode={self.padding_mode!r}, dim={self.dim}"
        )


def _options(geometry: ConvolutionGeometry, axes: str) -> dict[str, Any]:
    """Return the geometry as options of the equation; borders that are copied are padded beforehand."""
    beforehand = geometry.padding_mode in ("reflect", "replicate")
    return {
        "stride": dict(zip(axes, geometry.stride, strict=True)),
        "padding": {} if beforehand else dict(zip(axes, geometry.sides, strict=True)),
        "dilation": dict(zip(axes, geometry.dilation, strict=True)),
        "padding_mode": "circular" if geometry.padding_mode == "circular" else "zeros",
    }
