"""Curves of accuracy, confusion matrices, and ranked labels over time."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from tt_conv.applications.pictures import COLOURS, NEUTRAL

_WIDTH = 34  # letters of a label in a line


def draw_accuracy(path: Path, curves: Mapping[str, Sequence[float]], references: Mapping[str, Sequence[float]]) -> None:
    """Draw accuracy against the observed part of the clip.

    Parameters
    ----------
    path : Path
        PNG file.
    curves : mapping
        By name: the accuracy after frame 1, 2, ... of all.
    references : mapping
        The same of what stands for comparison only, such as a ceiling; drawn dashed and gray.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(references.items()):
        axes.plot(_percent(values), values, "--", color=NEUTRAL[number % len(NEUTRAL)], label=name)
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(_percent(values), values, "o-", markersize=4, color=COLOURS[number % len(COLOURS)], label=name)
    axes.set(xlabel="observed part of the clip (%)", ylabel="accuracy", ylim=(0, 1.03), xlim=(0, 101))
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * (number + 1) / len(values) for number in range(len(values))]


def draw_confusion(path: Path, matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> None:
    """Draw confusion matrices side by side: a row for each true class, shares of it in the columns.

    Parameters
    ----------
    path : Path
        PNG file.
    matrices : mapping
        By title: numbers of clips, a row for each true class.
    classes : sequence of str
        Names, in the order of rows and columns.
    """
    names = [textwrap.shorten(name, _WIDTH * 2, placeholder=" ...") for name in classes]
    side = min(12.0, max(2.8, 0.24 * len(classes)))
    figure = Figure(figsize=(side * len(matrices) + 3.6, side + 0.9), dpi=110, layout="constrained")
    grid = figure.subplots(1, len(matrices), squeeze=False)[0]
    for number, (axes, (title, counts)) in enumerate(zip(grid, matrices.items(), strict=True)):
        matrix = np.asarray(counts, dtype=float)
        axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("taken for number")
        ticks = range(0, len(names), max(1, len(names) // 20))
        axes.set_xticks([*ticks], [str(tick + 1) for tick in ticks], fontsize=7)
        axes.set_yticks([*range(len(names))] if number == 0 else [])
        if number == 0:
            axes.set_yticklabels([f"{name} {row + 1}" for row, name in enumerate(names)], fontsize=7)
    figure.savefig(path)


def draw_labels(path: Path, clip: Tensor, scores: Tensor, classes: Sequence[str], title: str) -> None:
    """Draw the frames of a clip, and under them how probable its likeliest classes are after each.

    Parameters
    ----------
    path : Path
        PNG file.
    clip : Tensor [T, C, H, W]
        Values from 0 to 1.
    scores : Tensor [T, K]
        Probabilities after each frame.
    classes : sequence of str
        Their names.
    title : str
        Above the picture.
    """
    frames = len(clip)
    figure = Figure(figsize=(max(6.0, 0.62 * frames), 4.6), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=10)
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 4))
    strip, below = parts
    for axes, frame in zip(strip.subplots(1, frames, squeeze=False)[0], clip, strict=True):
        pixels = (255 * frame.clamp(0, 1)).byte().permute(1, 2, 0).numpy()
        axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
    axes = below.subplots()
    shown = scores.amax(0).topk(min(len(COLOURS), len(classes))).indices.tolist()
    for colour, number in zip(COLOURS, shown, strict=False):
        name = "\n".join(textwrap.wrap(classes[number], _WIDTH))
        axes.plot(range(1, frames + 1), scores[:, number].tolist(), "o-", markersize=4, color=colour, label=name)
    axes.set(xlabel="frames seen", ylabel="probability", ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path)
