"""What clips hold, found by decoding them once to their end, and remembered for files that don't change."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from tt_conv.applications import gate
from tt_conv.applications.data.cache import READING, state_of
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.frames import frames_of
from tt_conv.applications.output import replaced_file

T = TypeVar("T")


@dataclass(frozen=True)
class ExaminedClip:
    """What is known of a clip: how many frames [height, width] it has as shown, or what is wrong with it."""

    frames: int
    height: int
    width: int
    problem: str | None = None
    notes: tuple[str, ...] = ()


_MISSING = ExaminedClip(0, 0, 0, "it is not there")


def looked_through(videos: Sequence[Path], cache: Path) -> list[ExaminedClip]:
    """Decode every video once to its end; what was found is remembered in the cache, for files that don't change."""
    base = Path(os.path.commonpath([video.parent.resolve() for video in videos]))
    kept = cache / f"looked-through-{READING}-{hashlib.sha256(str(base).encode()).hexdigest()[:16]}.json"
    known = _remembered(kept)
    keys = [_key(video, base) for video in videos]
    new = {key: video for key, video in zip(keys, videos, strict=True) if key is not None and key not in known}
    if new:
        try:
            with ThreadPoolExecutor(8) as threads:  # decoders leave Python's lock
                looks = threads.map(examined, new.values())
                for key, found in zip(new, with_bar(looks, "looking through the videos", len(new)), strict=True):
                    known[key] = found
        finally:  # also what was done before an interruption
            _remember(kept, known)
    return [_MISSING if key is None else known[key] for key in keys]


def with_bar(items: Iterable[T], what: str, count: int) -> Iterable[T]:
    """The items, with a bar that shows how far they are if that takes more than a moment, on a terminal."""
    return tqdm(items, what, count, leave=False, disable=None, delay=3)


def _remembered(path: Path) -> dict[str, ExaminedClip]:
    try:
        return {
            key: ExaminedClip(**(found | {"notes": tuple(found["notes"])}))
            for key, found in gate.read_json(path).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}  # nothing remembered, or nothing that this version can read


def _remember(path: Path, known: dict[str, ExaminedClip]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path, several_writers=True) as partial:
            partial.write_text(json.dumps({key: asdict(found) for key, found in known.items()}))
    except OSError as error:
        raise type(error)(
            f"cannot write to the cache folder {path.parent} ({error.strerror}): choose another with cache"
        ) from error


def _key(video: Path, base: Path) -> str | None:
    """The file and its state; ``None`` if it is not there."""
    if not video.exists():
        return None
    return f"{(video.parent.resolve() / video.name).relative_to(base)} {state_of(video)}"


def examined(video: Path) -> ExaminedClip:
    """Decode a clip to its end."""
    count, size = 0, (0, 0)
    notes: list[str] = []
    try:
        for frame in frames_of(video, notes):
            if not count:
                size = frame.size
            count += 1
    except UnusableFile as error:
        return ExaminedClip(0, 0, 0, error.problem)
    except OSError as error:
        return ExaminedClip(0, 0, 0, f"cannot be opened ({error.strerror})")
    if not count:
        return ExaminedClip(0, 0, 0, "it holds no frame")
    return ExaminedClip(count, *size, notes=tuple(notes))
