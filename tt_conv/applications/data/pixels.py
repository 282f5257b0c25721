"""Arrays of frames as people store them: the order of their axes and the range of their values."""

from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.data.errors import UnusableFile

# N sequences, T frames, C channels, H and W pixels: the orders that are detected. Any other can be stated.
LAYOUTS = ("THW", "THWC", "TCHW", "NTHW", "TNHW", "NTHWC", "NTCHW", "TNHWC", "TNCHW")
_CHANNEL_COUNTS = (1, 3)
_PICTURE = 3.0  # sides of a picture differ by at most this factor, where it is asked whether two axes are one
Limits = tuple[float, float]
_STATE_IT = "state it with layout, such as layout=NTHWC"


def layout_of(shape: Sequence[int], layout: str | None, name: str) -> tuple[str, str]:
    """Find or check what each axis of an array of frames is.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    layout : str, optional
        As stated by the user, one letter per axis: N sequences, T frames, C channels, H and W pixels.
    name : str
        Of the file, for messages.

    Returns
    -------
    layout, reason : str
        The layout, and in words why it is that one.

    Raises
    ------
    UnusableFile
        If a stated layout does not fit, or none or several would.
    """
    shape = tuple(shape)
    if layout is not None:
        return _stated(shape, layout, name)
    if len(shape) not in (3, 4, 5):
        raise UnusableFile(
            name, f"an array of shape {shape} is no video", "expected 3 to 5 axes: " + ", ".join(LAYOUTS)
        )
    if len(shape) > 3 and shape[-1] in (2, 4) and shape[-2] != shape[-1]:
        raise UnusableFile(
            name,
            f"the last axis of shape {shape} looks like {shape[-1]} channels",
            "keep 1 (gray) or 3 (RGB) of them, or state with layout that they are pixels, such as layout=NTHW",
        )
    last = shape[-1] in _CHANNEL_COUNTS and len(shape) > 3
    before = shape[-3] in _CHANNEL_COUNTS and len(shape) > 3
    if last and before:
        raise UnusableFile(name, f"channels may be axis {len(shape) - 3} or the last one of shape {shape}", _STATE_IT)
    channels = "last axis of 1 or 3" if last else "axis of 1 or 3 before the pixels" if before else ""
    frame = "HWC" if last else "CHW" if before else "HW"
    if len(shape) not in (len(frame) + 1, len(frame) + 2):
        raise UnusableFile(
            name, f"none of 5 axes of shape {shape} has 1 or 3 channels where they usually are", _STATE_IT
        )
    _ask_if_ambiguous(shape, frame, name)
    if len(shape) == len(frame) + 1:
        return "T" + frame, f"detected: one sequence{', channels: ' + channels if channels else ''}"
    # The order of mnist_test_seq.npy, which is 20 x 10000 x 64 x 64.
    if shape[0] == 20 and shape[1] >= 100:
        return "TN" + frame, "detected: 20 first, then many, as in mnist_test_seq.npy"
    return "NT" + frame, f"detected: sequences first{', channels: ' + channels if channels else ''}"


def _stated(shape: tuple[int, ...], layout: str, name: str) -> tuple[str, str]:
    if not {*"THW"} <= {*layout} <= {*"NTCHW"} or len({*layout}) != len(layout):
        raise ValueError(
            f"layout must name T (frames), H and W (pixels), and may name N (sequences) and C (channels), each once, "
            f"in the order of the axes, such as {', '.join(LAYOUTS)} or NHWT, got {layout!r}"
        )
    if len(layout) != len(shape) or ("C" in layout and shape[layout.index("C")] not in _CHANNEL_COUNTS):
        raise UnusableFile(name, f"an array of shape {shape} is not {layout} with 1 or 3 channels", _STATE_IT)
    return layout, "as stated"


