"""Pictures of a compression: layer by layer, and quality against size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tt_conv.applications.compression.report import CompressionReport
from tt_conv.applications.pictures import COLOURS, NEUTRAL


def draw_layers(path: Path | str, report: CompressionReport, title: str = "") -> None:
    """Draw what became of each layer: parameters before and after, format and rank, and the errors.

    Parameters
    ----------
    path : path
        PNG file.
    report : CompressionReport
    title : str
        Above the picture.
    """
    rows = list(report.layers)
    figure = Figure(figsize=(10, 1.6 + 0.5 * len(rows)), dpi=130, layout="constrained")
    figure.suptitle(title or _parameters_in_words(report), fontsize=12)
    sizes, errors = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(rows))
    before = [row.parameters_before for row in rows]
    after = [row.parameters_after for row in rows]
    sizes.barh([y - 0.2 for y in places], before, 0.38, color=NEUTRAL[0], label="before")
    sizes.barh([y + 0.2 for y in places], after, 0.38, color=COLOURS[0], label="after")
    for y, row in enumerate(rows):
        rank = ", ".join(map(str, row.rank))
        text = row.format if row.format == "dense" else f"{row.format}, rank {rank}"
        sizes.text(row.parameters_after, y + 0.2, f" {text}", va="center", fontsize=8)
    sizes.set_yticks(list(places), [row.name or "(model)" for row in rows], fontsize=8)
    sizes.set_ylim(len(rows) - 0.5, -0.5)
    sizes.set_xscale("log")
    sizes.set_xlim(0.5 * min(after), 8 * max(before))
    sizes.set_xlabel("parameters of the kernel")
    errors.barh([y - 0.2 for y in places], [row.weight_error for row in rows], 0.38, color=COLOURS[1], label="kernel")
    if any(row.output_error is not None for row in rows):
        outputs = [row.output_error or 0.0 for row in rows]
        errors.barh([y + 0.2 for y in places], outputs, 0.38, color=COLOURS[2], label="output")
    errors.set_xlabel("relative error")
    for axes in (sizes, errors):
        _without_frame(axes)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path)


def draw_sweep(
    path: Path | str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    original: float,
    *,
    quality: str,
    title: str,
    times: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> None:
    """Draw quality against size.

    Parameters
    ----------
    path : path
        PNG file.
    curves : mapping
        By name: (share of the original's parameters that are left, quality).
    original : float
        Quality of the original.
    quality : str
        What the quality is, for the axis.
    title : str
        Above the picture.
    times : mapping, optional
        By name: (time over the original's, quality), for a second panel.
    """
    panels = [("parameters left", curves, True)] + ([("time of a step / original's", times, False)] if times else [])
    figure = Figure(figsize=(5.2 * len(panels), 3.9), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, drawn, is_share) in zip(grid, panels, strict=True):
        _sweep_panel(axes, drawn or {}, original, is_share)
        axes.set_xlabel(label)
    grid[0].set_ylabel(quality)
    grid[0].legend(frameon=False, fontsize=9)
    figure.savefig(path)


def _sweep_panel(
    axes: Axes, curves: Mapping[str, Sequence[tuple[float, float]]], original: float, is_share: bool
) -> None:
    axes.axhline(original, color=NEUTRAL[0], linestyle="--", label="original")
    for number, (name, points) in enumerate(curves.items()):
        ordered = sorted(points)
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": "osD^"[number % 4]}
        axes.plot([x for x, _ in ordered], [y for _, y in ordered], label=name, **style)
    if is_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlim(left=0)
    _without_frame(axes)


def _without_frame(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _parameters_in_words(report: CompressionReport) -> str:
    return f"{report.parameters_before:,} -> {report.parameters_after:,} parameters"
