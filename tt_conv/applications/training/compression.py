"""Compress a trained network of any task and write a folder of it: ``tt-conv compress``."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tt_conv._version import __version__
from tt_conv.applications.compression.compress import Survey, check_budget
from tt_conv.applications.compression.files import WEIGHTS, save_compressed, weights_on_disk
from tt_conv.applications.compression.pictures import draw_layers, draw_sweep
from tt_conv.applications.compression.pretrained import TRAINING
from tt_conv.applications.compression.report import CompressionReport
from tt_conv.applications.output import OutputFolder, json_text, whole_folder
from tt_conv.applications.training.settings import CompressionSettings
from tt_conv.kernels.table import FORMATS
from tt_conv.tables import markdown_table, text_table


@dataclass(frozen=True)
class Tuned:
    """A network after fine-tuning.

    Parameters
    ----------
    model : nn.Module
        With the weights of the smallest validation loss, those before the tuning included.
    validation : sequence of (int, float)
        Steps done, and the validation loss.
    steps : int
        Steps after which ``model`` was taken; 0 if the tuning did no good.
    interrupted : bool
        Whether Ctrl-C ended it early.

    Examples
    --------
    >>> Tuned(nn.Identity(), [(0, 0.5), (10, 0.25)], steps=10).interrupted
    False
    """

    model: nn.Module
    validation: list[tuple[int, float]]
    steps: int
    interrupted: bool = False


@dataclass(frozen=True)
class Measured:
    """What else a task measures of a compressed network.

    Parameters
    ----------
    contents : mapping
        For ``report.json``.
    text : str
        For people.
    """

    contents: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


class CompressionSource:
    """A trained network, and what its task knows of it; whatever a task does not define is left out.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, on the CPU.
    quality_name : str
        What :meth:`quality` measures, for tables and pictures.
    """

    model: nn.Module
    quality_name: str = "quality"

    def check(self, settings: Any) -> None:
        """Refuse settings that the network, or its data, do not allow."""

    def calibration(self, settings: Any) -> Sequence[Any] | None:
        """Batches of what the network is called with; ``None`` if there are none."""
        return None

    def quality(self, settings: Any) -> Callable[[nn.Module], float] | None:
        """What measures a network on test data; ``None`` if there are none."""
        return None

    def milliseconds(self, smaller: nn.Module) -> tuple[float, float] | None:
        """Times of a step, of one frame of one sample: of the original and of a smaller network."""
        return None

    def tuned(self, smaller: nn.Module, settings: Any) -> Tuned | None:
        """The smaller network after fine-tuning, if that was asked for."""
        return None

    def measured(self) -> Measured:
        """What else was measured when the quality of the latest network was."""
        return Measured()

    def facts(self) -> Mapping[str, Any]:
        """What ``report.json`` tells of the data."""
        return {}

    def training(self) -> Mapping[str, Any] | None:
        """What a checkpoint would tell of the training; ``None`` for a network that was not trained here."""
        return None

    def write_more(self, folder: Path, model: nn.Module, settings: Any) -> None:
        """Write further files of a compressed network."""


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
    measured : Measured
        What else its task measured.
    """

    model: nn.Module
    report: CompressionReport
    milliseconds: tuple[float, float] | None = None
    tuned: Tuned | None = None
    measured: Measured = field(default_factory=Measured)

    def to_json(self) -> dict[str, Any]:
        """Everything but the weights."""
        contents = {"report": self.report.to_json(), **self.measured.contents}
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
        if self.measured.text:
            lines.append(f"\n{self.measured.text}")
        return "\n".join(lines)


def run_compression(
    source: CompressionSource, checkpoint: Path | str, out: Path | str | None, settings: CompressionSettings
) -> list[Compressed]:
    """Compress a network, print what it cost, and write a folder.

    Parameters
    ----------
    source : CompressionSource
        The network.
    checkpoint : path
        The file that it is from.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-compressed``, or the first free name after it. It
        appears when everything is written, or not at all.
    settings : CompressionSettings
        Of the network's task.

    Returns
    -------
    list of Compressed
        One per budget.

    Raises
    ------
    ValueError, OSError, ImportError
        If the checkpoint, the data or a setting cannot be used, or a budget cannot be met.
    """
    source.check(settings)
    path = OutputFolder.with_free_name("tt-conv-compressed").path if out is None else Path(out)
    with whole_folder(path) as folder:
        made = compress_source(source, settings, say=lambda text: print(text, flush=True))
        if len(made) == 1:
            _write_network(folder, made[0], source, checkpoint, settings)
        else:
            folder.mkdir()
            for one in made:
                _write_network(folder / budget_name(one), one, source, checkpoint, settings)
            _write_sweep(folder, made, source, checkpoint)
    what = "model.safetensors, config.json, report.json, table.md and layers.png"
    if len(made) > 1:
        what = f"sweep.json, table.md, curve.png and a folder for each budget, with {what},"
    print(f"\n{what} are in {path}")
    return made


