"""Compress a trained network and write a folder of it: ``tt-conv compress``."""

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tt_conv._version import __version__
from tt_conv.applications.compression.compress import Survey, check_budget
from tt_conv.applications.compression.files import WEIGHTS, save_compressed, weights_on_disk
from tt_conv.applications.compression.pictures import draw_layers, draw_sweep
from tt_conv.applications.compression.pretrained import TRAINING
from tt_conv.applications.compression.report import CompressionReport
from tt_conv.applications.compression.step_export import STEP, export_step
from tt_conv.applications.output import OutputFolder, whole_folder
from tt_conv.applications.training.settings import settings_to_dict
from tt_conv.applications.video_prediction.compression_source import Source, open_source
from tt_conv.applications.video_prediction.evaluation import milliseconds_per_frame
from tt_conv.applications.video_prediction.fine_tuning import Tuned, batches, fine_tune
from tt_conv.applications.video_prediction.open_data import FirstSequences
from tt_conv.applications.video_prediction.report import finite
from tt_conv.applications.video_prediction.settings import CompressionSettings
from tt_conv.kernels.table import FORMATS
from tt_conv.tables import text_table

QUALITY = "MSE x 1e-3"


@dataclass(frozen=True)
class Compressed:
    """One budget's network.

    Parameters
    ----------
    model : nn.Module
        Fine-tuned, if that was asked for.
    report : CompressionReport
    milliseconds : tuple of float, optional
        Per frame of one sequence: of the original and of this one.
    tuned : Tuned, optional
    """

    model: nn.Module
    report: CompressionReport
    milliseconds: tuple[float, float] | None = None
    tuned: Tuned | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the weights."""
        contents = {"report": self.report.to_json()}
        if self.milliseconds is not None:
            before, after = self.milliseconds
            contents["milliseconds_per_frame"] = {"before": before, "after": after, "batch": 1}
        if self.tuned is not None:
            contents["tuning"] = {"validation": self.tuned.validation, "best_after_steps": self.tuned.steps}
        return contents

    def text(self) -> str:
        """The table of the layers, and the totals."""
        lines = [str(self.report)]
        if self.milliseconds is not None:
            before, after = self.milliseconds
            lines.append(f"time of a step, one frame of one sequence: {before:.2f} -> {after:.2f} ms")
        if self.tuned is not None:
            done, of = self.tuned.steps, self.tuned.validation[-1][0]
            lines.append(f"fine-tuned for {of} steps; the weights after {done} are kept, the best of the validation")
        return "\n".join(lines)


def run_compression(
    checkpoint: Path | str, out: Path | str | None, settings: CompressionSettings, **source: Any
) -> list[Compressed]:
    """Compress a network, print what it cost, and write a folder.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.video_prediction.compression_source.open_source`.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-compressed``, or the first free name after it. It
        appears when everything is written, or not at all.
    settings : CompressionSettings
    **source
        Further arguments of :func:`~tt_conv.applications.video_prediction.compression_source.open_source`.

    Returns
    -------
    list of Compressed
        One per budget.

    Raises
    ------
    ValueError, OSError, ImportError
        If the checkpoint, the data or a setting cannot be used, or a budget cannot be met.
    """
    _check(settings)
    opened = open_source(checkpoint, **source)
    _check_data(opened, settings)
    path = OutputFolder.with_free_name("tt-conv-compressed").path if out is None else Path(out)
    with whole_folder(path) as folder:
        made = compress_source(opened, settings, say=lambda text: print(text, flush=True))
        if len(made) == 1:
            _write(folder, made[0], opened, checkpoint, settings)
        else:
            folder.mkdir()
            for one in made:
                _write(folder / budget_name(one), one, opened, checkpoint, settings)
            _write_sweep(folder, made, checkpoint, settings)
    what = "model.safetensors, config.json, report.json, table.md and layers.png"
    if len(made) > 1:
        what = f"sweep.json, table.md, curve.png and a folder for each budget, with {what},"
    print(f"\n{what} are in {path}")
    return made


def budget_name(one: Compressed) -> str:
    """Return the name of the folder of one of several budgets."""
    return f"{one.report.budget_of}_{one.report.budget:g}"


def compress_source(
    source: Source, settings: CompressionSettings, say: Callable[[str], object] = lambda _: None
) -> list[Compressed]:
    """Compress a network for each budget, and tune each if that was asked for.

    Parameters
    ----------
    source : Source
    settings : CompressionSettings
    say : callable
        Takes the text of each result as it is there.

    Returns
    -------
    list of Compressed
    """
    quality = None if source.data is None else _quality(source, settings)
    survey = Survey(
        source.model,
        data=_calibration(source, settings),
        formats=settings.formats or tuple(FORMATS),
        keep=settings.keep,
        force=settings.force,
        quality=quality,
    )
    disk = len(weights_on_disk(source.model))
    made = []
    for budget in settings.budgets:
        smaller, report = survey.compress(budget, settings.budget_of)
        report = replace(report, disk_before=disk, disk_after=len(weights_on_disk(smaller)))
        tuned = None
        if settings.finetune:
            tuned = _tuned(smaller, source, settings)
            smaller = tuned.model
            assert quality is not None
            report = replace(report, quality_tuned=quality(smaller))
        made.append(Compressed(smaller, report, _milliseconds(smaller, source), tuned))
        say(f"\n{made[-1].text()}")
        if tuned is not None and tuned.interrupted:
            raise KeyboardInterrupt
    return made


def _check(settings: CompressionSettings) -> None:
    """Refuse values that are out of their range."""
    if not settings.budgets:
        raise ValueError("a budget is needed, such as --budget 0.25, or several: --sweep 0.5,0.25,0.125")
    for budget in settings.budgets:
        check_budget(budget, settings.budget_of, settings.calibration > 0)
    for name in ("calibration", "finetune"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(settings, name)}")
    for name, value in (("batch_size", settings.batch_size), ("quality_sequences", _quality_sequences(settings))):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= settings.distill <= 1:
        raise ValueError(f"distill is a share of the loss, from 0 to 1, got {settings.distill}")
    if settings.distill and not settings.finetune:
        raise ValueError("distill belongs to fine-tuning: say for how many steps with --finetune")


def _quality_sequences(settings: CompressionSettings) -> int:
    return 64 if settings.quality_sequences is None else settings.quality_sequences


def _check_data(source: Source, settings: CompressionSettings) -> None:
    if settings.finetune and source.data is None:
        raise ValueError("--finetune trains on sequences: say which with --data, such as --data.kind moving_mnist")
    if settings.budget_of == "macs" and source.data is None and source.inputs is None:
        raise ValueError("--budget_of macs needs data: --data settings for frame predictors, --inputs for others")
    if settings.onnx and source.data is None:
        raise ValueError("--onnx is for frame predictors, whose frames the data tell: export others with torch.onnx")


def _calibration(source: Source, settings: CompressionSettings) -> list[Any] | None:
    size = settings.batch_size
    if not settings.calibration:
        return None
    if source.inputs is not None:
        return list(source.inputs[: settings.calibration].split(size))
    if source.data is None:
        return None
    sequences = FirstSequences(source.sequences("train"), settings.calibration)
    return [(batch[:, : source.data.given], source.data.future) for batch in DataLoader(sequences, size)]


def _quality(source: Source, settings: CompressionSettings) -> Callable[[nn.Module], float]:
    """Return what measures the mean squared error of the predicted frames, x 1e-3."""
    assert source.data is not None
    sequences = FirstSequences(source.sequences("test"), _quality_sequences(settings))
    stored: list[Tensor] = list(DataLoader(sequences, settings.batch_size))
    given, future = source.data.given, source.data.future

    def mse(model: nn.Module) -> float:
        total = 0.0
        with torch.inference_mode():
            for batch in stored:
                predicted = model(batch[:, :given], future)[:, -future:].clamp(0, 1)
                total += float((predicted - batch[:, given:]).double().square().flatten(1).mean(1).sum())
        return 1e3 * total / len(sequences)

    return mse


def _tuned(smaller: nn.Module, source: Source, settings: CompressionSettings) -> Tuned:
    assert source.data is not None
    recipe = None if source.settings is None else source.settings.training
    validation = FirstSequences(source.sequences("validation"), _quality_sequences(settings))
    return fine_tune(
        smaller,
        batches(source.sequences("train"), settings.batch_size, settings.finetune),
        batches(validation, settings.batch_size),
        given=source.data.given,
        original=source.model,
        distill=settings.distill,
        loss="l1_mse" if recipe is None else recipe.loss,
        learning_rate=settings.learning_rate,
        clip_norm=(recipe.clip_norm if recipe is not None else 1.0) or math.inf,
    )


def _milliseconds(smaller: nn.Module, source: Source) -> tuple[float, float] | None:
    if source.data is None:
        return None
    frames = source.sequences("test")[0].unsqueeze(0)[:, : source.data.given]
    smaller.eval()
    taken = milliseconds_per_frame({"before": source.model, "after": smaller}, frames, source.data.future, repeats=9)
    return taken["before"], taken["after"]


def _write(
    folder: Path, made: Compressed, source: Source, checkpoint: Path | str, settings: CompressionSettings
) -> None:
    save_compressed(made.model, folder)
    assert (folder / WEIGHTS).stat().st_size == made.report.disk_after
    contents = {**_about(checkpoint, settings, source), **made.to_json()}
    (folder / "report.json").write_text(_json(contents))
    (folder / "table.md").write_text(_markdown(made, checkpoint))
    if source.settings is not None and source.data is not None:
        training: dict[str, Any] = {"settings": settings_to_dict(replace(source.settings, data=source.data))}
        training |= {"sequences_seen": source.sequences_seen, "epochs_done": source.epochs_done}
        (folder / TRAINING).write_text(_json(training))
    draw_layers(folder / "layers.png", made.report)
    if settings.onnx:
        export_step(made.model, source.sequences("test")[0].shape[1:], folder / STEP)


def _write_sweep(
    folder: Path, made: Sequence[Compressed], checkpoint: Path | str, settings: CompressionSettings
) -> None:
    header, rows = sweep_cells(made)
    print(f"\n{text_table(header, rows)}", flush=True)
    contents = {"checkpoint": str(checkpoint), "budgets": {budget_name(one): one.to_json() for one in made}}
    (folder / "sweep.json").write_text(_json(contents))
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |" for line in lines)
    (folder / "table.md").write_text(f"# Compression of {checkpoint}\n\n{table}\n")
    draw_curve(folder / "curve.png", made, f"Compression of {Path(checkpoint).name}")


def sweep_cells(made: Sequence[Compressed]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of a sweep; the first row is the original."""
    first = made[0].report
    header = ["", "parameters", "of the\noriginal", "bytes\non disk"]
    original = ["original", f"{first.parameters_before:,}", "1.000", f"{first.disk_before:,}"]
    rows = [original]
    for one in made:
        report = one.report
        share = report.parameters_after / report.parameters_before
        row = [f"{report.budget_of} {report.budget:g}", f"{report.parameters_after:,}", f"{share:.3f}"]
        rows.append([*row, f"{report.disk_after:,}"])
    columns: list[tuple[str, Sequence[str]]] = []
    if first.macs_before is not None:
        macs = [first.macs_before, *(one.report.macs_after or 0 for one in made)]
        columns.append(("MACs of\none pass", [f"{value / 1e6:,.1f} M" for value in macs]))
    if made[0].milliseconds is not None:
        times = [made[0].milliseconds[0], *(one.milliseconds[1] for one in made if one.milliseconds)]
        columns.append(("ms of\na step", [f"{value:.2f}" for value in times]))
    if first.output_error is not None:
        columns.append(("relative\nerror", ["", *(f"{one.report.output_error:.4f}" for one in made)]))
    if first.quality_before is not None:
        values = [first.quality_before, *(one.report.quality_after or 0.0 for one in made)]
        columns.append((QUALITY.replace(" x", "\nx"), [f"{value:.3f}" for value in values]))
    if first.quality_tuned is not None:
        columns.append(("tuned", ["", *(f"{one.report.quality_tuned:.3f}" for one in made)]))
    header += [head for head, _ in columns]
    return header, [row + [cells[number] for _, cells in columns] for number, row in enumerate(rows)]


def draw_curve(path: Path, made: Sequence[Compressed], title: str) -> None:
    """Draw quality, or where there is none the error of the output or of the kernels, against size."""
    reports = [one.report for one in made]
    before = reports[0].quality_before
    measures: dict[str, Callable[[CompressionReport], float | None]]
    if before is not None:
        label, measures = QUALITY, {"compressed": lambda r: r.quality_after, "tuned": lambda r: r.quality_tuned}
    elif reports[0].output_error is not None:
        label, measures = "relative error of the output", {"compressed": lambda r: r.output_error}
    else:
        label, measures = "largest relative error of a kernel", {"compressed": _largest_error}
    curves: dict[str, list[tuple[float, float]]] = {}
    times: dict[str, list[tuple[float, float]]] = {}
    for name, measure in measures.items():
        for one in made:
            value = measure(one.report)
            if value is None:
                continue
            share = one.report.parameters_after / one.report.parameters_before
            curves.setdefault(name, []).append((share, value))
            if one.milliseconds is not None:
                times.setdefault(name, []).append((one.milliseconds[1] / one.milliseconds[0], value))
    draw_sweep(path, curves, 0.0 if before is None else before, quality=label, title=title, times=times or None)


def _largest_error(report: CompressionReport) -> float:
    return max(layer.weight_error for layer in report.layers)


def _about(checkpoint: Path | str, settings: CompressionSettings, source: Source) -> dict[str, Any]:
    return {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "device": f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "checkpoint": str(checkpoint),
        "settings": asdict(settings),
        "data": None if source.data is None else asdict(source.data),
        "quality": None if source.data is None else f"{QUALITY}, mean over the predicted frames of test sequences",
    }


def _markdown(made: Compressed, checkpoint: Path | str) -> str:
    return f"# Compression of {checkpoint}\n\n```\n{made.text()}\n```\n"


def _json(contents: Mapping[str, Any]) -> str:
    return json.dumps(finite(contents), indent=2, allow_nan=False) + "\n"
