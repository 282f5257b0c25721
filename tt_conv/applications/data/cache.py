"""Decoded videos, kept as ``.npy`` files that are mapped into memory."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np

from tt_conv.applications.data.video_file import decode

_HEADER = 128  # bytes; the frames follow, and their number is known only then


def cache_folder(folder: Path | str | None) -> Path:
    """The folder asked for, or ``tt-conv`` in the user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``)."""
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tt-conv" / "videos"


def decoded_file(video: Path, folder: Path, *, size: tuple[int, int] | None, channels: int | None) -> Path:
    """Decode a video into the cache, unless that was done; a changed video is decoded anew.

    Parameters
    ----------
    video : Path
        The video file.
    folder : Path
        Where decoded videos are kept; it is made if it is missing.
    size : (int, int), optional
        Height and width.
    channels : {1, 3}, optional
        Gray or RGB.

    Returns
    -------
    Path
        A ``.npy`` file of bytes [T, H, W, C].
    """
    state = video.stat()
    key = f"{video.resolve()} {state.st_size} {state.st_mtime_ns} {size} {channels}"
    path = folder / f"{video.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"cannot make the cache folder {folder} ({error.strerror}): choose another with cache"
        ) from error
    # Two names of one video may be decoded side by side.
    partial = path.with_name(f".partial-{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        _write(partial, video, size, channels)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(path: Path, video: Path, size: tuple[int, int] | None, channels: int | None) -> None:
    count, shape = 0, (0, 0, 0)
    with path.open("wb") as file:
        file.write(bytes(_HEADER))
        for frame in decode(video, size=size, channels=channels):
            file.write(np.ascontiguousarray(frame).data)
            count, shape = count + 1, frame.shape
        description = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(count, *shape)}, }}"
        file.seek(0)
        file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
        file.write(description.ljust(_HEADER - 11).encode() + b"\n")
