"""The parts of a data set: for training, validation and test."""

from pathlib import Path
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_FOLDERS = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing")}


def check_split(split: Any) -> None:
    """Refuse what does not name a part of a data set."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")


def split_folders(path: Path) -> dict[str, Path]:
    """Which folders in a folder hold its parts."""
    return {part: path / name for part, names in _FOLDERS.items() for name in names if (path / name).is_dir()}


def split_folder(path: Path, split: str) -> Path | None:
    """The folder in a folder that holds a part of it; ``None`` if it has none for any part."""
    if split == "all" or not path.is_dir():
        return None
    found = split_folders(path)
    if not found:
        return None
    if split not in found:
        raise FileNotFoundError(
            f"{path} has folders for {', '.join(found)} but none for {split}: add {path / split}, "
            "or leave the splitting to the program by putting all clips into one folder"
        )
    return found[split]
