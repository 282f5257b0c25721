"""Make the pictures of the README and of the landing page from what ``tt-conv demo`` left in a folder.

    tt-conv demo --out build/demo
    python tools/make_pictures.py build/demo

It writes ``docs/_static/demo.gif`` (the demo's animation) and ``docs/_static/overview.png``.
"""

import shutil
import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from tt_conv.applications.video_prediction import MovingMNIST, demo
from tt_conv.applications.video_prediction.settings import DemoSettings

STATIC = Path(__file__).parents[1] / "docs" / "_static"
GREEN, ORANGE, BLUE = ("#dcebdc", "#4f8a4f"), ("#f6e3cf", "#b9772f"), ("#dce6f5", "#2a5d9c")
SEQUENCE, PICTURED = 0, 4


def forecast(folder: Path) -> tuple[DemoSettings, torch.Tensor, torch.Tensor]:
    """Return the settings, a test sequence that no training saw, and what the trained ConvTT-LSTM predicts of it."""
    saved = torch.load(folder / "models.pt", weights_only=True)
    settings = DemoSettings(**saved["settings"])
    model = demo.build_predictors(settings)["ConvTT-LSTM"]
    model.load_state_dict(saved["models"]["ConvTT-LSTM"])
    length = settings.given + settings.future
    data = MovingMNIST(
        "test",
        length=SEQUENCE + 1,
        frames=length,
        size=settings.size,
        digits=settings.digits,
        speed=settings.speed,
        seed=settings.seed,
        digit_size=settings.digit_size,
    )
    frames = data[SEQUENCE]
    with torch.inference_mode():
        predicted = model(frames[None, : settings.given], settings.future)[0, -settings.future :]
    return settings, frames, predicted


def box(axes: Axes, x: float, y: float, text: str, colours: tuple[str, str], width: float = 0.9) -> None:
    """Draw a named box around a point."""
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.28),
        width,
        0.56,
        boxstyle="round,pad=0.02,rounding_size=0.12",
        fc=colours[0],
        ec=colours[1],
    )
    axes.add_patch(patch)
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two points."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555", "shrinkA": 0, "shrinkB": 0})


def picture(axes: Axes, frame: torch.Tensor, x: float, y: float, edge: str, size: float = 1.1) -> None:
    """Show a frame around a point."""
    half = size / 2
    axes.imshow(frame[0], cmap="gray", vmin=0, vmax=1, extent=(x - half, x + half, y - half, y + half), zorder=2)
    axes.plot(
        [x - half, x + half, x + half, x - half, x - half],
        [y - half, y - half, y + half, y + half, y - half],
        color=edge,
    )


def overview(folder: Path, path: Path) -> None:
    """Draw past frames entering a Conv-TT of order 3, and the forecast that comes out."""
    settings, frames, predicted = forecast(folder)
    figure = matplotlib.figure.Figure(figsize=(11, 3.7), dpi=130)
    axes = figure.add_axes((0, 0, 1, 1))
    for m in range(3):
        x = 0.9 + 1.9 * m
        picture(axes, frames[settings.given - 3 + m], x, 3.0, "#7a8ba3")
        arrow(axes, (x, 2.42), (x, 2.1))
        box(axes, x, 1.8, f"$P_{m + 1}$", GREEN)
        if m == 0:
            axes.plot([x, x, x + 0.2], [1.5, 0.72, 0.72], color="#555", lw=1)
        else:
            arrow(axes, (x, 1.5), (x, 1.02))
            axes.text(x, 0.72, "+", ha="center", va="center", fontsize=14)
        box(axes, x + 0.95, 0.72, f"$G_{m + 1}$", ORANGE, 0.7)
        arrow(axes, (x + 0.16, 0.72), (x + 0.56, 0.72))
        if m < 2:
            arrow(axes, (x + 1.34, 0.72), (x + 1.72, 0.72))
    axes.text(0.2, 3.72, "past frames, or past states of a recurrent layer", fontsize=10, color="#333")
    axes.text(
        0.2,
        0.12,
        "a dense kernel over all frames, stored as small projections P and shared cores G",
        fontsize=10,
        color="#333",
    )
    arrow(axes, (6.02, 0.72), (6.45, 0.72))
    axes.plot([6.45, 6.45], [0.4, 3.5], color="#999", lw=1)
    for number in range(PICTURED):
        x = 7.35 + 1.22 * number
        picture(axes, frames[settings.given + number], x, 2.85, "#7a8ba3")
        picture(axes, predicted[number], x, 1.45, BLUE[1])
        axes.text(x, 0.72, f"+{number + 1}", ha="center", va="center", fontsize=10)
    axes.text(6.75, 3.72, "the frames that followed (above) and the forecast (below)", fontsize=10, color="#333")
    axes.text(6.75, 0.12, f"what tt-conv demo learned in {settings.steps} steps", fontsize=10, color="#333")
    axes.set(xlim=(0, 11.75), ylim=(-0.05, 3.95), aspect="equal")
    axes.axis("off")
    figure.savefig(path)


if __name__ == "__main__":
    demo_folder = Path(sys.argv[1])
    shutil.copyfile(demo_folder / "animation.gif", STATIC / "demo.gif")
    overview(demo_folder, STATIC / "overview.png")
