"""Video files, read and written with PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from numpy.typing import NDArray

from tt_conv.applications.data.containers import damage
from tt_conv.applications.data.errors import EMPTY_SECTOR, UnusableFile
from tt_conv.applications.data.frame import UPRIGHT, Frame, Pose
from tt_conv.applications.output import replaced_file

_CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".webm": "libvpx-vp9", ".mkv": "libx264", ".mov": "libx264"}
_REMEDY = "replace it, or leave it out with broken=skip"
_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Decoders report what they would otherwise conceal.
_STRICT = "crccheck+bitstream+buffer+explode"
# Codecs whose packets are entropy-coded throughout, so that no long run of zeros is in them. A damaged sector of a disk
# has 512 of them; decoders of VP9 and others without redundancy make pictures of that and say nothing.
_DENSE = frozenset(
    ["h263", "h264", "hevc", "vvc", "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "flv1", "theora"]
    + ["msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"]
)
# Codecs of which each packet gives one frame. (VP8 and MPEG-4 have packets that are not shown.)
_ONE_FRAME_A_PACKET = frozenset(["h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "vp9", "ffv1", "rawvideo"])
_WHOLE = 0.9  # of its stated length: what a video must have to be taken for whole, where its container tells no better


def video_frames(path: Path, notes: list[str] | None = None, *, to_end: bool = True) -> Iterator[Frame]:
    """Yield the frames of a video file as players show them.

    Of several video streams that which FFmpeg would play is taken, covers and thumbnails never. Frames are turned as
    the file says. A file that is damaged or cut off is refused, also where FFmpeg would decode what is left of it.

    Parameters
    ----------
    path : Path
    notes : list of str, optional
        Gets what a user should know: frames that were turned, which stream was taken.
    to_end : bool
        Whether all frames are wanted, and with them whether the file is whole.

    Raises
    ------
    UnusableFile
        If it cannot be decoded to its end, or holds no frame.
    OSError
        If it cannot be opened.
    """
    with path.open("rb"):  # for the plain error of a file that is missing or may not be read
        pass
    said = [] if notes is None else notes
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = _film(path, container, said)
            if to_end and (problem := damage(path, container.format.name)):
                raise UnusableFile(path, problem, _REMEDY)
            for frame in _decoded_frames(path, container, stream, said):
                count += 1
                yield frame
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        problem = f"broken after {count} frames" if count else "no video, or a damaged one"
        raise UnusableFile(path, f"{problem} ({reason})", _REMEDY) from error
    if not count:
        raise UnusableFile(path, "not one frame could be decoded", _REMEDY)


def _film(path: Path, container: av.container.InputContainer, notes: list[str]) -> av.VideoStream:
    """The video stream that is no cover, and of several that are not, the film."""
    films = [stream for stream in container.streams.video if not stream.disposition & _NO_FILM]
    if not films:
        what = "a cover picture, but no film" if container.streams.video else "no video stream"
        raise UnusableFile(path, f"it holds {what}", "leave it out")
    chosen = films[0]
    if len(films) > 1:
        # FFmpeg's own choice goes by rates that many containers do not state, and takes a preview for the film there.
        counts = _packets_of(path)
        most = max(counts.get(stream.index, 0) for stream in films)
        chosen = max(
            films,
            key=lambda stream: (
                2 * counts.get(stream.index, 0) >= most,  # a still, or a preview of few pictures, is no film
                stream.width * stream.height,
                bool(stream.disposition & Disposition.default),
                -stream.index,
            ),
        )
    if len(container.streams.video) > 1:
        notes.append(
            f"stream {chosen.index} of {len(container.streams.video)} video streams is taken, "
            f"of {chosen.height} x {chosen.width} pixels"
        )
    return chosen


def _packets_of(path: Path) -> dict[int, int]:
    """How many packets each stream has."""
    counts: dict[int, int] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            counts[packet.stream.index] = counts.get(packet.stream.index, 0) + bool(packet.size)
    return counts


def _decoded_frames(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, notes: list[str]
) -> Iterator[Frame]:
    context, name = stream.codec_context, stream.codec_context.name
    stream.thread_type = "NONE"  # files are decoded side by side, each in one thread
    context.options = {"err_detect": _STRICT}
    context.flags |= av.codec.context.Flags.output_corrupt  # or such frames would be left out without a word
    packets = hidden = count = 0  # hidden: what an edit list cuts away is decoded, not shown
    first: Frame | None = None
    start = end = 0.0
    interlaced = False
    for packet in container.demux(stream):
        if packet.is_corrupt or (packet.size and name in _DENSE and _has_lost_sector(bytes(packet), name)):
            raise UnusableFile(path, f"damaged: data are missing after {count} frames", _REMEDY)
        packets += bool(packet.size)
        hidden += bool(packet.size) and packet.is_discard
        for stored in packet.decode():
            if stored.is_corrupt:
                raise UnusableFile(path, f"damaged: frame {count + 1} cannot be decoded", _REMEDY)
            count, end = count + 1, stored.time or 0.0
            if first is None:
                first, start = Frame(stored, _pose(path, stored, stream, notes), _aspect(stream, notes)), end
                _note_shape(first, notes)
            interlaced |= stored.interlaced_frame
            frame = Frame(stored, first.pose, first.aspect)
            if frame.size != first.size and count > 1 and not any("change" in note for note in notes):
                notes.append(f"frames change from {_by(first.size)} to {_by(frame.size)} pixels within the video")
            yield frame
    if not count:
        return
    problem, remedy = "", _REMEDY
    kind = {*container.format.name.split(",")}
    # The two fields of an interlaced frame may be two packets.
    lost = 0 if interlaced or name not in _ONE_FRAME_A_PACKET else packets - hidden - count
    if lost > 0:
        problem = f"damaged: of {packets} stored frames {lost} cannot be decoded"
    elif "gif" in kind and path.read_bytes().rstrip(b"\0")[-1:] != b";":
        problem = f"cut off after {count} frames"
    elif "gif" in kind and count < stream.frames:
        # FFmpeg takes images for one where no delay stands between them.
        problem = f"its {stream.frames} images state no delays, so they are read as {count}"
        remedy = "write it anew with a duration of its frames, or give them as a folder of images"
    elif "avi" in kind and stream.average_rate:
        # Times count, not frames: a frame may be stored as "the same again". Decoders hold back one or two.
        missing = stream.frames - (end * float(stream.average_rate) + 1)
        if missing > max(2.5, 0.02 * stream.frames):
            problem = f"cut off or damaged: its header tells of {stream.frames} frames, {missing:.0f} are missing"
    # The images of a GIF may be held for any time, the last one too, so its count tells and its duration does not.
    elif not kind & {"matroska", "mov", "mpegts", "mpeg", "gif"} and (stated := _stated_seconds(container, stream)):
        # The last frame is shown for as long as the others; a single one for a second at most.
        seconds = (end - start) * count / (count - 1) if count > 1 else min(stated, 1.0)
        if seconds < _WHOLE * stated:
            problem = f"it breaks off after {seconds:.1f} of {stated:.1f} seconds"
    if problem:
        raise UnusableFile(path, problem, remedy)


def _has_lost_sector(packet: bytes, codec: str) -> bool:
    start = packet.find(EMPTY_SECTOR)
    if start < 0:
        return False
    rest = packet[start:].lstrip(b"\0")
    # MPEG-1 and MPEG-2 are filled up with zeros before the next start code, to a constant rate.
    return not (codec in ("mpeg1video", "mpeg2video") and rest[:1] in (b"", b"\1"))


def _pose(path: Path, frame: av.VideoFrame, stream: av.VideoStream, notes: list[str]) -> Pose:
    """How a frame is turned by its display matrix (ISO/IEC 14496-12, 8.3.2; Matroska's projection is read as one)."""
    found: Any = frame.side_data  # its stub says less than it can
    side = found.get(SideData.DISPLAYMATRIX)
    if side is None:
        if stream.metadata.get("rotate", "0") not in ("0", "360"):
            notes.append(f"a tag says that it is turned by {stream.metadata['rotate']} degrees, which players ignore")
        return UPRIGHT
    matrix = np.frombuffer(bytes(side), np.int32).reshape(3, 3) / 65536
    # Pixel (x, y) is shown at (a x + c y, b x + d y).
    (a, b), (c, d) = matrix[:2, :2]
    straight, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if straight == across == 0:
        return UPRIGHT
    if min(straight, across) > 0.02 * max(straight, across):  # a degree
        raise UnusableFile(
            path, f"its frames are turned by {frame.rotation} degrees", "write it anew with upright frames"
        )
    transposed = across > straight
    return Pose(bool(transposed), bool((b if transposed else d) < 0), bool((c if transposed else a) < 0))


def _aspect(stream: av.VideoStream, notes: list[str]) -> Fraction:
    """Width over height of a pixel."""
    aspect = stream.sample_aspect_ratio
    if not aspect:
        return Fraction(1)
    if not Fraction(1, 8) <= aspect <= 8:
        notes.append(f"its pixels are said to be {aspect} times as wide as high, which is not believed")
        return Fraction(1)
    return Fraction(aspect)


def _note_shape(first: Frame, notes: list[str]) -> None:
    if first.pose != UPRIGHT:
        notes.append(f"frames are {first.pose.words()}, as the file says that they are shown")
    stored = (
        (first.stored.width, first.stored.height)
        if first.pose.transposed
        else (
            first.stored.height,
            first.stored.width,
        )
    )
    if first.size != stored:
        notes.append(
            f"pixels of {first.aspect.numerator}:{first.aspect.denominator} are made square: {_by(first.size)}"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _stated_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """How long a video is by its header; ``None`` where that does not say, or may speak of sound."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


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
    >>> from tt_conv.applications.data.frames import read_video
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
    with replaced_file(path, several_writers=True) as partial:
        _encode(
            partial, frames, Fraction(rate).limit_denominator(1000), codec or _CODECS[path.suffix.lower()], pixel_format
        )


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
