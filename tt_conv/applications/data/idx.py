"""IDX files, the form in which MNIST and Fashion-MNIST are distributed."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.data.splits import Split, check_split

# What the third byte of a file says about its values, which are big-endian.
_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_VALIDATION_IMAGES = 5_000  # the last ones of the training file, as usual


def read_idx(path: Path | str) -> NDArray:
    """Read an IDX file, compressed with gzip or not.

    Parameters
    ----------
    path : path
        Such as ``train-images-idx3-ubyte`` or ``train-images-idx3-ubyte.gz``.

    Returns
    -------
    array
        Of the shape and type that the file states.

    Raises
    ------
    ValueError
        If the file is no IDX file, or is cut off.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "labels-idx1-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))  # bytes, one axis of length 3
    ...     read_idx(file).tolist()
    [7, 2, 1]
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: a damaged gzip file ({error}): fetch it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise ValueError(f"{path}: no IDX file; expected one like train-images-idx3-ubyte, compressed or not")
    axes, dtype = data[3], np.dtype(_DTYPES[data[2]])
    header = 4 + 4 * axes
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(shape) != axes or len(data) != expected:
        raise ValueError(
            f"{path}: its header tells of {expected:,} bytes (shape {shape}), it has {len(data):,}: fetch it again"
        )
    values = np.frombuffer(data, dtype, offset=header).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def idx_digits(folder: Path | str, split: Split) -> NDArray[np.uint8]:
    """Images of one part of MNIST, Fashion-MNIST or another set in four IDX files.

    The test images are those of ``t10k-images-idx3-ubyte``; the last 5,000 of ``train-images-idx3-ubyte`` (a tenth
    of a smaller file) are for validation, the others for training.

    Parameters
    ----------
    folder : path
        Where the files are, compressed with gzip or not.
    split : {"train", "validation", "test"}
        Which part.

    Returns
    -------
    array [n, height, width], uint8
        0 is background, 255 full ink.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it holds no images.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (10, 28, 28))
    ...     _ = Path(folder, "train-images-idx3-ubyte").write_bytes(header + bytes(10 * 28 * 28))
    ...     len(idx_digits(folder, "train")), len(idx_digits(folder, "validation"))
    (9, 1)
    """
    check_split(split)
    name = "t10k-images-idx3-ubyte" if split == "test" else "train-images-idx3-ubyte"
    choices = [Path(folder, name + ending) for ending in ("", ".gz")]
    choices += [Path(folder, name.replace("-idx3", ".idx3") + ending) for ending in ("", ".gz")]
    path = next((path for path in choices if path.exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz: give the folder of the IDX files")
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"{path}: expected images [n, height, width] of bytes, got {images.dtype} {images.shape}")
    held_out = min(_VALIDATION_IMAGES, len(images) // 10)
    if split == "train":
        return images[: len(images) - held_out]
    return images if split == "test" else images[len(images) - held_out :]
