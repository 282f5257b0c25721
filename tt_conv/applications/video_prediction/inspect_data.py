"""Look at a data set before a training: ``tt-conv data inspect``."""

import math
from pathlib import Path

import torch

from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.data.splits import SPLITS
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.pictures import draw_strips
from tt_conv.applications.video_prediction.open_data import open_data
from tt_conv.applications.video_prediction.settings import DataSettings

_LOOKED_AT = 64
_FRAMES_SHOWN = 6


def inspect_data(settings: DataSettings, out: Path | str | None = None) -> str:
    """Say what a data set holds, and draw a contact sheet of its sequences.

    Parameters
    ----------
    settings : DataSettings
        What to open.
    out : path, optional
        Folder for ``train.png``, ``validation.png`` and ``test.png``, new or empty; by default no pictures.

    Returns
    -------
    str
        For each part: how many sequences, their shape, range, mean and spread, and what was found on opening.

    Raises
    ------
    ValueError, OSError
        If not one part can be opened.
    """
    parts: dict[str, SequenceDataset] = {}
    lines, errors = [], []
    for split in SPLITS:
        try:
            parts[split] = open_data(settings, split)
        except (ValueError, OSError) as error:
            errors.append(error)
            lines.append(f"{split}: {error}")
        else:
            lines += _facts_of_split(split, parts[split])
    if not parts:
        raise errors[0]
    if out is not None:
        with OutputFolder(out, all_or_nothing=True) as folder:
            for part, sequences in parts.items():
                shown = _spread(len(sequences), _FRAMES_SHOWN)
                title = f"{part}: sequences {', '.join(str(number + 1) for number in shown)} of {len(sequences):,}"
                with folder.new_file(f"{part}.png") as file:
                    draw_strips(file, [{"": sequences[number]} for number in shown], settings.given, title)
        lines.append(f"Contact sheets are in {folder.path}")
    return "\n".join(lines)


def _facts_of_split(split: str, sequences: SequenceDataset) -> list[str]:
    numbers = _spread(len(sequences), _LOOKED_AT)
    some = torch.stack([sequences[number] for number in numbers])
    shape = " x ".join(map(str, some.shape[1:]))
    values = math.prod(some.shape[1:]) * len(sequences)
    return [
        f"{split}: {len(sequences):,} sequences [T, C, H, W] = {shape}, {values:,} values",
        f"  of {len(numbers)} of them: {some.min():.3f} to {some.max():.3f}, mean {some.mean():.3f}, "
        f"standard deviation {some.std():.3f}",
        *(f"  {note}" for note in sequences.notes),
    ]


def _spread(length: int, count: int) -> list[int]:
    """Numbers from 0 to ``length - 1``, ``count`` of them if there are as many, evenly spread."""
    count = min(count, length)
    return [number * length // count for number in range(count)]
