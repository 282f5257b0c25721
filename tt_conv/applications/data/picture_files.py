"""Picture files: single ones, which are frames of a clip, and files of several, each a clip of its own."""

import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, ImageSequence

from tt_conv.applications import gate
from tt_conv.applications.data.errors import EMPTY_SECTOR, REPLACE, UnusableFile
from tt_conv.applications.extras import naming_the_extra

_TIFF = (".tif", ".tiff")
_MANY = (".png", ".apng", ".webp", *_TIFF)  # endings of files that may hold several pictures
_TURNED = {  # EXIF orientation -> what is done to show it
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "turned upside down",
    5: "mirrored and turned by 90 degrees counterclockwise",
    6: "turned by 90 degrees clockwise",
    7: "mirrored and turned by 90 degrees clockwise",
    8: "turned by 90 degrees counterclockwise",
}
# Axes of stacks as tifffile names them: time, or what counts pages; depth is taken for time where that is missing.
_PAGES = "TQIZ"


def holds_several(path: Path) -> bool:
    """Whether a picture file holds more than one picture (one that cannot be read does not).

    The second picture of a photograph (JPEG with MPO) is a preview or a map of depths, and no frame.
    """
    if path.suffix.lower() not in _MANY:
        return False
    try:
        if path.suffix.lower() in _TIFF:
            with _tiff(path) as file:
                return sum(len(pages) for pages in (_full_pages(file),)) > 1 or _frames_of_stack(file) > 1
        with gate.picture(path) as picture:
            return getattr(picture, "n_frames", 1) - bool(picture.info.get("default_image")) > 1
    except (UnusableFile, OSError, SyntaxError, ValueError):
        return False


def pictures_in(path: Path, notes: list[str] | None = None) -> list[NDArray]:
    """All pictures of a file [H, W, C] as they are shown: bytes, or numbers as they are stored.

    Parameters
    ----------
    path : Path
    notes : list of str, optional
        Gets what a user should know: pictures that were turned.

    Raises
    ------
    UnusableFile
        If it is broken, or its pictures have several sizes or kinds.
    """
    said = [] if notes is None else notes
    try:
        found = _of_tiff(path, said) if path.suffix.lower() in _TIFF else _of_picture(path, said)
    except UnusableFile:
        raise
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise UnusableFile(path, f"broken image ({gate.problem_of(path, error)})", REPLACE) from error
    if not found:
        raise UnusableFile(path, "it holds no picture", REPLACE)
    for picture in found[1:]:
        _check_alike(path, picture, found[0])
    return found


def frames_of_folder(files: Sequence[Path], notes: list[str] | None = None) -> Iterator[NDArray]:
    """The pictures of single files [H, W, C], which are the frames of one clip; errors as of :func:`pictures_in`."""
    first: NDArray | None = None
    turned: list[str] = []
    for file in files:
        own: list[str] = []
        (picture,) = pictures_in(file, own)[:1]
        turned += own
        if first is None:
            first = picture
        else:
            _check_alike(file, picture, first)
        yield picture
    if turned and notes is not None:
        notes.append(turned[0] if len({*turned}) == 1 else f"of some frames: {'; '.join(sorted({*turned}))}")


def _check_alike(path: Path, picture: NDArray, first: NDArray) -> None:
    if picture.shape != first.shape or picture.dtype != first.dtype:
        raise UnusableFile(
            path,
            f"an image of {picture.dtype} {picture.shape} after ones of {first.dtype} {first.shape}",
            "give all frames of a clip one size, one number of channels and one depth",
        )


def _of_picture(path: Path, notes: list[str]) -> list[NDArray]:
    with gate.picture(path) as picture:
        kind = picture.format
        if kind == "PNG":
            with gate.picture(path) as whole:
                whole.verify()  # checksums, which decoding does not look at
        if kind == "JPEG":
            _check_scan(path)
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in _TURNED:
            notes.append(f"frames are {_TURNED[orientation]}, as the file says that they are shown")
        if kind == "MPO":
            return [_pixels_of(picture)]
        skipped = int(bool(picture.info.get("default_image")))  # of an APNG: for programs that know no animation
        found = [_pixels_of(page) for page in ImageSequence.Iterator(picture)]
        return found[skipped:] if len(found) > skipped else found


def _pixels_of(picture: Image.Image) -> NDArray:
    shown = ImageOps.exif_transpose(picture)
    if shown.mode[0] not in "IF":
        shown = shown.convert("L" if shown.mode in ("1", "L", "LA") else "RGB")
    pixels = np.array(shown)
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_scan(path: Path) -> None:
    """Decoders of JPEG make gray of a lost sector and say nothing; a scan is entropy-coded and has no such zeros."""
    data = path.read_bytes()
    start, end = data.find(b"\xff\xda"), data.rfind(b"\xff\xd9")
    if 0 <= data.find(EMPTY_SECTOR, max(0, start)) < end:
        raise UnusableFile(path, "damaged: zeros stand where its pixels should be", REPLACE)


