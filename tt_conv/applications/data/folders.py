"""What lies in folders: which files are videos, images and arrays, and in which order they are taken."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tt_conv.applications.data.errors import UnusableFile

VIDEO_ENDINGS = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
IMAGE_ENDINGS = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp"])
ARRAY_ENDINGS = frozenset((".npy", ".npz"))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``frame2`` before ``frame10``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def in_order(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: natural_key(path.name))


def sources_in(path: Path) -> Iterator[Path]:
    """Files and frame folders under a path, in natural order of their names."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder or a file with videos, frames or arrays")
    if path.is_file():
        if path.suffix.lower() not in VIDEO_ENDINGS | ARRAY_ENDINGS:
            raise UnusableFile(
                path,
                "not known as a video or an array",
                "expected a name that ends in " + ", ".join(sorted(VIDEO_ENDINGS | ARRAY_ENDINGS)),
            )
        yield path
        return
    inside = in_order(item for item in path.iterdir() if not item.name.startswith("."))
    if any(item.suffix.lower() in IMAGE_ENDINGS for item in inside):
        yield path
    for item in inside:
        if item.is_dir():
            yield from sources_in(item)
        elif item.suffix.lower() in VIDEO_ENDINGS | ARRAY_ENDINGS:
            yield item
