"""Files as people have them, written by the tests."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CODECS = {
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".flv": "libx264",
    ".avi": "mpeg4",
    ".mp4": "libx264",
    ".mov": "libx264",
    ".ts": "libx264",
    ".mpg": "mpeg2video",
}


def corners(height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A picture [H, W] whose four quarters differ, so that it shows how it was turned: 20, 90 / 160, 230."""
    picture = np.empty((height, width), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = 20, 90
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = 160, 230
    return picture


def quarters(frame: NDArray) -> list[int]:
    """The values in the middle of the four quarters [H, W, ...], row by row, to the nearest of :func:`corners`."""
    height, width = frame.shape[:2]
    known = np.array([20, 90, 160, 230])
    values = [
        float(frame[row, column].mean())
        for row in (height // 4, 3 * height // 4)
        for column in (width // 4, 3 * width // 4)
    ]
    return [int(known[np.abs(known - value).argmin()]) for value in values]


def scene(frames: int = 60, height: int = 96, width: int = 128, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of colour that move under a little noise [T, H, W, 3]: every packet holds something."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (height // 4, width // 2 + frames, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    moved = np.stack([blocks[:, 2 * time : 2 * time + width] for time in range(frames)])
    return (moved + rng.integers(-8, 8, (frames, height, width, 1))).clip(0, 255).astype(np.uint8)


def write(
    path: Path,
    *streams: NDArray[np.uint8],
    codec: str | None = None,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    aspect: tuple[int, int] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write videos [T, H, W, 3] as the streams of a file; ``times`` are those of frames, in 100ths of a second."""
    from fractions import Fraction

    with av.open(str(path), "w", options=container or {}) as output:
        made = []
        for frames in streams:
            stream = output.add_stream(codec or CODECS[path.suffix], rate=100 if times else 25, options=options or {})
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if aspect:
                stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
            if rotation:
                stream.set_display_rotation(rotation)
            made.append(stream)
        for stream, frames in zip(made, streams, strict=True):
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                if times:
                    frame.pts, frame.time_base = times[number], Fraction(1, 100)
                output.mux(stream.encode(frame))
        for stream in made:
            output.mux(stream.encode(None))
    return path


def set_matrix(path: Path, matrix: Sequence[int]) -> Path:
    """Write the display matrix (a, b, c, d) into the track header of an MP4 or MOV file (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: 4 bytes, times and numbers 20, reserved 8, layer to volume 8
    a, b, c, d = (value * 65536 for value in matrix)
    content[place : place + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content)
    return path
