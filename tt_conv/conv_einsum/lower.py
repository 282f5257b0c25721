"""One pairwise step -> the PyTorch operation that does it best, and the order of axes that it leaves.

Intermediates keep the order in which operations produce them: batch, then channels, then spatial modes, so
that a feature runs through its steps without permutes, in whichever memory format it came.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from tt_conv.conv_einsum.cost import CONVOLVED_AT_ONCE, CostModel, Route
from tt_conv.conv_einsum.geometry import Axis, ConvolvedMode
from tt_conv.conv_einsum.operations import (
    Convolution,
    MatMul,
    Multiply,
    Operation,
    Pad,
    TransposedConvolution,
    Unfold,
    View,
    Windows,
    strides_of_size_one,
)


@dataclass(frozen=True, slots=True)
class Laid:
    """An operand or intermediate: what it is made of, and the sizes of its modes in the order of its axes."""

    subset: int
    sizes: dict[str, int]

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes in the order of the axes."""
        return tuple(self.sizes)


@dataclass(frozen=True, slots=True)
class Lowered:
    """An operation, whether it takes the two tensors in reverse, and what it gives."""

    operation: Operation
    reverse: bool
    result: Laid


@dataclass(frozen=True, slots=True)
class Roles:
    """What the plain modes of a step are to it, each in the order of the operand that it is read from."""

    batch: tuple[str, ...]
    contracted: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]

    @classmethod
    def of(cls, left: Laid, right: Laid, kept: Iterable[str], convolved: Iterable[str] = ()) -> "Roles":
        """Sort the modes of two tensors; ``convolved`` are the modes that the step convolves."""
        kept, convolved = set(kept), set(convolved)
        shared = [mode for mode in left.modes if mode in right.sizes and mode not in convolved]
        return cls(
            tuple(mode for mode in shared if mode in kept),
            tuple(mode for mode in shared if mode not in kept),
            tuple(mode for mode in left.modes if mode not in right.sizes),
            tuple(mode for mode in right.modes if mode not in left.sizes),
        )


def lower(model: CostModel, left: Laid, right: Laid) -> Lowered:
    """Lower the step that combines two tensors.

    Parameters
    ----------
    model : CostModel
        Of the network; it decides how convolved modes are met.
    left, right : Laid
        The two tensors.

    Returns
    -------
    Lowered
    """
    subset = left.subset | right.subset
    route = model.route(left.subset, right.subset)
    reverse = _reversed(model, left, right, route)
    if reverse:
        left, right = right, left
    operation, modes, swapped = _ROUTES[route](model, left, right)
    sizes = {mode: model.network.size(mode, subset) for mode in modes}
    return Lowered(operation, reverse != swapped, Laid(subset, sizes))


_Step = tuple[Operation, tuple[str, ...], bool]
"""An operation, the modes that it leaves, and whether it takes the two tensors in reverse."""


def _reversed(model: CostModel, left: Laid, right: Laid, route: Route) -> bool:
    """Say whether the right tensor comes first: the one that a kernel slides over, or else the larger one."""
    if route in (Route.CONVOLUTION, Route.TRANSPOSED):
        shared = _shared(model, left, right)
        with_feature = [m for m in shared if (left.subset | right.subset) >> m.feature & 1] or shared
        return not model.slides_over(with_feature[0], left.subset, right.subset)
    return prod(right.sizes.values()) > prod(left.sizes.values())


def _shared(model: CostModel, left: Laid, right: Laid) -> list[ConvolvedMode]:
    """Return the modes that a step convolves, in the order of the left tensor's axes."""
    convolved = model.network.convolved
    return [convolved[mode] for mode in left.modes if mode in convolved and mode in right.sizes]


def _view(tensor: Laid, groups: Sequence[Sequence[str]]) -> View | None:
    """Return the view of a tensor whose axes are ``groups`` of its modes; None if it already is that."""
    position = {mode: axis for axis, mode in enumerate(tensor.sizes)}
    order = tuple(position[mode] for group in groups for mode in group)
    shape = tuple(prod(tensor.sizes[mode] for mode in group) for group in groups)
    same_order = order == tuple(range(len(order)))
    same_shape = all(len(group) == 1 for group in groups)
    if same_order and same_shape:
        return None
    return View(None if same_order else order, None if same_shape else shape)