def _ask_if_ambiguous(shape: tuple[int, ...], frame: str, name: str) -> None:
    """Refuse a shape that can be read with time last, as sets of radar pictures are stored, or with channels elsewhere.

    Frames are taken to be the last two axes but for channels. Two neighbouring axes before them may be the picture as
    well, and the last one time: where they have equal sides and the last two have not, or are the better picture by
    their proportions and at least as large as what would be time. (Of pictures wider than high, that is rare.)
    """
    sides = [size for size, axis in zip(shape[len(shape) - len(frame) :], frame, strict=True) if axis != "C"]
    axes = [*shape[: len(shape) - len(frame)], *sides]
    letters = "HWT" if len(axes) == 3 else "NHWT"
    height, width, time = axes[-3:]
    late = letters + ("C" if frame.endswith("C") else "")
    early = ("T" if len(axes) == 3 else "NT") + frame
    last, other = _proportion(axes[-2], axes[-1]), _proportion(height, width)
    same = last == other == 1 and time > 4
    if same or (other <= _PICTURE and last > other and (other == 1 or time <= max(height, width)) and height > 4):
        if "C" in frame and not frame.endswith("C"):
            return  # channels before the pixels say where they are
        raise UnusableFile(
            name,
            f"shape {shape} can be read as {early} or as {late}",
            f"state which it is with layout, such as layout={early} or layout={late}",
        )
    if "C" not in frame and ((shape[0] == 3 and len(shape) == 4) or (min(sides) == 3 and max(sides) > 3)):
        raise UnusableFile(
            name,
            f"the axis of 3 in shape {shape} may be the colours",
            "state what the axes are with layout: NTHW for sequences of gray frames, CTHW, HWCT or another order",
        )


def _proportion(one: int, other: int) -> float:
    return max(one, other) / max(1, min(one, other))


def ordered(array: NDArray, layout: str) -> NDArray:
    """The same array (a view) as ``[N, T, H, W, C]``."""
    for letter in "NC":
        if letter not in layout:
            array, layout = array[None], letter + layout
    return array.transpose([layout.index(letter) for letter in "NTHWC"])


class ValueRange:
    """The values that stand for black and white in arrays of frames: stated, of the type, or found by looking.

    What is found by looking must hold for all arrays of a data set, or those with small values would be brightened:
    :meth:`see` looks at one after the other, :meth:`of` then tells.

    Parameters
    ----------
    stated : (float, float), optional
        Black and white as stated by the user: for every array.
    assumed : (float, float), optional
        Black and white of arrays that are neither bytes nor booleans, as another part of the data has them.
    """

    def __init__(self, stated: Limits | None = None, assumed: Limits | None = None) -> None:
        for limits in (stated, assumed):
            if limits is not None and not limits[0] < limits[1]:
                raise ValueError(f"value_range must be (black, white), black below white, got {limits}")
        self.stated = _as_floats(stated)
        self.assumed = _as_floats(assumed)
        self._seen: dict[str, tuple[float, float, str]] = {}
        self._lock = Lock()

    @property
    def settled(self) -> bool:
        """Whether looking at more arrays would change nothing."""
        return self.stated is not None or self.assumed is not None or not self._seen

    def see(self, array: NDArray, name: str) -> None:
        """Look at an array; what its values say counts for all arrays of numbers of that kind (integers or floats).

        Raises
        ------
        UnusableFile
            If it holds no numbers, a value is not finite, or out of the stated range.
        """
        if array.dtype.kind not in "buif":
            raise UnusableFile(name, f"its values are of type {array.dtype}", "expected numbers")
        if self.stated is None and array.dtype in (np.bool_, np.uint8):
            return
        low, high = _extremes(array, name)
        fills = _fill_values(array, low, high)
        if fills and (self.stated is None or not self.stated[0] <= min(fills) <= max(fills) <= self.stated[1]):
            raise UnusableFile(name, _fill_words(fills, array), _MARKS)
        limits = self.stated or self.assumed
        if limits is not None:
            _check_within(low, high, limits, name, "stated" if self.stated else "training's")
            return
        kind = _kind(array.dtype)
        with self._lock:
            least, most, which = self._seen.get(kind, (low, high, name))
            self._seen[kind] = min(low, least), max(high, most), which if most >= high else name

    def of(self, dtype: np.dtype, name: str) -> tuple[Limits, str]:
        """Black and white of arrays of a type, all of which were seen, and in words why.

        Raises
        ------
        UnusableFile
            If the values seen are in no usual range of pixels.
        """
        if self.stated is not None:
            return self.stated, f"{_limits_in_words(self.stated)}, as stated"
        if dtype == np.bool_:
            return (0.0, 1.0), "0 to 1, of booleans"
        if dtype == np.uint8:
            return (0.0, 255.0), "0 to 255, of bytes"
        if self.assumed is not None:
            return self.assumed, f"{_limits_in_words(self.assumed)}, as in training"
        low, high, where = self._seen[_kind(dtype)]
        found = self._usual(_kind(dtype), low, high)
        if found is None:
            known = f"such as value_range=[{low:g},{high:g}]" if low < high else "black below white"
            raise UnusableFile(
                where if where == name else f"{where} (and other arrays)",
                f"values run from {low:g} to {high:g}, which is no usual range of pixels"
                if low < high
                else f"all values are {low:g}, which tells no range",
                f"state the values of black and white with value_range, {known}",
            )
        return found, f"{_limits_in_words(found)}, detected: values run from {low:g} to {high:g}"

    @staticmethod
    def _usual(kind: str, low: float, high: float) -> Limits | None:
        """The usual range that holds the values; of the wide ones only if they use more than a quarter of it."""
        if low >= 0 and high <= 1:
            return 0.0, 1.0
        if kind == "floats" and low >= -1 and high <= 1:
            return -1.0, 1.0
        for white in (255.0,) if kind == "floats" else (255.0, 65535.0):
            if low >= 0 and white / 4 < high <= white:
                return 0.0, white
        return None


