"""Evaluate a trained network on held-out sequences: ``tt-conv evaluate``."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.pictures import draw_animation, draw_curves, draw_strips
from tt_conv.applications.training.checkpoint import Trained
from tt_conv.applications.training.devices import checked_device
from tt_conv.applications.training.evaluation import facts_of, write_evaluation
from tt_conv.applications.training.settings import with_changes
from tt_conv.applications.video_prediction.baselines import BASELINES
from tt_conv.applications.video_prediction.checkpoint import load_predictor
from tt_conv.applications.video_prediction.evaluation import Predictor, milliseconds_per_frame
from tt_conv.applications.video_prediction.metrics import CONVENTIONS, MASS_MEASURES, FrameMetrics, Measure
from tt_conv.applications.video_prediction.open_data import open_data
from tt_conv.applications.video_prediction.perceptual import lpips_distance
from tt_conv.applications.video_prediction.published_figures import differences, tables_for
from tt_conv.applications.video_prediction.settings import EvaluationSettings
from tt_conv.tables import markdown_table, text_table

PANELS = {"mse_sum": "MSE per frame (sum)", "mae_sum": "MAE per frame (sum)", "psnr": "PSNR (dB)", "ssim": "SSIM"}
_HEADS = {"mse": "MSE x 1e-3", "mse_sum": "MSE sum", "mae_sum": "MAE sum", "psnr": "PSNR dB", "ssim": "SSIM"}
_PICTURED = 3


def run_evaluation(
    checkpoint: Path | str,
    out: Path | str | None = None,
    settings: EvaluationSettings | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    channels: int | None = None,
) -> dict[str, Any]:
    """Evaluate a network beside the baselines, print the table, and write a folder of results.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.training.load_trained`.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-evaluation``, or the first free name after it.
    settings : EvaluationSettings, optional
    data : mapping, optional
        Data settings that differ from those of the training.
    recipe, channels
        See :func:`~tt_conv.applications.training.load_trained`.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    ValueError, OSError, ImportError
        If the checkpoint or the data cannot be used, or LPIPS is asked for and is not there.

    Examples
    --------
    >>> import contextlib, io, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     results = run_evaluation("pretrained", folder + "/results", data={"test_sequences": 2})
    >>> len(results["horizons"])
    1
    """
    settings = _checked_settings(settings or EvaluationSettings())
    trained = load_predictor(checkpoint, recipe, channels)
    chosen = with_changes(trained.settings.data, dict(data or {}))
    lpips = lpips_distance(settings.device) if settings.lpips else None
    futures = settings.futures or [chosen.future]
    sets = {future: open_data(chosen, settings.split, future=future) for future in futures}
    _check_frames(trained, sets[futures[0]][0], str(checkpoint))

    def measure(folder: OutputFolder) -> tuple[dict[str, Any], str]:
        model = trained.model.to(settings.device)
        conventions = {name: text for name, text in CONVENTIONS.items() if name not in MASS_MEASURES}
        results = {
            **facts_of(trained, checkpoint, settings.device),
            "conventions": conventions,
            "horizons": [],
        }
        for future, sequences in sets.items():
            for note in sequences.notes:
                print(f"  {note}")
            scored = _score(model, sequences, chosen.given, future, settings, lpips)
            results["horizons"].append(_horizon(scored, trained, replace(chosen, future=future), sequences, settings))
            print(f"\n{_horizon_in_words(results['horizons'][-1])}\n", flush=True)
            _draw_scored(folder, trained, sequences, chosen.given, future, scored, settings)
        return results, _page(results, [replace(chosen, future=future) for future in futures])

    return write_evaluation(out, measure, "curves, strips and animations")


def _checked_settings(settings: EvaluationSettings) -> EvaluationSettings:
    futures = settings.futures
    if futures is not None and (not futures or min(futures) < 1):
        raise ValueError(f"future must be numbers of frames, each at least 1, such as [10,30]; got {[*futures]}")
    if settings.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {settings.batch_size}")
    return replace(settings, device=str(checked_device(settings.device)))


def _check_frames(trained: Trained, sequence: Tensor, checkpoint: str) -> None:
    channels, *sides = sequence.shape[1:]
    if channels != trained.channels:
        raise ValueError(
            f"{checkpoint} was trained on frames of {trained.channels} channels, the data have {channels}: "
            f"bring them to as many with --data.channels {trained.channels}"
        )
    patch = trained.model.patch_size
    if any(side % patch for side in sides):
        raise ValueError(
            f"{checkpoint} needs frames whose sides {patch} divides, got {sides}: choose them with --data.size"
        )


@torch.inference_mode()
def _score(
    model: Predictor,
    sequences: SequenceDataset,
    given: int,
    future: int,
    settings: EvaluationSettings,
    lpips: Measure | None,
) -> dict[str, FrameMetrics]:
    predictors: dict[str, Predictor] = {**BASELINES, "model": model}
    scored = {name: FrameMetrics({} if lpips is None else {"lpips": lpips}) for name in predictors}
    loader = DataLoader(sequences, batch_size=settings.batch_size)
    for batch in tqdm(loader, desc=f"{given} -> {future}", file=sys.stdout, mininterval=1, leave=False):
        frames = batch.to(settings.device)
        for name, predictor in predictors.items():
            scored[name].update(predictor(frames[:, :given], future)[:, -future:], frames[:, given:])
    return scored


def _horizon(
    scored: Mapping[str, FrameMetrics],
    trained: Trained,
    data: Any,
    sequences: SequenceDataset,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    size = tuple(sequences[0].shape[2:])
    frames = torch.stack([sequences[number] for number in range(min(settings.batch_size, len(sequences)))])
    given = frames[:, : data.given].to(settings.device)
    # Fetching the result waits for the device.
    model: Predictor = lambda shown, future: trained.model(shown, future).cpu()  # noqa: E731
    milliseconds = milliseconds_per_frame({"model": model}, given, data.future, repeats=3)["model"]
    rows = {}
    for name, metrics in scored.items():
        values = metrics.compute()
        means = {metric: math.fsum(per) / len(per) for metric, per in values.items()}
        rows[name] = {"mean": means, "per_frame": values}
    return {
        "given": data.given,
        "future": data.future,
        "sequences": len(sequences),
        "size": list(size),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "macs_per_frame": trained.model.macs(size),
        "frames_per_second": 1e3 / milliseconds,
        "frames_per_second_batch": len(frames),
        "rows": rows,
        "differences": differences(data, len(sequences), size, trained.sequences_seen),
    }


def _score_cells(rows: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    heads = dict(_HEADS) | ({"lpips": "LPIPS"} if "lpips" in rows["model"]["mean"] else {})
    shapes = {"mse": ("{:.2f}", 1e3), "ssim": ("{:.4f}", 1), "lpips": ("{:.4f}", 1)}
    lines = []
    for name, row in rows.items():
        cells = [shapes.get(m, ("{:.2f}", 1))[0].format(shapes.get(m, ("", 1))[1] * row["mean"][m]) for m in heads]
        lines.append([name, *cells])
    return ["", *heads.values()], lines


def _horizon_in_words(horizon: Mapping[str, Any]) -> str:
    header, lines = _score_cells(horizon["rows"])
    return "\n".join(
        [
            f"{horizon['given']} frames given, {horizon['future']} predicted, {horizon['sequences']:,} sequences:",
            text_table(header, lines),
            _speed_in_words(horizon),
        ]
    )


def _speed_in_words(horizon: Mapping[str, Any]) -> str:
    return (
        f"{horizon['parameters']:,} parameters, {horizon['macs_per_frame'] / 1e6:,.1f} M MACs per frame, "
        f"{horizon['frames_per_second']:.1f} frames per second in batches of {horizon['frames_per_second_batch']}"
    )


def _page(results: Mapping[str, Any], data: Sequence[Any]) -> str:
    parts = [f"# Evaluation of {results['checkpoint']}"]
    for horizon, settings in zip(results["horizons"], data, strict=True):
        parts.append(f"## {horizon['given']} -> {horizon['future']}")
        parts.append(markdown_table(*_score_cells(horizon["rows"])))
        parts.append(
            f"Means over the predicted frames of {horizon['sequences']:,} sequences. {_speed_in_words(horizon)}, "
            f"on {results['device']}, {results['threads']} threads."
        )
        tables = tables_for(settings, horizon["future"])
        if tables:
            said = "\n".join(f"- {difference}" for difference in horizon["differences"])
            parts.append(f"How this differs from what was published:\n\n{said}")
            parts += [table.markdown() for table in tables]
    said = "\n".join(f"- {name}: {text}" for name, text in results["conventions"].items())
    parts.append(f"## Conventions\n\n{said}")
    return "\n\n".join(parts) + "\n"


@torch.inference_mode()
def _draw_scored(
    folder: OutputFolder,
    trained: Trained,
    sequences: SequenceDataset,
    given: int,
    future: int,
    scored: Mapping[str, FrameMetrics],
    settings: EvaluationSettings,
) -> None:
    title = f"{given} frames given, {future} predicted, {len(sequences):,} sequences"
    values = {name: metrics.compute() for name, metrics in scored.items()}
    with folder.new_file(f"curves_{future}.png") as file:
        panels = {label: {name: per[metric] for name, per in values.items()} for metric, label in PANELS.items()}
        draw_curves(file, panels, list(BASELINES), x_label="predicted frame", title=title)
    shown = [sequences[number] for number in range(min(_PICTURED, len(sequences)))]
    predicted = trained.model(torch.stack(shown)[:, :given].to(settings.device), future)[:, -future:].cpu()
    examples = [{"truth": a, "predicted": b} for a, b in zip(shown, predicted, strict=True)]
    with folder.new_file(f"strips_{future}.png") as file:
        draw_strips(file, examples, given, title)
    with folder.new_file(f"animation_{future}.gif") as file:
        draw_animation(file, examples, given)
