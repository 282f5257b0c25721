"""The 5,000 real MNIST digits that ship with the package."""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications import gate
from tt_conv.applications.data.splits import Split, check_split

# Of the 500 digits of each class, in the order of the file: neighbours there are often by one writer, so
# contiguous parts also keep most writers apart.
_PART_OF_CLASS = {"train": slice(0, 400), "validation": slice(400, 450), "test": slice(450, 500)}


@cache
def _all_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    source = files("tt_conv.applications.data") / "digits" / "mnist_5000.npz"
    with source.open("rb") as file:
        arrays = gate.read_npz(file, source.name)
    return arrays["images"], arrays["labels"]


def embedded_digits(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Digits of one part of the embedded set; no digit is in two parts.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        4,000, 500 or 500 digits, equally many of each class.

    Returns
    -------
    images : array [n, 28, 28], uint8
        Ink on black: 0 is background, 255 full ink.
    labels : array [n], uint8
        The digit that each image shows.

    Raises
    ------
    ValueError
        If the split has another name.

    Examples
    --------
    >>> images, labels = embedded_digits("test")
    >>> images.shape, int(labels[0]), int(labels[-1])
    ((500, 28, 28), 0, 9)
    """
    check_split(split)
    images, labels = _all_digits()
    chosen = np.concatenate([np.flatnonzero(labels == digit)[_PART_OF_CLASS[split]] for digit in range(10)])
    return images[chosen], labels[chosen]
