"""Video files, read and written with PyAV."""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.data.errors import UnusableFile

_CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".webm": "libvpx-vp9", ".mkv": "libx264", ".mov": "libx264"}
_REMEDY = "replace it, or leave it out with broken=skip"


def read_video(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    frames: int | None = None,
) -> NDArray[np.uint8]:
    """Decode a video file.

    Parameters
    ----------
    path : path
        AVI, MP4, WebM, GIF, or what else FFmpeg reads.
    size : (int, int), optional
        Height and width to which frames are resized, by averaging over areas.
    channels : {1, 3}, optional
        Gray or RGB; by default gray where the file says so, else RGB.
    frames : int, optional
        Stop after as many.

    Returns
    -------
    array [T, H, W, C], uint8

    Raises
    ------
    UnusableFile
        If it cannot be decoded to its end, or holds no frame.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "flat.avi")
    ...     write_video(path, np.full((5, 16, 32, 3), 100, np.uint8))
    ...     frames = read_video(path, channels=1)
    >>> frames.shape
    (5, 16, 32, 1)
    """
    decoded = list(islice(decode(path, size=size, channels=channels), frames))
    return np.stack(decoded)


def decode(
    path: Path | str, *, size: tuple[int, int] | None = None, channels: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames [H, W, C] of a video file one by one; parameters and errors as of :func:`read_video`."""
    first: av.VideoFrame | None = None
    for frame in stored_frames(path):
        first = first or frame
        height, width = size or (first.height, first.width)
        gray = channels == 1 or (channels is None and first.format.name.startswith("gray"))
        yield pixels_of(frame, (height, width), 1 if gray else 3)


def stored_frames(path: Path | str) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video file as they are stored; errors as of :func:`read_video`."""
    path = Path(path)
    with path.open("rb"):  # for the plain error of a file that is missing or may not be read
        pass
    count, end = 0, 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UnusableFile(path, "it holds no video stream", "leave it out")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # files are decoded side by side, each in one thread
            for frame in container.decode(stream):
                count, end = count + 1, frame.time or 0.0
                yield frame
            _check_length(path, container, stream, count, end)
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        problem = f"broken after {count} frames" if count else "no video, or a damaged one"
        raise UnusableFile(path, f"{problem} ({reason})", _REMEDY) from error
    if not count:
        raise UnusableFile(path, "not one frame could be decoded", _REMEDY)


def _check_length(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, count: int, last: float
) -> None:
    """Refuse a file that was cut off or lost frames, which FFmpeg reads without an error in some containers.

    (MP4 and its kin keep a table of all frames: what is missing is an error there.) ``last`` is the time of the last
    frame in seconds.
    """
    kind = set(container.format.name.split(","))
    problem, remedy = "", _REMEDY
    if "gif" in kind and path.read_bytes().rstrip(b"\0")[-1:] != b";":
        problem = f"cut off after {count} frames"
    elif "gif" in kind and count < stream.frames:
        # FFmpeg takes images for one where no delay stands between them.
        problem = f"its {stream.frames} images state no delays, so they are read as {count}"
        remedy = "write it anew with a duration of its frames, or give them as a folder of images"
    elif "webm" in kind and _segment_end(path) > path.stat().st_size:
        problem = f"cut off after {count} frames: its header tells of {_segment_end(path):,} bytes"
    elif "avi" in kind and stream.average_rate:
        # Times count, not frames: a frame may be stored as "the same again". Decoders hold back one or two.
        missing = stream.frames - (last * float(stream.average_rate) + 1)
        if missing > max(2.5, 0.02 * stream.frames):
            problem = f"cut off or damaged: its header tells of {stream.frames} frames, {missing:.0f} are missing"
    if problem:
        raise UnusableFile(path, problem, remedy)


def _segment_end(path: Path) -> int:
    """Where the one segment of a Matroska or WebM file ends by its own account; 0 if it does not tell."""
    with path.open("rb") as file:
        head = file.read(4096)
    start = head.find(b"\x18\x53\x80\x67") + 4
    if start < 4 or start >= len(head) or not head[start]:
        return 0
    length = 9 - head[start].bit_length()
    size = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
    unknown = (1 << 7 * length) - 1
    return 0 if size == unknown else start + length + size


def chosen_frames(video: Path, chosen: NDArray[np.int64], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Some frames of a video [T, H, W, C]."""
    wanted = {*chosen.tolist()}
    pixels = {
        number: pixels_of(frame, size, channels)
        for number, frame in enumerate(islice(stored_frames(video), max(wanted) + 1))
        if number in wanted
    }
    if len(pixels) < len(wanted):
        raise UnusableFile(video, "it is shorter than when the data were opened", "open the data set again")
    return np.stack([pixels[number] for number in chosen.tolist()])


def pixels_of(frame: av.VideoFrame, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """The pixels [H, W, C] of a frame in a size (height, width), by averaging over areas; gray or RGB."""
    plain = frame.reformat(
        width=size[1], height=size[0], format="gray" if channels == 1 else "rgb24", interpolation="AREA"
    ).to_ndarray()
    return cast(NDArray[np.uint8], plain[..., None] if channels == 1 else plain)


def write_video(
    path: Path | str,
    frames: NDArray[np.uint8],
    *,
    rate: float = 10.0,
    codec: str | None = None,
    pixel_format: str | None = None,
) -> None:
    """Encode frames as a video file; it takes its name once it is complete.

    Parameters
    ----------
    path : path
        Its ending names the container: .mp4 (H.264), .avi (MPEG-4), .webm (VP9), .mkv, .mov.
    frames : array [T, H, W] or [T, H, W, C], uint8
        Gray or RGB. The usual codecs need even sides: odd ones are continued by one row or column.
    rate : float
        Frames per second.
    codec, pixel_format : str, optional
        Names of FFmpeg, such as ``"mjpeg"`` and ``"yuvj420p"``.

    Raises
    ------
    ValueError
        If there are no frames, they are not bytes, or nothing is known about the ending.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "clip.mp4")
    ...     write_video(file, np.zeros((5, 32, 48), np.uint8))
    ...     read_video(file).shape[:3]
    (5, 32, 48)
    """
    path = Path(path)
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3) or not frames.size:
        raise ValueError(
            f"expected frames [T, H, W, C] of bytes with 1 or 3 channels, got {frames.dtype} {frames.shape}"
        )
    if codec is None and path.suffix.lower() not in _CODECS:
        raise ValueError(f"{path}: no known kind of video; the name may end in {', '.join(_CODECS)}")
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    frames = np.ascontiguousarray(frames.repeat(3, axis=-1) if frames.shape[-1] == 1 else frames)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        _encode(
            partial, frames, Fraction(rate).limit_denominator(1000), codec or _CODECS[path.suffix.lower()], pixel_format
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _encode(path: Path, frames: NDArray[np.uint8], rate: Fraction, codec: str, pixel_format: str | None) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format or "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "15"}
        elif codec == "libvpx-vp9":
            stream.options = {"crf": "15", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        else:
            stream.options = {"qscale": "2"}
            stream.bit_rate = 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