def _split(sizes: dict[str, int], groups: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
    """Return the shape that splits merged axes into modes again; None if each axis is one mode."""
    if all(len(group) == 1 for group in groups):
        return None
    return tuple(sizes[mode] for group in groups for mode in group)


def _product(model: CostModel, left: Laid, right: Laid) -> _Step:
    """Lower a step that convolves nothing."""
    roles = Roles.of(left, right, model.network.kept(left.subset | right.subset))
    if not roles.contracted:
        return _multiply(model, left, right, roles)
    if _is_pointwise(model, left, roles):
        return _convolution(model, left, right)
    return _matmul(left, right, roles)


def _multiply(model: CostModel, left: Laid, right: Laid, roles: Roles) -> _Step:
    """Lower a step that sums over nothing: the new modes of the right tensor go behind its shared ones."""
    if roles.batch:
        place = 1 + max(left.modes.index(mode) for mode in roles.batch)
    else:
        spatial = [axis for axis, mode in enumerate(left.modes) if mode in model.network.convolved]
        place = spatial[0] if spatial else len(left.modes)
    modes = (*left.modes[:place], *roles.right, *left.modes[place:])
    return Multiply(_broadcast(left, modes), _broadcast(right, modes)), modes, False


def _broadcast(tensor: Laid, modes: Sequence[str]) -> View | None:
    """Return the view that broadcasts a tensor to ``modes``."""
    order = tuple(tensor.modes.index(mode) for mode in modes if mode in tensor.sizes)
    shape = tuple(tensor.sizes.get(mode, 1) for mode in modes)
    while shape and modes[-len(shape)] not in tensor.sizes:  # leading axes broadcast by themselves
        shape = shape[1:]
    same_order = order == tuple(range(len(order)))
    same_shape = len(shape) == len(order)
    if same_order and same_shape:
        return None
    return View(None if same_order else order, None if same_shape else shape)


def _is_pointwise(model: CostModel, feature: Laid, roles: Roles) -> bool:
    """Say whether a contraction is a 1x1 convolution: the feature is laid out as batch, channels, space."""
    channels = (*roles.batch, *roles.contracted)
    first = feature.modes.index(channels[0])
    last = first + len(channels)
    contains_feature = any(
        mode in feature.modes[last:] and feature.subset >> geometry.feature & 1
        for mode, geometry in model.network.convolved.items()
    )
    return contains_feature and first > 0 and feature.modes[first:last] == channels


def _matmul(left: Laid, right: Laid, roles: Roles) -> tuple[MatMul, tuple[str, ...], bool]:
    """Lower a contraction to a matrix product; the free modes of the left tensor keep their side."""
    swapped = bool(roles.left) and left.modes.index(roles.contracted[0]) < left.modes.index(roles.left[0])
    rows, columns = (right, left) if swapped else (left, right)
    row_modes, column_modes = (roles.right, roles.left) if swapped else (roles.left, roles.right)
    batch = [roles.batch] if roles.batch else []
    result = [*batch, row_modes, column_modes]
    operation = MatMul(
        _view(rows, [*batch, row_modes, roles.contracted]),
        _view(columns, [*batch, roles.contracted, column_modes]),
        bool(batch),
        _split(left.sizes | right.sizes, result),
    )
    return operation, _flat(result), swapped


def _flat(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(mode for group in groups for mode in group)


def _convolution(model: CostModel, feature: Laid, kernel: Laid) -> _Step:
    """Lower a step in which the kernel slides over the feature, or is constant along it (1x1)."""
    subset = feature.subset | kernel.subset
    shared = {mode.mode: mode for mode in _shared(model, feature, kernel)}
    roles = Roles.of(feature, kernel, model.network.kept(subset), shared)
    batch, spatial = _spatial_groups(feature, roles, shared, model.network.convolved)
    axes = [
        Axis.of(shared[group[0]], feature.subset, kernel.subset) if group[0] in shared else Axis() for group in spatial
    ]
    channels = (*roles.batch, *roles.right)
    modes = (*batch, *channels, *_flat(spatial))
    sizes = {mode: model.network.size(mode, subset) for mode in modes}
    view = _kernel_view(kernel, roles.batch, roles.right, roles.contracted, axes, [g[0] for g in spatial])
    groups = prod(feature.sizes[mode] for mode in roles.batch)
    as_given = view is None and kernel.subset.bit_count() == 1
    feature_shape, kernel_shape = _convolved_shapes(feature, kernel, batch, spatial, roles, axes)
    # PyTorch's bfloat16 convolutions in channels_last_3d read beyond a feature that the kernel is wider than.
    wide = len(axes) == 3 and any(n < axis.kernel for n, axis in zip(feature_shape[2:], axes, strict=True))
    # In channels_last they err for one channel and a stride on the way to a result of size 1.
    single = any(axis.stride > 1 and sizes.get(group[0]) == 1 for axis, group in zip(axes, spatial, strict=True))
    strides = tuple(axis.stride for axis in axes)
    inner = prod(feature.sizes[mode] for mode in roles.contracted)
    skip = all(axis.kernel == 1 for axis in axes) and _overruns(strides, inner)
    contiguous = wide or (single and inner == 1)
    by_hand = [skip or axis.by_hand for axis in axes]
    operation = Convolution(
        name=_convolution_name(feature, kernel, roles, axes),
        feature=_view(feature, [batch, (*roles.batch, *roles.contracted), *spatial]),
        kernel=view,
        pad=_pad(
            [axis.padding if hand else (0, 0) for axis, hand in zip(axes, by_hand, strict=True)],
            any(axis.circular for axis in axes),
        ),
        flip=tuple(2 + i for i, axis in enumerate(axes) if axis.flip),
        skip=strides if skip else None,
        stride=(1,) * len(axes) if skip else strides,
        padding=tuple(0 if hand else axis.padding[0] for axis, hand in zip(axes, by_hand, strict=True)),
        dilation=tuple(axis.dilation for axis in axes),
        groups=groups,
        shape=_split(sizes, [batch, channels, *spatial]),
        compact=not as_given and any(axis.kernel > 1 for axis in axes),
        # Autocast converts a strided view to one with odd strides where its size is 1.
        clone=groups > 1
        and (prod(feature.sizes[mode] for mode in (*batch, *_flat(spatial))) == 1 or (skip and 1 in feature_shape)),
        layouts=(
            () if skip else strides_of_size_one(feature_shape, contiguous),
            strides_of_size_one(kernel_shape, contiguous),
        ),
        contiguous=contiguous,
    )
    return operation, modes, False


def _overruns(strides: Sequence[int], in_channels: int) -> bool:
    """Say whether PyTorch's gradient of a 1x1 kernel may write beyond its memory: on the CPU, in channels_last.

    It does with unequal strides (1-d convolutions run as 2-d), and with equal ones above 1 for fewer channels than a
    vector register holds.
    """
    as_run = {*strides, 1} if len(strides) == 1 else set(strides)
    return len(as_run) > 1 or (max(as_run) > 1 and in_channels < 16)


def _convolved_shapes(
    feature: Laid,
    kernel: Laid,
    batch: tuple[str, ...],
    spatial: Sequence[tuple[str, ...]],
    roles: Roles,
    axes: Sequence[Axis],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes [N, groups * C, *S] and [groups * O, C, *K] that a convolution gets."""

    def size(tensor: Laid, *groups: tuple[str, ...]) -> int:
        return prod(tensor.sizes[mode] for mode in _flat(groups))

    padded = [sum(axis.padding) if axis.by_hand else 0 for axis in axes]
    return (
        (
            size(feature, batch),
            size(feature, roles.batch, roles.contracted),
            *(size(feature, group) + pad for group, pad in zip(spatial, padded, strict=True)),
        ),
        (
            size(kernel, roles.batch, roles.right),
            size(kernel, roles.contracted),
            *(axis.kernel for axis in axes),
        ),
    )


def _spatial_groups(
    feature: Laid, roles: Roles, shared: Iterable[str], convolved: Iterable[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the modes of a feature that go to the batch axis, and those of each spatial axis, three at most.

    Modes that the kernel does not see stay where they are: before the channels they are batch modes, after
    them spatial ones. Neighbours among these are merged when there are more than two spatial axes: two are
    left, since only four axes can be channels_last. What is still too many joins the batch, at the price of
    a copy.
    """
    place = {mode: axis for axis, mode in enumerate(feature.modes)}
    channels = [place[mode] for mode in (*roles.batch, *roles.contracted)]
    front = max(channels) if channels else min(place[mode] for mode in shared)
    free = [mode for mode in roles.left if mode in convolved or place[mode] > front]
    while True:
        batch = tuple(mode for mode in roles.left if mode not in free)
        groups: list[tuple[str, ...]] = [(mode,) for mode in sorted([*free, *shared], key=place.__getitem__)]
        while len(groups) > 2 and (pairs := _neighbours(groups, place, shared)):
            i = pairs[-1]
            groups[i : i + 2] = [groups[i] + groups[i + 1]]
        if len(groups) <= CONVOLVED_AT_ONCE:
            return batch, groups
        plain = [mode for mode in free if mode not in convolved]
        free.remove((plain or free)[0])


def _neighbours(groups: Sequence[tuple[str, ...]], place: dict[str, int], shared: Iterable[str]) -> list[int]:
    """Return where two groups follow each other in memory, neither of them convolved."""
    return [
        i
        for i, (first, second) in enumerate(pairwise(groups))
        if place[first[-1]] + 1 == place[second[0]] and not {*first, *second} & {*shared}
    ]


def _kernel_view(
    kernel: Laid,
    groups: tuple[str, ...],
    first: tuple[str, ...],
    second: tuple[str, ...],
    axes: Sequence[Axis],
    modes: Sequence[str],
) -> View | None:
    """Return the view [groups * first, second, *K] of a kernel, with size 1 where it does not slide."""
    order = (*groups, *first, *second, *(mode for mode in modes if mode in kernel.sizes))
    view = _view(kernel, [(mode,) for mode in order])
    heads = [prod(kernel.sizes[mode] for mode in head) for head in ((*groups, *first), second)]
    shape = (*heads, *(axis.kernel for axis in axes))
    natural = tuple(kernel.sizes[mode] for mode in order)
    if shape == natural:
        return view
    return View(None if view is None else view.order, shape)


def _pad(sides: Sequence[tuple[int, int]], circular: bool) -> Pad | None:
    """Return the padding of the last axes; None if there is none."""
    return Pad(tuple(sides), circular) if any(map(any, sides)) else None


def _convolution_name(feature: Laid, kernel: Laid, roles: Roles, axes: Sequence[Axis]) -> str:
    """Return what a table calls a convolution."""
    name = f"conv{len(axes)}d"
    if all(axis.kernel == 1 for axis in axes):
        name = f"{'x'.join('1' * len(axes))} {name}"
    if prod(feature.sizes[mode] for mode in roles.batch) == 1:
        return name
    widths = [feature.sizes[mode] for mode in roles.contracted] + [kernel.sizes[mode] for mode in roles.right]
    return f"{'depthwise' if prod(widths) == 1 else 'grouped'} {name}"


def _transposed(model: CostModel, left: Laid, right: Laid) -> _Step:
    """Lower the full convolution of two kernels."""
    subset = left.subset | right.subset
    shared = tuple(mode.mode for mode in _shared(model, left, right))
    roles = Roles.of(left, right, model.network.kept(subset), shared)
    result = [roles.left, (*roles.batch, *roles.right), *((mode,) for mode in shared)]
    channels = (*roles.batch, *roles.contracted)
    spatial = [(mode,) for mode in shared]
    operation = TransposedConvolution(
        _view(left, [roles.left, channels, *spatial]),
        _view(right, [channels, roles.right, *spatial]),
        len(shared),
        prod(left.sizes[mode] for mode in roles.batch),
        _split({mode: model.network.size(mode, subset) for mode in _flat(result)}, result),
    )
    return operation, _flat(result), False


def _windows(model: CostModel, left: Laid, right: Laid) -> _Step:
    """Lower a step that no convolution of PyTorch does: windows of what is slid over, a matrix product."""
    over_left: dict[str, Axis] = {}
    over_right: dict[str, Axis] = {}
    for mode in _shared(model, left, right):
        if model.slides_over(mode, left.subset, right.subset):
            over_left[mode.mode] = Axis.of(mode, left.subset, right.subset)
        else:
            over_right[mode.mode] = Axis.of(mode, right.subset, left.subset)
    left_unfold, left = _unfold(left, over_left, over_right)
    right_unfold, right = _unfold(right, over_right, over_left)
    kept = model.network.kept(left.subset | right.subset)
    product, modes, swapped = _matmul(left, right, Roles.of(left, right, kept))
    unfolds = (right_unfold, left_unfold) if swapped else (left_unfold, right_unfold)
    return Windows(*unfolds, product), modes, swapped


def _unfold(tensor: Laid, over: dict[str, Axis], by: dict[str, Axis]) -> tuple[Unfold, Laid]:
    """Return the windows of a tensor that is slid over on some modes and slides itself on others.

    The offset in a window of mode h is called h': one more mode of what is slid over, mode h of what slides.
    """
    place = {mode: axis for axis, mode in enumerate(tensor.modes)}
    sides = [over[mode].padding if mode in over else (0, 0) for mode in tensor.modes]
    wraps = [mode in over and over[mode].circular for mode in tensor.modes]
    pads = (
        _pad([pair if wrap is circular else (0, 0) for pair, wrap in zip(sides, wraps, strict=True)], circular)
        for circular in (False, True)
    )
    operation = Unfold(
        tuple(pad for pad in pads if pad is not None),
        tuple(
            (place[mode], 1 + axis.dilation * (axis.kernel - 1), axis.stride, axis.dilation)
            for mode, axis in over.items()
        ),
        tuple(place[mode] for mode, axis in by.items() if axis.flip),
    )
    sizes = {f"{mode}'" if mode in by else mode: size for mode, size in tensor.sizes.items()}
    for mode, axis in over.items():
        left, right = axis.padding
        sizes[mode] = (tensor.sizes[mode] + left + right - 1 - axis.dilation * (axis.kernel - 1)) // axis.stride + 1
        sizes[f"{mode}'"] = axis.kernel
    return operation, Laid(tensor.subset, sizes)


_ROUTES = {
    Route.PRODUCT: _product,
    Route.CONVOLUTION: _convolution,
    Route.TRANSPOSED: _transposed,
    Route.WINDOWS: _windows,
}