def _as_floats(limits: Limits | None) -> Limits | None:
    return None if limits is None else (float(limits[0]), float(limits[1]))


def _limits_in_words(limits: Limits) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"


def _kind(dtype: np.dtype) -> str:
    return "floats" if dtype.kind == "f" else "integers"


def _check_within(low: float, high: float, limits: Limits, name: str, whose: str) -> None:
    slack = 1e-6 * (limits[1] - limits[0])
    if low < limits[0] - slack or high > limits[1] + slack:
        raise UnusableFile(
            name,
            f"its values run from {low:g} to {high:g}, outside the {whose} {_limits_in_words(limits)}",
            "state a range that holds them with value_range, or clip them where they mean no more than black or white",
        )


# Marks for missing values: of netCDF (9.96921e36, and 1e20 by its conventions), of tables, and the ends of types.
_FILLS = (-9, -99, -999, -9999, -99999, 999, 9999, 99999, -32768, 32767, 65535, 1e20, -1e20, 1e30, -1e30, 1e36)
_MARKS = (
    "if it marks what is missing, replace it by a value that means nothing there, such as that of black or the mean; "
    "if it is a value, state a value_range that holds it"
)
_FAR = 2.0  # ranges of all other values, by which one is taken for a mark


def _fill_values(array: NDArray, low: float, high: float) -> list[float]:
    """The smallest and largest value, where they look like marks for missing values and not like measurements.

    A mark stands apart: no value lies between it and the others, by more than they differ.
    """
    found = []
    for value, sign in ((low, 1), (high, -1)):
        known = value in _FILLS or abs(value) > 1e19
        if value == -1 and low == -1 and array.dtype.kind == "f" and high <= 1:
            others = _range_without(array, value)  # of values from 0 to 1; from -1 to 1 there would be some between
            if others is not None and others[0] >= 0 and others[1] > 0:
                found.append(value)
        elif known or (sign == 1 and value < -100):
            others = _range_without(array, value)
            if others is not None:
                gap = others[0] - value if sign == 1 else value - others[1]
                spread = others[1] - others[0]
                if gap > (1 if known else _FAR) * spread and gap > (1 if known else 100):
                    found.append(value)
    return found


def _range_without(array: NDArray, value: float) -> Limits | None:
    low, high = np.inf, -np.inf
    for part in array:
        rest = part[part != value]
        if rest.size:
            low, high = min(low, float(rest.min())), max(high, float(rest.max()))
    return None if low > high else (low, high)


def _fill_words(fills: Sequence[float], array: NDArray) -> str:
    named = " and ".join(f"{value:g} ({sum(int((part == value).sum()) for part in array):,} times)" for value in fills)
    rest = [part[~np.isin(part, fills)] for part in array]
    low, high = (min(part.min() for part in rest if part.size), max(part.max() for part in rest if part.size))
    return f"{named} looks like a mark for missing values: the others run from {low:g} to {high:g}"


def _extremes(array: NDArray, name: str) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for number, part in enumerate(array):
        least, most = float(part.min()), float(part.max())
        if not np.isfinite(least) or not np.isfinite(most):
            bad = int((~np.isfinite(part)).sum())
            raise UnusableFile(
                name,
                f"{bad} values of part {number} along its first axis are not finite (NaN or infinite)",
                "if they mark what is missing, replace them by a value that means nothing there, such as that of black "
                "or the mean",
            )
        low, high = min(low, least), max(high, most)
    return low, high
