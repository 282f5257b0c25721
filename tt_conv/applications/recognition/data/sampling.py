"""Which frames of a video a clip consists of, and which part of them is observed."""

import math

import numpy as np
from numpy.typing import NDArray

from tt_conv.checks import positive_int


def sampled_frames(length: int, frames: int, places: NDArray[np.float64] | float = 0.5) -> NDArray[np.int64]:
    """Numbers of the frames that stand for a video: one from each of ``frames`` equal segments of it.

    The frame of segment i is number ``floor((i + place) * length / frames)``. The first n of them lie within the first
    n / frames of the video, so an observed part of the clip shows nothing of the rest. A video that is shorter than
    the clip gives frames more than once.

    Parameters
    ----------
    length : int
        Frames of the video.
    frames : int
        Frames of the clip, T.
    places : float or array [frames]
        Where in its segment each one is taken, from 0 to less than 1; 0.5 is the middle, as for evaluation.

    Returns
    -------
    array [frames], int64

    Examples
    --------
    >>> sampled_frames(40, 8).tolist()
    [2, 7, 12, 17, 22, 27, 32, 37]
    >>> sampled_frames(3, 6).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    chosen = np.floor((np.arange(positive_int(frames, "frames")) + places) * length / frames)
    return np.minimum(chosen, positive_int(length, "length") - 1).astype(np.int64)


def observed_frames(frames: int, fraction: float) -> int:
    """How many frames of a clip of ``frames`` lie within the front ``fraction`` of it; at least one.

    Parameters
    ----------
    frames : int
    fraction : float
        More than 0 and at most 1.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If ``fraction`` is not more than 0 and at most 1.

    Examples
    --------
    >>> [observed_frames(16, fraction) for fraction in (0.25, 0.5, 1)]
    [4, 8, 16]
    >>> observed_frames(10, 0.25)
    2
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"the observed fraction must be more than 0 and at most 1, got {fraction}")
    return max(1, math.floor(frames * fraction + 1e-6))
