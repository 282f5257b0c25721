"""Sizes along one convolved mode: padding, support, and every intermediate."""

from dataclasses import dataclass, field

from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.options import Options
from tt_conv.conv_einsum.parse import Equation


@dataclass(frozen=True, slots=True)
class ConvolvedMode:
    r"""One convolved mode of an equation whose shapes are known.

    With feature x of size n, kernels :math:`K_j` of sizes :math:`k_j`, stride s, dilation e and left and
    right padding p, p',

    .. math::

        y[u] = \sum_{v_1 \dots v_q} x[s u + e (v_1 + \dots + v_q) - p] \prod_j K_j[v_j], \qquad
        0 \le u \le (n + p + p' - \text{support}) / s, \qquad \text{support} = 1 + e \sum_j (k_j - 1).

    So that the order of evaluation does not matter, the feature takes all of p and p' where it meets its
    first kernel, and every convolution after that is a valid one; kernels that meet before the feature are
    combined by full convolution; the stride is taken where the feature has met all kernels.

    Parameters
    ----------
    mode : str
    sizes : tuple of int
        Size in every operand, 0 where an operand does not carry the mode.
    feature : int
        Number of the first operand that carries the mode.
    stride, dilation : int
    padding : tuple of int
        (left, right).
    circular : bool
        Beyond its border the feature is periodic rather than zero.

    Attributes
    ----------
    carriers : int
        Bit mask of the operands that carry the mode.
    """

    mode: str
    sizes: tuple[int, ...]
    feature: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    circular: bool

    carriers: int = field(init=False)

    def __post_init__(self) -> None:
        carriers = sum(1 << i for i, size in enumerate(self.sizes) if size)
        object.__setattr__(self, "carriers", carriers)

    @property
    def output_size(self) -> int:
        """Size in the output."""
        return self.size((1 << len(self.sizes)) - 1)

    def reach(self, subset: int) -> int:
        """Return the sum of k - 1 over the kernels in a bit mask of operands."""
        return sum(size - 1 for i, size in enumerate(self.sizes) if size and i != self.feature and subset >> i & 1)

    def size(self, subset: int) -> int:
        """Return the size in the intermediate made of a bit mask of operands, 0 if it lacks the mode."""
        carried = subset & self.carriers
        if not carried:
            return 0
        feature = 1 << self.feature
        if carried == feature:
            return self.sizes[self.feature]
        if not carried & feature:
            return 1 + self.reach(subset)
        valid = self.sizes[self.feature] + sum(self.padding) - self.dilation * self.reach(subset)
        return (valid - 1) // self.stride + 1 if carried == self.carriers else valid


@dataclass(frozen=True, slots=True)
class Axis:
    """How one step's kernel slides along one axis; by default not at all."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] = (0, 0)
    circular: bool = False
    flip: bool = False

    @classmethod
    def of(cls, mode: "ConvolvedMode", feature: int, kernel: int) -> "Axis":
        """Return the axis of a mode on which ``kernel`` slides over ``feature``, both subsets."""
        size = mode.size(kernel)
        if not feature >> mode.feature & 1:  # two kernels: a full convolution
            return cls(size, padding=(size - 1, size - 1), flip=True)
        padding = mode.padding if feature & mode.carriers == 1 << mode.feature else (0, 0)
        stride = mode.stride if not mode.carriers & ~(feature | kernel) else 1
        # One tap has nothing to be dilated, and some of PyTorch's convolutions overrun their memory when told to.
        return cls(size, stride, mode.dilation if size > 1 else 1, padding, mode.circular)

    @property
    def by_hand(self) -> bool:
        """Whether PyTorch's convolutions cannot do the padding: it is not zeros, or unequal."""
        return self.padding[0] != self.padding[1] or (self.circular and self.padding[0] > 0)


def convolved_mode(equation: Equation, mode: str, sizes: tuple[int, ...], options: Options) -> ConvolvedMode:
    """Return the geometry of one convolved mode.

    Raises
    ------
    ConvEinsumError
        For "same" with a stride above 1, or a support that is larger than the padded feature.
    """
    feature = next(i for i, size in enumerate(sizes) if size)
    stride, dilation = options.of("stride", mode), options.of("dilation", mode)
    padding = options.of("padding", mode)
    if not isinstance(stride, int) or not isinstance(dilation, int):  # checked_options leaves no other
        raise TypeError("stride and dilation are ints")
    reach = dilation * sum(size - 1 for i, size in enumerate(sizes) if size and i != feature)
    if padding == "same" and stride != 1:
        raise ConvEinsumError(
            f"padding 'same' of mode {mode!r} has no meaning with stride {stride}; give numbers",
            equation.text,
            equation.operands[feature].place(mode),
        )
    if isinstance(padding, int):
        left = right = padding
    elif isinstance(padding, tuple):
        left, right = padding
    else:
        left, right = {"valid": (0, 0), "full": (reach, reach), "same": (reach // 2, reach - reach // 2)}[padding]
    _check_output(equation, mode, sizes, feature, reach + 1, (left, right))
    circular = options.padding_mode == "circular"
    return ConvolvedMode(mode, sizes, feature, stride, dilation, (left, right), circular)


def _check_output(
    equation: Equation,
    mode: str,
    sizes: tuple[int, ...],
    feature: int,
    support: int,
    padding: tuple[int, int],
) -> None:
    """Refuse a convolution with nothing in its output."""
    size = sizes[feature]
    if size + sum(padding) >= support:
        return
    kernels = ", ".join(f"{k} in operand {i}" for i, k in enumerate(sizes) if k and i != feature)
    raise ConvEinsumError(
        f"the output is empty along the convolved mode {mode!r}: the feature, operand {feature}, has size "
        f"{size} and padding {padding}, but the kernels (size {kernels}) span {support}. The feature is the "
        "first operand that carries the mode: write 'x, W', not 'W, x'",
        equation.text,
        equation.operands[feature].place(mode),
    )
