"""Moving-MNIST from files: the fixed published protocol, and the usual ``mnist_test_seq.npy``."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tt_conv.applications import gate
from tt_conv.applications.data.own_videos import array_clips, settle
from tt_conv.applications.data.pixels import ValueRange
from tt_conv.applications.data.splits import SPLITS, Split, check_split
from tt_conv.applications.data.windows import ClipWindows
from tt_conv.applications.output import replaced_file
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST

# Sequences and frames of the published protocol: 10 given; 10 to predict in training, 10 and 30 in test.
PUBLISHED_SEQUENCES: Mapping[Split, int] = {"train": 10_000, "validation": 3_000, "test": 5_000}
PUBLISHED_FRAMES: Mapping[Split, int] = {"train": 20, "validation": 20, "test": 40}
_CHUNK = 64


def write_fixed_moving_mnist(
    folder: Path | str,
    *,
    sequences: Mapping[Split, int] = PUBLISHED_SEQUENCES,
    frames: Mapping[Split, int] = PUBLISHED_FRAMES,
    idx_folder: Path | str | None = None,
    seed: int = 0,
    size: int = 64,
    digits: int = 2,
) -> list[Path]:
    """Write the fixed sets of Moving-MNIST: ``train.npy``, ``validation.npy``, ``test.npy``, ``protocol.json``.

    Every file takes its name once it is complete, and one that is there already is kept, so that a run that was
    interrupted can be repeated. With the defaults they take 1.9 GB.

    Parameters
    ----------
    folder : path
        Where to write; it is made if it is missing.
    sequences, frames : mapping
        By split; the defaults are the published protocol.
    idx_folder : path, optional
        IDX files of MNIST or Fashion-MNIST whose images move; by default the digits that come with the package.
    seed : int
        Another seed gives other sequences.
    size, digits : int
        Side of a frame in pixels, digits in a sequence.

    Returns
    -------
    list of Path
        The array files, bytes [N, T, H, W].

    Raises
    ------
    FileExistsError
        If the folder holds sets of another protocol.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> few = {"train": 4, "validation": 2, "test": 2}
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_fixed_moving_mnist(folder, sequences=few)
    ...     FixedMovingMNIST(folder, frames=20, split="test")[0].shape
    torch.Size([20, 1, 64, 64])
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    protocol = {
        "sequences": dict(sequences),
        "frames": dict(frames),
        "seed": seed,
        "size": size,
        "digits": digits,
        "images": "embedded digits" if idx_folder is None else str(Path(idx_folder).resolve()),
    }
    _claim(folder / "protocol.json", protocol)
    paths = []
    for split in SPLITS:
        paths.append(folder / f"{split}.npy")
        if not paths[-1].exists():
            made = MovingMNIST(
                split,
                sequences[split],
                frames=frames[split],
                size=size,
                digits=digits,
                seed=seed,
                idx_folder=idx_folder,
            )
            _write_sequences(paths[-1], made)
    return paths


class FixedMovingMNIST(ClipWindows):
    """Moving-MNIST sequences from a file.

    Parameters
    ----------
    path : path
        A folder that :func:`write_fixed_moving_mnist` made, or an ``.npy`` or ``.npz`` file such as
        ``mnist_test_seq.npy`` (20 x 10000 x 64 x 64), whose sequences are then those of every split.
    frames : int
        Frames of a sequence, T: the first ones of each stored sequence.
    split : {"train", "validation", "test"}
        Which of the files of a folder.
    array_name : str, optional
        Which array of an ``.npz`` archive; needed only if it holds several.
    layout : str, optional
        Order of the axes, such as ``"TNHW"``; detected by default.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If the stored sequences are too short, or the file is broken.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "mnist_test_seq.npy")
    ...     np.save(file, np.zeros((20, 100, 64, 64), np.uint8))
    ...     data = FixedMovingMNIST(file, frames=20, split="test")
    ...     len(data), data[0].shape
    (100, torch.Size([20, 1, 64, 64]))
    """

    def __init__(
        self,
        path: Path | str,
        frames: int,
        split: Split = "train",
        *,
        array_name: str | None = None,
        layout: str | None = None,
    ) -> None:
        check_split(split)
        path = Path(path).expanduser()
        notes: list[str] = []
        is_one_set = not path.is_dir()
        if not is_one_set:
            path, layout = path / f"{split}.npy", layout or "NTHW"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: make it with tt-conv data moving_mnist --out {path.parent}"
            )
        if is_one_set:
            notes.append(
                f"{path.name} is one set of sequences, the same for training, validation and test: test a network on "
                "another one than it was trained on"
            )
        values = ValueRange()
        clips = array_clips(path, path.name, values, layout, array_name)
        settle(clips, values, notes)
        super().__init__([clip.part(0, min(frames, clip.length)) for clip in clips], frames, notes=notes)


def _claim(path: Path, protocol: Mapping[str, object]) -> None:
    if path.exists():
        if gate.read_json(path) != protocol:
            raise FileExistsError(f"{path} tells of sets made otherwise: choose another folder")
        return
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    partial.write_text(json.dumps(protocol, indent=2) + "\n")
    partial.replace(path)


def _write_sequences(path: Path, sequences: MovingMNIST) -> None:
    shape = (len(sequences), sequences.frames, *sequences.size)
    with replaced_file(path, several_writers=True) as partial:
        stored = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        gate.reserve(partial)
        for first in range(0, len(sequences), _CHUNK):
            for number in range(first, min(first + _CHUNK, len(sequences))):
                stored[number] = sequences[number].mul(255).round().byte().squeeze(1).numpy()
        stored.flush()
        del stored