def budget_name(one: Compressed) -> str:
    """Return the name of the folder of one of several budgets."""
    return f"{one.report.budget_of}_{one.report.budget:g}"


def compress_source(
    source: CompressionSource, settings: CompressionSettings, say: Callable[[str], object] = lambda _: None
) -> list[Compressed]:
    """Compress a network for each budget, and tune each if that was asked for.

    Parameters
    ----------
    source : CompressionSource
    settings : CompressionSettings
    say : callable
        Takes the text of each result as it is there.

    Returns
    -------
    list of Compressed
    """
    quality = source.quality(settings)
    survey = Survey(
        source.model,
        data=source.calibration(settings) if settings.calibration else None,
        formats=settings.formats or tuple(FORMATS),
        keep=settings.keep,
        force=settings.force or None,
        quality=quality,
    )
    disk = len(weights_on_disk(source.model))
    made = []
    for budget in settings.budgets:
        smaller, report = survey.compress(budget, settings.budget_of)
        report = replace(report, disk_before=disk, disk_after=len(weights_on_disk(smaller)))
        tuned = source.tuned(smaller, settings)
        if tuned is not None:
            smaller = tuned.model
            report = replace(report, quality_tuned=None if quality is None else quality(smaller))
        made.append(Compressed(smaller, report, source.milliseconds(smaller), tuned, source.measured()))
        say(f"\n{made[-1].text()}")
        if tuned is not None and tuned.interrupted:
            raise KeyboardInterrupt
    return made


def check_compression(settings: CompressionSettings) -> None:
    """Refuse values that are out of their range."""
    if not settings.budgets:
        raise ValueError("a budget is needed, such as --budget 0.25, or several: --sweep 0.5,0.25,0.125")
    for budget in settings.budgets:
        check_budget(budget, settings.budget_of, settings.calibration > 0)
    if settings.calibration < 0:
        raise ValueError(f"calibration must not be negative, got {settings.calibration}")
    if settings.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {settings.batch_size}")


def _write_network(
    folder: Path,
    made: Compressed,
    source: CompressionSource,
    checkpoint: Path | str,
    settings: CompressionSettings,
) -> None:
    save_compressed(made.model, folder)
    assert (folder / WEIGHTS).stat().st_size == made.report.disk_after
    contents = {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "device": f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "checkpoint": str(checkpoint),
        "settings": asdict(settings),
        **source.facts(),
        **made.to_json(),
    }
    (folder / "report.json").write_text(json_text(contents))
    (folder / "table.md").write_text(f"# Compression of {checkpoint}\n\n```\n{made.text()}\n```\n")
    training = source.training()
    if training is not None:
        (folder / TRAINING).write_text(json_text(training))
    draw_layers(folder / "layers.png", made.report)
    source.write_more(folder, made.model, settings)


def _write_sweep(folder: Path, made: Sequence[Compressed], source: CompressionSource, checkpoint: Path | str) -> None:
    header, rows = sweep_cells(made, source.quality_name)
    print(f"\n{text_table(header, rows)}", flush=True)
    contents = {"checkpoint": str(checkpoint), "budgets": {budget_name(one): one.to_json() for one in made}}
    (folder / "sweep.json").write_text(json_text(contents))
    table = markdown_table([head.replace("\n", " ") for head in header], rows)
    (folder / "table.md").write_text(f"# Compression of {checkpoint}\n\n{table}\n")
    draw_curve(folder / "curve.png", made, source.quality_name, f"Compression of {Path(checkpoint).name}")


def sweep_cells(made: Sequence[Compressed], quality: str) -> tuple[list[str], list[list[str]]]:
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
        columns.append((quality.replace(" x", "\nx"), [f"{value:.3f}" for value in values]))
    if first.quality_tuned is not None:
        columns.append(("tuned", ["", *(f"{one.report.quality_tuned:.3f}" for one in made)]))
    header += [head for head, _ in columns]
    return header, [row + [cells[number] for _, cells in columns] for number, row in enumerate(rows)]


def draw_curve(path: Path, made: Sequence[Compressed], quality: str, title: str) -> None:
    """Draw quality, or where there is none the error of the output or of the kernels, against size."""
    reports = [one.report for one in made]
    before = reports[0].quality_before
    measures: dict[str, Callable[[CompressionReport], float | None]]
    if before is not None:
        label, measures = quality, {"compressed": lambda r: r.quality_after, "tuned": lambda r: r.quality_tuned}
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
