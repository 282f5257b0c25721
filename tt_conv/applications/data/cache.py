"""Decoded videos, kept as ``.npy`` files that are mapped into memory."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from tt_conv.applications import gate
from tt_conv.applications.data.folders import frame_files
from tt_conv.applications.data.frames import decode
from tt_conv.applications.output import replaced_file

_HEADER = 128  # bytes; the frames follow, and their number is known only then
# Goes up when files are read otherwise than before, so that what was decoded then is not taken for the same.
READING = 2


def cache_folder(folder: Path | str | None) -> Path:
    """The folder asked for, or ``tt-conv`` in the user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``)."""
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tt-conv" / "videos"


def decoded_file(
    video: Path,
    folder: Path,
    *,
    size: tuple[int, int] | None,
    channels: int | None,
    notes: list[str] | None = None,
) -> Path:
    """Decode a clip into the cache, unless that was done; a changed file is decoded anew.

    Parameters
    ----------
    video : Path
        A video file, a file of several pictures, or a folder of pictures.
    folder : Path
        Where decoded videos are kept; it is made if it is missing.
    size : (int, int), optional
        Height and width.
    channels : {1, 3}, optional
        Gray or RGB.
    notes : list of str, optional
        Gets what was found when it was decoded.

    Returns
    -------
    Path
        A ``.npy`` file of bytes [T, H, W, C].
    """
    key = f"{READING} {video.resolve()} {state_of(video)} {size} {channels}"
    path = folder / f"{video.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    said = path.with_suffix(".json")
    if path.exists():
        if notes is not None and said.exists():
            notes += gate.read_json(said)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"cannot make the cache folder {folder} ({error.strerror}): choose another with cache"
        ) from error
    # Two names of one video may be decoded side by side.
    with replaced_file(path, several_writers=True) as partial:
        found = _write_decoded(partial, video, size, channels)
        if found:
            with replaced_file(said, several_writers=True) as partial_notes:
                partial_notes.write_text(json.dumps(found))
    if notes is not None:
        notes += found
    return path


def state_of(source: Path) -> str:
    """What changes when a file is written anew, or a file in a folder of pictures."""
    files = frame_files(source) if source.is_dir() else [source]
    states = [(file.name, file.stat()) for file in files]
    words = " ".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
    return hashlib.sha256(words.encode()).hexdigest() if source.is_dir() else words.removeprefix(f"{source.name} ")


def _write_decoded(path: Path, video: Path, size: tuple[int, int] | None, channels: int | None) -> list[str]:
    notes: list[str] = []
    count, shape = 0, (0, 0, 0)
    with path.open("wb") as file:
        file.write(bytes(_HEADER))
        for frame in decode(video, notes, size=size, channels=channels):
            file.write(np.ascontiguousarray(frame).data)
            count, shape = count + 1, frame.shape
        description = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(count, *shape)}, }}"
        file.seek(0)
        file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
        file.write(description.ljust(_HEADER - 11).encode() + b"\n")
    return notes
