"""Evaluate a trained recognizer on held-out clips: ``tt-conv evaluate``."""

import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tt_conv.applications.output import OutputFolder
from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.data import LabelledClips
from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.open_data import open_data
from tt_conv.applications.recognition.pictures import draw_accuracy, draw_confusion
from tt_conv.applications.recognition.scores import Accuracy
from tt_conv.applications.recognition.settings import EvaluationSettings
from tt_conv.applications.training.checkpoint import Trained
from tt_conv.applications.training.devices import checked_device
from tt_conv.applications.training.evaluation import facts_of, write_evaluation
from tt_conv.applications.training.settings import with_changes
from tt_conv.tables import markdown_table, text_table


def run_evaluation(
    checkpoint: Path | str,
    out: Path | str | None = None,
    settings: EvaluationSettings | None = None,
    *,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a recognizer, print the table, and write a folder of results.

    Parameters
    ----------
    checkpoint : path
        Of ``tt-conv train``.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-evaluation``, or the first free name after it.
    settings : EvaluationSettings, optional
    data : mapping, optional
        Data settings that differ from those of the training.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    ValueError, OSError
        If the checkpoint or the data cannot be used.

    Examples
    --------
    >>> import contextlib, io, tempfile
    >>> from tt_conv.applications.recognition.settings import DataSettings, ModelSettings, Settings, TrainingSettings
    >>> from tt_conv.applications.training import run_training
    >>> folder = tempfile.TemporaryDirectory()
    >>> settings = Settings(
    ...     DataSettings(frames=4, size=16, clips=14, validation_clips=14, test_clips=14, cache=folder.name),
    ...     ModelSettings("conv_lstm", encoder_channels=[4], hidden_channels=[4]),
    ...     TrainingSettings(epochs=1, batch_size=14),
    ... )
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     complete = run_training(settings, folder.name + "/run")
    ...     results = run_evaluation(folder.name + "/run/best.ckpt", folder.name + "/results")
    >>> results["clips"]
    14
    >>> folder.cleanup()
    """
    settings = settings or EvaluationSettings()
    settings = replace(settings, device=str(checked_device(settings.device)))
    trained = load_recognizer(checkpoint)
    chosen = with_changes(trained.settings.data, dict(data or {}))
    clips = open_data(chosen, settings.split)
    check_classes(trained, clips, checkpoint)
    trained.model.check_size(clips[0][0].shape[2:])
    fractions = settings.fractions

    def measure(folder: OutputFolder) -> tuple[dict[str, Any], str]:
        for note in clips.notes:
            print(f"  {note}")
        model = trained.model.to(settings.device)
        options: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "device": settings.device,
            "workers": chosen.workers,
        }
        accuracy = accuracy_of(model, clips, fractions, **options)
        results = _results(trained, checkpoint, settings, chosen, clips, accuracy, fractions)
        print(f"\n{text_table(*_accuracy_cells(results))}\n{_cost_in_words(results)}\n", flush=True)
        for fraction, counts in accuracy.confusion.items():
            with folder.new_file(f"confusion_{100 * fraction:g}.csv") as file, file.open("w", newline="") as lines:
                writer = csv.writer(lines, lineterminator="\n")
                writer.writerow(["true class", *trained.classes])
                writer.writerows([name, *row] for name, row in zip(trained.classes, counts, strict=True))
        with folder.new_file("confusion.png") as file:
            titles = {_seen(fraction): counts for fraction, counts in accuracy.confusion.items()}
            draw_confusion(file, titles, trained.classes)
        with folder.new_file("accuracy.png") as file:
            draw_accuracy(file, {"top 1": accuracy.top1, "top 5": accuracy.top5}, _references(results))
        return results, _table_page(results)

    return write_evaluation(out, measure, "accuracy.png and the confusion matrices")


def check_classes(trained: Trained, clips: LabelledClips, checkpoint: Path | str) -> None:
    """Refuse data whose classes, or channels, are others than those of the training."""
    if list(clips.classes) != list(trained.classes):
        raise ValueError(
            f"{checkpoint} tells {len(trained.classes)} classes apart, {trained.classes[0]!r} the first of them; the "
            f"data have {len(clips.classes)}, {clips.classes[0]!r} the first: name the same ones in the same order "
            "in a file for --data.classes"
        )
    if (channels := clips[0][0].shape[1]) != trained.model.in_channels:
        raise ValueError(
            f"{checkpoint} was trained on frames of {trained.model.in_channels} channels, the data have {channels}: "
            f"bring them to as many with --data.channels {trained.model.in_channels}"
        )


def _results(
    trained: Trained,
    checkpoint: Path | str,
    settings: EvaluationSettings,
    data: Any,
    clips: LabelledClips,
    accuracy: Accuracy,
    fractions: Sequence[float],
) -> dict[str, Any]:
    clip = clips[0][0]
    size = tuple(clip.shape[2:])
    best = {name: ceiling(data, len(clip), top) for name, top in (("top1", 1), ("top5", 5))}
    return {
        **facts_of(trained, checkpoint, settings.device),
        "split": settings.split,
        "clips": len(clips),
        "classes": list(trained.classes),
        "frames": len(clip),
        "size": list(size),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "macs_per_frame": trained.model.macs(size),
        "milliseconds_per_frame": milliseconds_per_step(trained.model, clip.to(settings.device)),
        "chance": chance(clips),
        "observed": [
            {"fraction": fraction, "top1": accuracy.at(fraction)[0], "top5": accuracy.at(fraction)[1]}
            for fraction in fractions
        ],
        "after_frame": {"top1": accuracy.top1, "top5": accuracy.top5},
        "ceiling_after_frame": best,
        "confusion": {str(fraction): counts for fraction, counts in accuracy.confusion.items()},
    }


@torch.inference_mode()
def milliseconds_per_step(model: Any, clip: torch.Tensor, repeats: int = 3) -> float:
    """Median time of a step with one frame of one clip [T, C, H, W]; a first round is not counted."""
    taken = []
    for _ in range(1 + repeats):
        state = None
        for frame in clip.unsqueeze(1):
            start = time.perf_counter()
            scores, state = model.step(frame, state)
            scores.cpu()  # waits for the device
            taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[len(clip) :])


def _seen(fraction: float) -> str:
    return f"{100 * fraction:g} % seen"


def _references(results: Mapping[str, Any]) -> dict[str, list[float]]:
    best = results["ceiling_after_frame"]["top1"]
    lines = {"most frequent class": [results["chance"]] * results["frames"]}
    return lines if best is None else {"best possible (top 1)": best, **lines}


def _accuracy_cells(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    best = results["ceiling_after_frame"]["top1"]
    header = ["observed", "top 1", "top 5", "most frequent class", *(["best possible"] if best else [])]
    lines = []
    for row in results["observed"]:
        cells = [_seen(row["fraction"]), _share(row["top1"]), _share(row["top5"]), _share(results["chance"])]
        if best:
            cells.append(_share(best[max(1, int(row["fraction"] * results["frames"] + 1e-6)) - 1]))
        lines.append(cells)
    return header, lines


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _cost_in_words(results: Mapping[str, Any]) -> str:
    return (
        f"{results['clips']:,} clips ({results['split']}); {results['parameters']:,} parameters, "
        f"{results['macs_per_frame'] / 1e6:,.1f} M MACs and {results['milliseconds_per_frame']:.2f} ms per frame"
    )


def _table_page(results: Mapping[str, Any]) -> str:
    rows = markdown_table(*_accuracy_cells(results))
    where = f"on {results['device']}, {results['threads']} threads, one clip at a time"
    return f"# Evaluation of {results['checkpoint']}\n\n{rows}\n\n{_cost_in_words(results)}, {where}.\n"
