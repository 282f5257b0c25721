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

Clip = Mapping[str, Tensor]


def draw_strips(path: Path, examples: Sequence[Clip], given: int, title: str) -> None:
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
    frames = len(next(iter(examples[0].values())))
    rows = len(examples[0])
    lines = len(examples) * (rows + 0.35) - 0.35
    figure = Figure(figsize=(0.85 * frames + 0.25, 0.85 * lines + 0.75), dpi=150, layout=None)
    left, right, bottom, top = 0.012, 0.988, 0.01, 1 - 0.7 / figure.get_figheight()
    cell = ((right - left) / frames, (top - bottom) / lines)
    figure.text(0.5, 1 - 0.16 / figure.get_figheight(), title, ha="center", va="center", fontsize=11)
    for number, example in enumerate(examples):
        for row, (name, clip) in enumerate(example.items()):
            y = top - (number * (rows + 0.35) + row + 1) * cell[1]
            first = frames - len(clip)
            if first:
                figure.text(
                    left + (first - 0.15) * cell[0], y + cell[1] / 2, name, ha="right", va="center", fontsize=10
                )
            for offset, frame in enumerate(clip):
                column = first + offset
                axes = figure.add_axes(
                    (left + (column + 0.04) * cell[0], y + 0.04 * cell[1], 0.92 * cell[0], 0.92 * cell[1])
                )
                _show(axes, frame, GIVEN if column < given else PREDICTED)
                if number == row == 0:
                    axes.set_title(_frame_label(column, given), fontsize=9, pad=4)
    figure.savefig(path)


def draw_animation(
    path: Path, examples: Sequence[Clip], given: int, *, scale: int = 2, milliseconds: int = 250
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
    pictures = [_panels(examples, given, time, scale) for time in range(len(next(iter(examples[0].values()))))]
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
            style: dict[str, Any] = {"color": NEUTRAL[list(reference).index(name) % 2], "linestyle": "--"}
        else:
            style = {"color": COLOURS[compared.index(name) % len(COLOURS)], "linewidth": 2}
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=4, label=name, **style)
    axes.set_xticks(range(1, 1 + max(len(values) for values in curves.values())))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _show(axes: Axes, frame: Tensor, edge: str) -> None:
    axes.imshow(_pixels(frame), cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(edge)
        spine.set_linewidth(1.5)


def _frame_label(time: int, given: int) -> str:
    return f"given {time + 1}" if time < given else f"+{time - given + 1}"


def _pixels(frame: Tensor) -> NDArray[np.uint8]:
    """[C, H, W] from 0 to 1, C = 1 or 3, as bytes [H, W] or [H, W, 3]."""
    if frame.dim() != 3 or frame.shape[0] not in (1, 3):
        raise ValueError(f"a picture needs frames [C, H, W] with 1 or 3 channels, got {list(frame.shape)}")
    pixels = (255 * frame.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _panels(examples: Sequence[Clip], given: int, time: int, scale: int) -> Image.Image:
    """One picture of the animation."""
    truth = next(iter(examples[0].values()))
    height, width = (scale * side for side in truth.shape[-2:])
    gap, head = 8, 26
    columns, rows = len(examples[0]), len(examples)
    foot = 26
    size = (columns * (width + gap) + gap, head + rows * (height + gap) + foot)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for column, name in enumerate(examples[0]):
        draw.text((gap + column * (width + gap) + width // 2, head // 2), name, "black", font, anchor="mm")
    for row, example in enumerate(examples):
        for column, clip in enumerate(example.values()):
            is_given = time < given
            whole = next(iter(example.values()))
            frame = clip[time - (len(whole) - len(clip))] if not is_given else whole[time]
            x, y = gap + column * (width + gap), head + row * (height + gap)
            panel = Image.fromarray(_pixels(frame)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(panel, (x, y))
            edge = GIVEN if is_given or clip is whole else PREDICTED
            draw.rectangle((x - 2, y - 2, x + width + 1, y + height + 1), outline=edge, width=2)
    state = f"frame {_frame_label(time, given)}" if time < given else f"predicted frame {_frame_label(time, given)}"
    draw.text((size[0] // 2, size[1] - foot // 2 - 2), state, "black", font, anchor="mm")
    return sheet
