"""The frames of a clip, whatever it is stored as: a video file, a file of several pictures, a folder of pictures."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.folders import IMAGE_ENDINGS, frame_files
from tt_conv.applications.data.frame import Frame


def frames_of(source: Path, notes: list[str] | None = None, *, to_end: bool = True) -> Iterator[Frame]:
    """Yield the frames of a clip as they are shown.

    Parameters
    ----------
    source : Path
        A video file, a picture file, or a folder of pictures.
    notes : list of str, optional
        Gets what a user should know: frames that were turned, which stream was taken, the order of names.
    to_end : bool
        Whether all frames are wanted, and with them whether a video file is whole.

    Raises
    ------
    UnusableFile
        If it is broken or holds no frame, or pictures of more than bytes.
    OSError
        If it cannot be opened.
    """
    if not source.is_dir() and source.suffix.lower() not in IMAGE_ENDINGS:
        from tt_conv.applications.data.video_file import video_frames

        yield from video_frames(source, notes, to_end=to_end)
        return
    from tt_conv.applications.data.picture_files import frames_of_folder, pictures_in

    if source.is_dir():
        pictures: Iterator[NDArray] = frames_of_folder(frame_files(source, notes), notes)
    else:
        pictures = iter(pictures_in(source, notes))
    for picture in pictures:
        if picture.dtype != np.uint8:
            raise UnusableFile(
                source,
                f"its pictures are of {picture.dtype}, and which values are black and white is not known here",
                "write them as 8-bit pictures, or as an array with value_range where data of kind own are read",
            )
        yield Frame.of(picture)


def read_video(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    frames: int | None = None,
) -> NDArray[np.uint8]:
    """Decode a video file, a file of several pictures, or a folder of pictures.

    Parameters
    ----------
    path : path
        AVI, MP4, WebM, GIF, or what else FFmpeg reads; APNG, WebP, TIFF.
    size : (int, int), optional
        Height and width to which frames are resized, by averaging over areas.
    channels : {1, 3}, optional
        Gray or RGB; by default gray where the file says so, else RGB.
    frames : int, optional
        Stop after as many.

    Returns
    -------
    array [T, H, W, C], uint8
        As players show it: turned as the file says, in square pixels.

    Raises
    ------
    UnusableFile
        If it cannot be decoded to its end, or holds no frame.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.data.video_file import write_video
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "flat.avi")
    ...     write_video(path, np.full((5, 16, 32, 3), 100, np.uint8))
    ...     frames = read_video(path, channels=1)
    >>> frames.shape
    (5, 16, 32, 1)
    """
    return np.stack([*islice(decode(Path(path), size=size, channels=channels), frames)])


def decode(
    source: Path,
    notes: list[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames [H, W, C] of a clip one by one; parameters and errors as of :func:`read_video`."""
    first: Frame | None = None
    for frame in frames_of(source, notes):
        if first is None:
            first = frame
            if size is not None and notes is not None:
                note_squeezed(first.size, size, notes)
        gray = channels == 1 or (channels is None and first.is_gray)
        yield frame.pixels(size or first.size, 1 if gray else 3)


def note_squeezed(stored: tuple[int, int], size: tuple[int, int], notes: list[str]) -> None:
    """Say that frames do not keep their proportions, if they do not, to a pixel."""
    kept = stored[1] / stored[0] * size[0]
    if abs(kept - size[1]) > 1:
        notes.append(
            f"frames of {stored[0]} x {stored[1]} pixels are squeezed to {size[0]} x {size[1]}: "
            f"{size[0]} x {max(1, round(kept))} keeps their proportions"
        )


def chosen_frames(source: Path, chosen: NDArray[np.int64], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Some frames of a clip [T, H, W, C]."""
    wanted = {*chosen.tolist()}
    pixels = {
        number: frame.pixels(size, channels)
        for number, frame in enumerate(islice(frames_of(source, to_end=False), max(wanted) + 1))
        if number in wanted
    }
    if len(pixels) < len(wanted):
        raise UnusableFile(source, "it is shorter than when the data were opened", "open the data set again")
    return np.stack([pixels[number] for number in chosen.tolist()])