def _tiff(path: Path) -> Any:
    with naming_the_extra():
        import tifffile
    # It logs what it finds strange; what matters is checked here.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        return tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise UnusableFile(path, f"broken image ({error})", REPLACE) from error


def _full_pages(file: Any) -> list[Any]:
    """The pages but for previews and pages of a pyramid."""
    return [page for page in file.pages if not page.keyframe.is_reduced and not int(page.subfiletype) & 1]


def _frames_of_stack(file: Any) -> int:
    """Pictures that a file holds by what ImageJ and others wrote about it, which may be more than its pages."""
    series = file.series[0]
    return int(np.prod([size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]))


def _of_tiff(path: Path, notes: list[str]) -> list[NDArray]:
    with _tiff(path) as file:
        _check_chain(path, file)
        pages = _full_pages(file)
        if not pages:
            return []
        orientation = pages[0].tags.get("Orientation")
        turned = int(orientation.value) if orientation is not None else 1
        if turned in _TURNED:
            notes.append(f"frames are {_TURNED[turned]}, as the file says that they are shown")
        try:
            found = _pictures_of_tiff(path, file, pages)
        except ValueError as error:
            if isinstance(error, UnusableFile):
                raise
            if "imagecodecs" not in str(error) and "not supported" not in str(error):
                raise UnusableFile(path, f"broken image ({error})", REPLACE) from error
            # A compression that tifffile leaves to another package; Pillow reads the usual ones, turned already.
            with gate.picture(path) as picture:
                if getattr(picture, "n_frames", 1) != len(file.pages):
                    raise UnusableFile(path, str(error), "save it without compression") from error
                kept = {page.index for page in pages}
                return [
                    _pixels_of(page) for number, page in enumerate(ImageSequence.Iterator(picture)) if number in kept
                ]
    return [_turned(picture, turned) for picture in found]


def _pictures_of_tiff(path: Path, file: Any, pages: list[Any]) -> list[NDArray]:
    """The pictures of a TIFF file [H, W, C] as stored."""
    series = file.series[0]
    if len(file.series) == 1 and _frames_of_stack(file) >= len(pages):
        return _ordered(path, series.asarray(), series.axes, pages[0])
    arrays = [_ordered(path, page.asarray(), page.axes, page) for page in pages]
    return [picture for (picture,) in arrays]


def _ordered(path: Path, array: NDArray, axes: str, page: Any) -> list[NDArray]:
    """Pictures [H, W, C] of an array whose axes tifffile names."""
    for axis in [axis for axis, size in zip(axes, array.shape, strict=True) if size == 1 and axis not in "YX"]:
        array = array.squeeze(axes.index(axis))
        axes = axes.replace(axis, "", 1)
    counting = axes.replace("Y", "").replace("X", "").replace("S", "")
    if not {"Y", "X"} <= {*axes} or len(counting) > 1 or (counting and counting not in _PAGES):
        raise UnusableFile(
            path,
            f"a stack of shape {array.shape} with axes {axes} is no clip",
            "save one channel and one depth of it, or give it as .npy with layout",
        )
    samples = array.shape[axes.index("S")] if "S" in axes else 1
    if samples not in (1, 3, 4):
        raise UnusableFile(path, f"its pixels have {samples} values", "keep 1 (gray) or 3 (RGB) of them")
    order = [axes.index(axis) for axis in (counting, "Y", "X", "S") if axis and axis in axes]
    array = array.transpose(order)
    array = array if counting else array[None]
    array = array[..., :3] if samples > 1 else array[..., None]
    photometric = getattr(page.photometric, "name", "")
    if photometric == "PALETTE":
        palette = (page.colormap >> 8).astype(np.uint8)  # [3, values], of 16 bits
        array = np.moveaxis(palette[:, array[..., 0]], 0, -1)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if photometric == "MINISWHITE" and array.dtype.kind in "u":
        array = np.iinfo(array.dtype).max - array
    return [np.ascontiguousarray(picture.astype(picture.dtype.newbyteorder("="))) for picture in array]


def _turned(picture: NDArray, orientation: int) -> NDArray:
    """A picture [H, W, C] as its orientation says (TIFF 6.0, tag 274)."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def _check_chain(path: Path, file: Any) -> None:
    """Refuse a file that was cut off among its pages, whose chain tifffile then ends without a word."""
    form, handle = file.tiff, file.filehandle
    handle.seek(file.pages[len(file.pages) - 1].offset)
    (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(count * form.tagsize, 1)
    (after,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    if after:
        raise UnusableFile(path, f"cut off or damaged after {len(file.pages)} pages", REPLACE)
    for page in file.pages:
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
            if offset + size > handle.size or (not offset and size):
                raise UnusableFile(path, f"cut off: page {page.index + 1} ends beyond the file", REPLACE)
