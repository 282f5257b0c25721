"""Strips, animations and curves: what people look at."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Readable in print, for the colour-blind, and on black.
GIVEN, PREDICTED = "#8a8a8a", "#0072b2"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
NEUTRAL = ("#8a8a8a", "#b8a06a")
EXAMPLE_GAP = 0.35  # between the strips of two sequences, in frames
PANEL_GAP, MARGIN = 8, 26  # of an animation, in pixels

Strips = Mapping[str, Tensor]


def draw_strips(path: Path, examples: Sequence[Strips], given: int, title: str) -> None:
    """Draw sequences frame by frame: the truth in one row, each prediction under the frames that it predicts.

    Parameters
    ----------
    path : Path
        PNG file.
    examples : sequence of mapping
        For each sequence: the first entry is the whole true sequence [T, C, H, W], the others are predictions
        [T - given, C, H, W] of its last frames, by name; values from 0 to 1.
    given : int
        Number of frames that the models were shown.
    title : str
        Above the picture.
    """
    frames, rows = _frames(examples), len(examples[0])
    lines = len(examples) * (rows + EXAMPLE_GAP) - EXAMPLE_GAP
    figure = Figure(figsize=(0.85 * frames + 0.5, 0.85 * lines + 0.75), dpi=150)
    left, top = 0.4 / figure.get_figwidth(), 1 - 0.7 / figure.get_figheight()
    width, height = (0.99 - left) / frames, (top - 0.01) / lines
    figure.text(0.5, 1 - 0.2 / figure.get_figheight(), title, ha="center", va="center", fontsize=11)
    for number, example in enumerate(examples):
        for row, (name, clip) in enumerate(example.items()):
            y = top - (number * (rows + EXAMPLE_GAP) + row + 1) * height
            first = frames - len(clip)
            beside, upright = left + (first - 0.12) * width, "vertical" if first == 0 else "horizontal"
            figure.text(beside, y + height / 2, name, ha="right", va="center", fontsize=10, rotation=upright)
            for column, frame in enumerate(clip, start=first):
                place = (left + (column + 0.04) * width, y + 0.04 * height, 0.92 * width, 0.92 * height)
                axes = figure.add_axes(place)
                _show(axes, frame, GIVEN if column < given else PREDICTED)
                if number == row == 0:
                    axes.set_title(f"given {column + 1}" if column < given else f"+{column - given + 1}", fontsize=9)
    figure.savefig(path)


def draw_animation(
    path: Path, examples: Sequence[Strips], given: int, *, scale: int = 2, milliseconds: int = 250
) -> None:
    """Animate sequences as a looping GIF: a row for each, the truth beside the predictions.

    Before the first predicted frame every panel shows the given frames. Parameters as in :func:`draw_strips`.

    Parameters
    ----------
    scale : int
        Pixels on the screen per pixel of a frame.
    milliseconds : int
        Time per frame; the last one stays three times as long.
    """
    pictures = [_sheet(examples, given, time, scale) for time in range(_frames(examples))]
    durations = [milliseconds] * (len(pictures) - 1) + [3 * milliseconds]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def draw_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    reference: Sequence[str],
    *,
    x_label: str,
    title: str,
) -> None:
    """Draw one panel of curves per quantity.

    Parameters
    ----------
    path : Path
        PNG file.
    panels : mapping
        By label of the vertical axis, then by the name of the curve: its values at 1, 2, 3, ...
    reference : sequence of str
        Names of curves that stand for comparison only; they are drawn dashed and gray.
    x_label, title : str
        Below every panel; above the picture.
    """
    columns = min(3, len(panels) + 1)
    rows = math.ceil((len(panels) + 1) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid: NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for axes, (label, curves) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, curves, reference)
        axes.set_ylabel(label)
        axes.set_xlabel(x_label)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    handles, names = grid.flat[0].get_legend_handles_labels()
    grid.flat[len(panels)].legend(handles, names, loc="center", frameon=False, fontsize=11)
    figure.savefig(path)


def _draw_panel(axes: Axes, curves: Mapping[str, Sequence[float]], reference: Sequence[str]) -> None:
    compared = [name for name in curves if name not in reference]
    for name, values in curves.items():
        if name in reference:
            style: dict[str, Any] = {
                "color": NEUTRAL[list(reference).index(name) % 2],
                "linestyle": "--",
                "marker": ".",
            }
        else:
            # Curves may coincide: each is thinner and has a smaller marker than the one below it.
            place = compared.index(name) % len(COLOURS)
            style = {
                "color": COLOURS[place],
                "linewidth": 3.5 - place,
                "marker": "osD^"[place],
                "markersize": 8 - 2 * place,
            }
        axes.plot(range(1, len(values) + 1), values, label=name, **style)
    axes.set_xticks(range(1, 1 + max(len(values) for values in curves.values())))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _show(axes: Axes, frame: Tensor, edge: str) -> None:
    axes.imshow(_as_bytes(frame), cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(edge)
        spine.set_linewidth(1.5)


def _frames(examples: Sequence[Strips]) -> int:
    """Length of the true sequences, which stand first."""
    return len(next(iter(examples[0].values())))


def _as_bytes(frame: Tensor) -> NDArray[np.uint8]:
    """[C, H, W] from 0 to 1, C = 1 or 3, as bytes [H, W] or [H, W, 3]."""
    if frame.dim() != 3 or frame.shape[0] not in (1, 3):
        raise ValueError(f"a picture needs frames [C, H, W] with 1 or 3 channels, got {list(frame.shape)}")
    pixels = (255 * frame.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _sheet(examples: Sequence[Strips], given: int, time: int, scale: int) -> Image.Image:
    """One picture of the animation: a row of panels per sequence, names above, the time below."""
    truth = next(iter(examples[0].values()))
    height, width = (scale * side for side in truth.shape[-2:])
    right, down = width + PANEL_GAP, height + PANEL_GAP
    size = (len(examples[0]) * right + PANEL_GAP, len(examples) * down + 2 * MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, name in enumerate(examples[0]):
        draw.text((PANEL_GAP + column * right + width // 2, MARGIN // 2), name, "black", font, anchor="mm")
    for row, example in enumerate(examples):
        whole = next(iter(example.values()))
        for column, clip in enumerate(example.values()):
            shown = whole if time < given else clip
            edge = GIVEN if time < given else PREDICTED
            x, y = PANEL_GAP + column * right, MARGIN + row * down
            panel = Image.fromarray(_as_bytes(shown[time - len(whole)])).resize(
                (width, height), Image.Resampling.NEAREST
            )
            sheet.paste(panel, (x, y))
            draw.rectangle((x - 2, y - 2, x + width + 1, y + height + 1), outline=edge, width=2)
    state = "given" if time < given else f"predicted (+{time - given + 1})"
    draw.text((size[0] // 2, size[1] - MARGIN // 2), f"frame {time + 1}: {state}", "black", font, anchor="mm")
    return sheet
