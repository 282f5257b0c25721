"""What video files hold, found by decoding them once to their end, and remembered for files that don't change."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import av
from tqdm import tqdm

from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.video_file import stored_frames

T = TypeVar("T")
_WHOLE = 0.9  # of its stated length: what a video must have to be taken for whole


@dataclass(frozen=True)
class Found:
    """What is known of a video: how many frames [height, width] it has, or what is wrong with it."""

    frames: int
    height: int
    width: int
    problem: str | None = None


_MISSING = Found(0, 0, 0, "it is not there")


def looked_through(videos: Sequence[Path], cache: Path) -> list[Found]:
    """Decode every video once to its end; what was found is remembered in the cache, for files that don't change."""
    base = Path(os.path.commonpath([video.parent.resolve() for video in videos]))
    kept = cache / f"looked-through-{hashlib.sha256(str(base).encode()).hexdigest()[:16]}.json"
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


def _remembered(path: Path) -> dict[str, Found]:
    try:
        return {key: Found(**found) for key, found in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing remembered, or nothing that this version can read


def _remember(path: Path, known: dict[str, Found]) -> None:
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({key: asdict(found) for key, found in known.items()}))
        partial.replace(path)
    except OSError as error:
        raise type(error)(
            f"cannot write to the cache folder {path.parent} ({error.strerror}): choose another with cache"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _key(video: Path, base: Path) -> str | None:
    """The file and its state; ``None`` if it is not there."""
    if not video.is_file():
        return None
    state = video.stat()
    return f"{(video.parent.resolve() / video.name).relative_to(base)} {state.st_size} {state.st_mtime_ns}"


def examined(video: Path) -> Found:
    count, height, width, first, last = 0, 0, 0, None, None
    try:
        for frame in stored_frames(video):
            if not count:
                height, width, first = frame.height, frame.width, frame.time
            count, last = count + 1, frame.time
        stated = _stated_seconds(video)
    except UnusableFile as error:
        return Found(0, 0, 0, error.problem)
    except OSError as error:
        return Found(0, 0, 0, f"cannot be opened ({error.strerror})")
    # FFmpeg takes the end of a file that was cut off for the end of the video.
    if first is not None and last is not None and stated is not None:
        # The last frame is shown for as long as the others; a single one for a second at most.
        seconds = (last - first) * count / (count - 1) if count > 1 else min(stated, 1.0)
        if seconds < _WHOLE * stated:
            return Found(0, 0, 0, f"it breaks off after {seconds:.1f} of {stated:.1f} seconds")
    return Found(count, height, width)


def _stated_seconds(video: Path) -> float | None:
    """How long a video is by its header; ``None`` where that does not say, or may speak of sound."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1:
            return container.duration / av.time_base
    return None
