"""Arrays of frames as people store them: the order of their axes and the range of their values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.video_prediction.data.errors import UnusableFile

# N sequences, T frames, C channels, H and W pixels.
LAYOUTS = ("THW", "THWC", "TCHW", "NTHW", "TNHW", "NTHWC", "NTCHW", "TNHWC", "TNCHW")
_CHANNELS = (1, 3)
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
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        if len(layout) != len(shape) or ("C" in layout and shape[layout.index("C")] not in _CHANNELS):
            raise UnusableFile(name, f"an array of shape {shape} is not {layout} with 1 or 3 channels", _STATE_IT)
        return layout, "as stated"
    if len(shape) not in (3, 4, 5):
        raise UnusableFile(
            name, f"an array of shape {shape} is no video", "expected 3 to 5 axes: " + ", ".join(LAYOUTS)
        )
    last = shape[-1] in _CHANNELS and len(shape) > 3
    before = shape[-3] in _CHANNELS and len(shape) > 3
    if last and before:
        raise UnusableFile(name, f"channels may be axis {len(shape) - 3} or the last one of shape {shape}", _STATE_IT)
    channels = "last axis of 1 or 3" if last else "axis of 1 or 3 before the pixels" if before else ""
    frame = "HWC" if last else "CHW" if before else "HW"
    if len(shape) == len(frame) + 1:
        return "T" + frame, f"detected: one sequence{', channels: ' + channels if channels else ''}"
    if len(shape) != len(frame) + 2:
        raise UnusableFile(name, f"none of 5 axes of shape {shape} has 1 or 3 channels", _STATE_IT)
    # The order of mnist_test_seq.npy, which is 20 x 10000 x 64 x 64.
    if shape[0] == 20 and shape[1] >= 100:
        return "TN" + frame, "detected: 20 first, then many, as in mnist_test_seq.npy"
    return "NT" + frame, f"detected: sequences first{', channels: ' + channels if channels else ''}"


def ordered(array: NDArray, layout: str) -> NDArray:
    """The same array (a view) as ``[N, T, H, W, C]``."""
    for letter in "NC":
        if letter not in layout:
            array, layout = array[None], letter + layout
    return array.transpose([layout.index(letter) for letter in "NTHWC"])


def value_range_of(
    array: NDArray, value_range: tuple[float, float] | None, name: str
) -> tuple[tuple[float, float], str]:
    """Find or check the values that stand for black and white.

    Bytes are 0 to 255 and booleans 0 to 1 by their type; other numbers are looked through.

    Parameters
    ----------
    array : array
        Frames; the first axis is looked through piece by piece.
    value_range : (float, float), optional
        Black and white as stated by the user.
    name : str
        Of the file, for messages.

    Returns
    -------
    value_range : (float, float)
    reason : str
        In words, why it is that one.

    Raises
    ------
    UnusableFile
        If there are no numbers, a value is not finite, or out of its range.
    """
    if array.dtype.kind not in "buif":
        raise UnusableFile(name, f"its values are of type {array.dtype}", "expected numbers")
    if value_range is None and array.dtype == np.bool_:
        return (0.0, 1.0), "0 to 1, of booleans"
    if value_range is None and array.dtype == np.uint8:
        return (0.0, 255.0), "0 to 255, of bytes"
    low, high = _extremes(array, name)
    if value_range is not None:
        if not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be (black, white), black below white, got {value_range}")
        slack = 1e-6 * (value_range[1] - value_range[0])
        if low < value_range[0] - slack or high > value_range[1] + slack:
            raise UnusableFile(
                name,
                f"its values run from {low:g} to {high:g}, outside the stated {value_range[0]:g} to {value_range[1]:g}",
                "state the range that holds with value_range, or clip the values",
            )
        return (float(value_range[0]), float(value_range[1])), "as stated"
    floating = array.dtype.kind == "f"
    candidates = [(0, 1), (0, 255), (-1, 1)] if floating else [(0, 255), (0, 65535)]
    for black, white in candidates:
        if black <= low and high <= white:
            return (float(black), float(white)), f"{black} to {white}, detected: values run from {low:g} to {high:g}"
    raise UnusableFile(
        name,
        f"its values run from {low:g} to {high:g}, which is no usual range of pixels",
        f"state black and white with value_range, such as value_range=[{low:g},{high:g}]",
    )


def _extremes(array: NDArray, name: str) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for number, part in enumerate(array):
        least, most = float(part.min()), float(part.max())
        if not np.isfinite(least) or not np.isfinite(most):
            bad = int((~np.isfinite(part)).sum())
            raise UnusableFile(
                name,
                f"{bad} values of part {number} along its first axis are not finite (NaN or infinite)",
                "replace them first, for instance with numpy.nan_to_num",
            )
        low, high = min(low, least), max(high, most)
    return low, high
