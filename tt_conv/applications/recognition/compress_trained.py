"""Make a trained recognizer smaller: ``tt-conv compress`` of its checkpoint, with accuracy in the report."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tt_conv._version import __version__
from tt_conv.applications.compression import compress, save_compressed
from tt_conv.applications.compression.pretrained import TRAINING
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.data import LabelledClips
from tt_conv.applications.recognition.evaluate_trained import check_classes
from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.module import FRACTIONS
from tt_conv.applications.recognition.open_data import open_data
from tt_conv.applications.recognition.scores import Accuracy
from tt_conv.applications.recognition.settings import CompressionSettings
from tt_conv.applications.training.settings import settings_to_dict, with_changes
from tt_conv.kernels.table import FORMATS
from tt_conv.tables import text_table


def run_compression(
    checkpoint: Path | str,
    out: Path | str | None,
    settings: CompressionSettings,
    *,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compress a recognizer, compare the accuracy before and after on test clips, and write a folder.

    Parameters
    ----------
    checkpoint : path
        Of ``tt-conv train``.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-compressed``, or the first free name after it.
    settings : CompressionSettings
    data : mapping, optional
        Data settings that differ from those of the training.

    Returns
    -------
    dict
        What ``report.json`` holds.

    Raises
    ------
    ValueError, OSError
        If the checkpoint, the data or a setting cannot be used, or the budget cannot be met.
    """
    calibration, batch_size, quality_clips = settings.calibration, settings.batch_size, settings.quality_sequences
    if len(settings.budgets) != 1:
        raise ValueError("a recognizer is compressed to one budget: give --budget")
    if calibration < 0 or batch_size < 1 or (quality_clips is not None and quality_clips < 1):
        raise ValueError(
            f"calibration must not be negative, batch_size and the number of test clips be at least 1, got "
            f"{calibration}, {batch_size} and {quality_clips}"
        )
    trained = load_recognizer(checkpoint)
    chosen = with_changes(trained.settings.data, dict(data or {}))
    test = open_data(chosen, "test")
    check_classes(trained, test, checkpoint)
    future = trained.model.ahead > 0
    batches = _batches(open_data(chosen, "train"), calibration, batch_size, future) if calibration else None
    folder = OutputFolder.with_free_name("tt-conv-compressed") if out is None else OutputFolder(out)
    part = test if quality_clips is None else FirstClips(test, quality_clips)
    measured: list[Accuracy] = []

    def accuracy(model: Any) -> float:
        measured.append(accuracy_of(model, part, FRACTIONS, batch_size=batch_size))
        return measured[-1].at(1.0)[0]

    with folder:
        smaller, report = compress(
            trained.model,
            budget=settings.budgets[0],
            budget_of=settings.budget_of,
            data=batches,
            formats=settings.formats or tuple(FORMATS),
            keep=settings.keep,
            force=settings.force or None,
            quality=accuracy,
        )
        before, after = measured
        contents = {
            "tt_conv": __version__,
            "torch": torch.__version__,
            "checkpoint": str(checkpoint),
            "clips": len(part),
            "accuracy": {"before": _shares(before), "after": _shares(after)},
            "chance": chance(test),
            "ceiling_after_frame": ceiling(chosen, chosen.frames),
            "report": report.to_json(),
        }
        table = _table(before, after)
        print(f"{report}\n\nAccuracy on {len(part):,} test clips:\n{table}", flush=True)
        _write(folder, smaller)
        training = {
            "settings": settings_to_dict(replace(trained.settings, data=chosen)),
            "classes": list(trained.classes),
            "channels": trained.model.in_channels,
            "sequences_seen": trained.sequences_seen,
            "epochs_done": trained.epochs_done,
        }
        for name, content in ((TRAINING, training), ("report.json", contents)):
            with folder.new_file(name) as file:
                file.write_text(json.dumps(content, indent=2) + "\n")
        with folder.new_file("table.md") as file:
            file.write_text(f"# Compression of {checkpoint}\n\n```\n{report}\n\n{table}\n```\n")
    print(f"\nmodel.safetensors, config.json, report.json and table.md are in {folder.path}")
    return contents


class FirstClips(LabelledClips):
    """The first clips of another data set."""

    def __init__(self, whole: LabelledClips, length: int) -> None:
        self.whole = whole
        self.classes, self.notes, self.labels = whole.classes, whole.notes, list(whole.labels[:length])

    def clip(self, number: int) -> Tensor:
        return self.whole.clip(number)

    def name(self, index: SupportsIndex) -> str:
        return self.whole.name(self.checked_index(index))


def _batches(clips: LabelledClips, length: int, batch_size: int, future: bool) -> list[tuple[Tensor, bool]]:
    return [(frames, future) for frames, _ in DataLoader(FirstClips(clips, length), batch_size)]


def _shares(accuracy: Accuracy) -> dict[str, Any]:
    observed = {str(f): dict(zip(("top1", "top5"), accuracy.at(f), strict=True)) for f in FRACTIONS}
    return {"observed": observed, "after_frame": {"top1": accuracy.top1, "top5": accuracy.top5}}


def _table(before: Accuracy, after: Accuracy) -> str:
    rows = [
        [f"{100 * f:.0f} % seen", *(f"{100 * value:.1f} %" for value in (*before.at(f), *after.at(f)))]
        for f in FRACTIONS
    ]
    return text_table(["", "top 1\nbefore", "top 5\nbefore", "top 1\nafter", "top 5\nafter"], rows)


def _write(folder: OutputFolder, model: nn.Module) -> None:
    with TemporaryDirectory() as place:
        written = save_compressed(model, Path(place, "model"))
        for file in written.iterdir():
            with folder.new_file(file.name) as taken:
                taken.write_bytes(file.read_bytes())
