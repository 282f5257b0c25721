"""What one pairwise step costs, as it will be run, and what that means for the search."""

from dataclasses import dataclass
from enum import Enum

from tt_conv.conv_einsum.geometry import Axis, ConvolvedMode
from tt_conv.conv_einsum.network import Network

FOLDED_ELEMENTS = 2**26
"""The largest result of constants alone that an expression keeps; a larger one is computed in every call."""

FOREVER = 2**64
"""How often a folded constant is used: often enough that its cost only breaks ties."""

CONVOLVED_AT_ONCE = 3
"""PyTorch's convolutions have at most three spatial axes."""


class Route(Enum):
    """How a step meets its convolved modes."""

    PRODUCT = "product"
    CONVOLUTION = "convolution"
    TRANSPOSED = "transposed convolution"
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class Usage:
    """How often, and for what, the network is evaluated; operands are bit masks.

    Parameters
    ----------
    gradients : int
        Operands that need a gradient.
    constants : int
        Operands that are the same in every call; what they give together without needing a gradient is
        folded once, if it is not too large.
    weights : int
        Operands that change once per ``reuse`` calls.
    reuse : int
        Calls per weight update.
    """

    gradients: int = 0
    constants: int = 0
    weights: int = 0
    reuse: int = 1


class CostModel:
    """Costs of the pairwise steps of one network, by the subsets that they combine.

    Parameters
    ----------
    network : Network
    usage : Usage
    traffic_weight : int
        Multiply-adds that moving one element counts as. 0, the default, minimizes multiply-adds and lets
        elements moved break ties; more than that models a device on which moving data takes time.
    """

    def __init__(self, network: Network, usage: Usage, traffic_weight: int = 0) -> None:
        self.network = network
        self.usage = usage
        self.traffic_weight = traffic_weight
        self._convolved = tuple(network.convolved.values())
        self._pads_by_hand = any(mode.circular or len(set(mode.padding)) > 1 for mode in self._convolved)
        bits = {mode: 1 << i for i, mode in enumerate(network.sizes)}
        self._bit_sizes = tuple(network.sizes.values())
        self._masks = [sum(bits[mode] for mode in operand.modes if mode in bits) for operand in network.operands]
        self._output = sum(bits[mode] for mode in network.output if mode in bits)
        self._products: dict[int, int] = {0: 1}
        self._unions: dict[int, int] = {0: 0}
        self._shapes: dict[int, tuple[int, tuple[int, ...], int]] = {}

    def elements(self, subset: int) -> int:
        """Return the number of elements of the intermediate of a subset."""
        return self._shape(subset)[2]

    def largest(self, left: int, right: int) -> int:
        """Return the elements of the largest tensor that a step makes: its result, a padded copy, or windows.

        Copies of an operand that only rearrange it are as large as the operand and are not counted.
        """
        made = self.elements(left | right)
        route = self.route(left, right)
        if route in (Route.PRODUCT, Route.TRANSPOSED):
            return made
        for operand, kernel in ((left, right), (right, left)):
            padded = windows = self.elements(operand)
            over = [
                (Axis.of(mode, operand, kernel), mode.size(operand), mode.size(left | right))
                for mode in self._convolved
                if mode.carriers & operand and mode.carriers & kernel and self.slides_over(mode, operand, kernel)
            ]
            # Strides of 1x1 kernels may be taken by hand, and then the padding is as well.
            strided = any(axis.stride > 1 for axis, _, _ in over) and all(axis.kernel == 1 for axis, _, _ in over)
            for axis, size, result in over:
                if route is Route.WINDOWS or axis.by_hand or strided:
                    padded = padded // size * (size + sum(axis.padding))
                windows = windows // size * result * axis.kernel
            made = max(made, padded if padded > self.elements(operand) else 0)
            if route is Route.WINDOWS and over:
                made = max(made, windows)
        return made

    def route(self, left: int, right: int) -> Route:
        """Return how a step meets its convolved modes."""
        shared = [
            (left >> mode.feature & 1, right >> mode.feature & 1)
            for mode in self._convolved
            if mode.carriers & left and mode.carriers & right
        ]
        if not shared:
            return Route.PRODUCT
        on_left, on_right = (any(side) for side in zip(*shared, strict=True))
        if (on_left and on_right) or len(shared) > CONVOLVED_AT_ONCE:
            return Route.WINDOWS
        return Route.CONVOLUTION if on_left or on_right else Route.TRANSPOSED

    def step(self, left: int, right: int) -> tuple[int, int]:
        """Return the multiply-adds of combining two subsets, and the elements read and written."""
        left_plain, left_sizes, left_elements = self._shape(left)
        right_plain, right_sizes, right_elements = self._shape(right)
        _, sizes, elements = self._shape(left | right)
        macs = self._product(left_plain | right_plain)
        traffic = left_elements + right_elements + elements
        shared = False
        for a, b in zip(left_sizes, right_sizes, strict=True):
            if a and b:
                shared = True
            else:
                macs *= a or b or 1
        if not shared:
            return macs, traffic
        route = self.route(left, right)
        for mode, a, b, size in zip(self._convolved, left_sizes, right_sizes, sizes, strict=True):
            if not (a and b):
                continue
            if left >> mode.feature & 1:
                macs *= size * b
            elif right >> mode.feature & 1:
                macs *= size * a
            elif route is Route.TRANSPOSED:
                macs *= a * b
            else:
                macs *= size * (b if self.slides_over(mode, left, right) else a)
        return macs, traffic + self._copies(left, right, route)

    def slides_over(self, mode: ConvolvedMode, operand: int, kernel: int) -> bool:
        """Say whether ``kernel`` slides over ``operand`` on a mode that both carry, or the reverse."""
        feature = 1 << mode.feature
        if feature & (operand | kernel):
            return bool(feature & operand)
        for other in self._convolved:
            if other.carriers & operand and other.carriers & kernel and (operand | kernel) >> other.feature & 1:
                return bool(operand >> other.feature & 1)
        return (self.elements(operand), operand) > (self.elements(kernel), kernel)

    def times(self, left: int, right: int) -> int:
        """Return how often a step runs, forward and for gradients, in units that all steps share."""
        usage = self.usage
        subset = left | right
        gradients = usage.gradients
        passes = 1 + bool(left & gradients) + bool(right & gradients)
        if not subset & ~usage.constants and not subset & gradients and self.elements(subset) <= FOLDED_ELEMENTS:
            return passes
        if not subset & ~usage.weights:
            return passes * FOREVER
        return passes * FOREVER * usage.reuse

    def price(self, left: int, right: int) -> tuple[int, int]:
        """Return what the search minimizes, and what breaks its ties."""
        macs, traffic = self.step(left, right)
        times = self.times(left, right)
        if self.traffic_weight:
            macs += self.traffic_weight * traffic * self._slowness(left, right)
        return macs * times, traffic * times

    def _slowness(self, left: int, right: int) -> int:
        """Return how much longer than its traffic a convolution of single channels takes.

        PyTorch runs a feature with one channel and a kernel without groups at a small fraction of memory speed.
        """
        if self.route(left, right) is not Route.CONVOLUTION:
            return 1
        on_left = any(
            left >> mode.feature & 1 for mode in self._convolved if mode.carriers & left and mode.carriers & right
        )
        feature, kernel = (left, right) if on_left else (right, left)
        feature_plain, kernel_plain = self._shape(feature)[0], self._shape(kernel)[0]
        if self._product(feature_plain & kernel_plain) > 1:
            return 1
        filters = self._product(kernel_plain & ~feature_plain)
        return 10 if filters == 1 else 3 if filters <= 8 else 1

    def _shape(self, subset: int) -> tuple[int, tuple[int, ...], int]:
        """Return the plain modes of a subset's intermediate, its sizes by convolved mode, its elements."""
        found = self._shapes.get(subset)
        if found is None:
            plain = self._union(subset) & (self._output | self._union(self.network.everything ^ subset))
            sizes = tuple(mode.size(subset) for mode in self._convolved)
            elements = self._product(plain)
            for size in sizes:
                elements *= size or 1
            found = self._shapes[subset] = (plain, sizes, elements)
        return found

    def _union(self, subset: int) -> int:
        """Return the plain modes that any operand of a subset carries."""
        found = self._unions.get(subset)
        if found is None:
            last = subset.bit_length() - 1
            found = self._unions[subset] = self._masks[last] | self._union(subset ^ (1 << last))
        return found

    def _product(self, modes: int) -> int:
        """Return the product of the sizes of plain modes."""
        found = self._products.get(modes)
        if found is None:
            last = modes.bit_length() - 1
            found = self._products[modes] = self._bit_sizes[last] * self._product(modes ^ (1 << last))
        return found

    def _copies(self, left: int, right: int, route: Route) -> int:
        """Return the elements that padding by hand and windows read and write besides."""
        if route is Route.TRANSPOSED or (route is Route.CONVOLUTION and not self._pads_by_hand):
            return 0
        copies = 0
        for operand, kernel in ((left, right), (right, left)):
            before = after = self.elements(operand)
            for mode in self._convolved:
                size, k = mode.size(operand), mode.size(kernel)
                if size and k and self.slides_over(mode, operand, kernel):
                    if route is Route.WINDOWS:
                        after = after // size * mode.size(left | right) * k
                    elif (axis := Axis.of(mode, operand, kernel)).by_hand:
                        after = after // size * (size + sum(axis.padding))
            copies += before + after if after != before else 0
        return copies
