"""Actions of two digits: how they move, how they look, and the best accuracy that anyone could reach on them."""

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tt_conv.checks import positive_int

FRAMES = 16
SIZE = 64  # pixels
# Frames that an action has in common with the one that it parts from: past 25 % of a clip, and past 50 %.
EARLY, LATE = 5, 10

_MOVED = 0.6  # of a coordinate's range, the part that an action crosses at most; at least 0.8 of that
_TURN = (8.0, 12.0)  # degrees per frame
_MARGIN = 5.0  # pixels between the border and the digits' centres
_DISTANCE = (4.0, 28.0)  # pixels between the two centres
_SIDES = (14.0, 34.0)  # of the digits, pixels
_FINE = 2  # rendered with as many times the pixels per axis, then averaged
UNIFORMS = 11  # random numbers of a clip

Coordinate = Literal["x", "y", "size", "angle", "distance"]


@dataclass(frozen=True)
class Action:
    """What the two digits do.

    Parameters
    ----------
    template : str
        As in Something-Something V2, with ``[something]`` for each digit.
    coordinate : {"x", "y", "size", "angle", "distance"}
        The one coordinate that changes: of the point between the digits, the digits' size or orientation, or their
        distance. All others are the same in all frames of a clip.
    sign : {1, -1}
        Whether it grows: to the right, down, larger, clockwise, apart.
    then : {"on", "back", "stop"}
        What happens after ``common`` frames: it goes on, goes back to where it came from, or stays.
    common : int
        Frames that do not tell this action from the one that goes on.

    Examples
    --------
    >>> Action("Pushing [something] to the right", "x", 1).then
    'on'
    """

    template: str
    coordinate: Coordinate
    sign: int
    then: Literal["on", "back", "stop"] = "on"
    common: int = FRAMES

    @property
    def name(self) -> str:
        """The template without its brackets."""
        return self.template.replace("[", "").replace("]", "")

    def steps(self) -> tuple[int, ...]:
        """By frame, how many steps the coordinate is away from its start."""
        last = self.common - 1
        after = {"on": lambda t: t, "back": lambda t: max(0, 2 * last - t), "stop": lambda t: last}[self.then]
        return tuple(t if t <= last else after(t) for t in range(FRAMES))


_BOTH = "[something] and [something]"
ACTIONS: tuple[Action, ...] = (
    Action(f"Moving {_BOTH} from left to right", "x", 1),
    Action(f"Moving {_BOTH} from right to left", "x", -1),
    Action(f"Moving {_BOTH} down", "y", 1),
    Action(f"Moving {_BOTH} up", "y", -1),
    Action(f"Moving {_BOTH} towards the camera", "size", 1),
    Action(f"Moving {_BOTH} away from the camera", "size", -1),
    Action(f"Turning {_BOTH} clockwise", "angle", 1),
    Action(f"Turning {_BOTH} counterclockwise", "angle", -1),
    Action(f"Moving {_BOTH} closer to each other", "distance", -1),
    Action(f"Moving {_BOTH} away from each other", "distance", 1),
    Action(f"Moving {_BOTH} from left to right and back again", "x", 1, "back", EARLY),
    Action(f"Moving {_BOTH} closer to each other, then apart again", "distance", -1, "back", EARLY),
    Action(f"Moving {_BOTH} from right to left, then stopping halfway", "x", -1, "stop", LATE),
    Action(f"Moving {_BOTH} up, then down again", "y", -1, "back", LATE),
)


def best_accuracy(observed: float | Fraction, top: int = 1) -> float:
    """The best expected accuracy that anyone could reach after the front part of a clip, all classes equally likely.

    Everything random in a clip (digits, places, sizes, orientations, speeds) is drawn in the same way for all actions
    that change the same coordinate in the same direction, and their frames are then a function of the draws and of
    the steps done so far (:meth:`Action.steps`). So actions whose steps agree so far have exactly the same
    distribution of frames, and nobody can do better than to name ``top`` of each such group of g, which is right with
    probability min(top, g) / g. Two frames tell the groups apart, since each changes another coordinate or in another
    direction. Hence, with K actions,

        best = (1 / K) * sum over groups of min(top, g)

    From a single frame, even if it is known which, no more than 2.5 ``top`` / K can be had (an upper bound):
    in no action is a frame more than 2.5 times as likely as in one that leaves its coordinate alone, because an
    action crosses 60 % of its coordinate's range at most and starts anywhere that leaves room for it.

    Parameters
    ----------
    observed : float
        The observed part of the frames, more than 0 and at most 1; incomplete frames are not observed.
    top : int
        How many guesses count.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        If ``observed`` is out of its range or less than a frame.

    Examples
    --------
    >>> [round(best_accuracy(observed), 4) for observed in (0.25, 0.5, 1)]
    [0.7143, 0.8571, 1.0]
    >>> best_accuracy(0.25, top=2)
    1.0
    """
    top = positive_int(top, "top")
    frames = math.floor(observed * FRAMES + 1e-6)
    if not 1 <= frames <= FRAMES:
        raise ValueError(
            f"observed must be a part of {FRAMES} frames, at least one of them and at most 1, got {observed}"
        )
    if frames == 1:
        return min(1.0, top / (1 - _MOVED) / len(ACTIONS))
    groups = Counter((action.coordinate, action.sign, action.steps()[:frames]) for action in ACTIONS)
    return sum(min(top, size) for size in groups.values()) / len(ACTIONS)


def draw_action(action: Action, uniforms: NDArray[np.float64], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames of an action.

    Parameters
    ----------
    action : Action
        What happens.
    uniforms : array [11]
        Everything random in the clip, from 0 to 1. The same numbers give all actions that share coordinate and sign
        the same frames, as long as their steps agree.
    images : array [n, 28, 28], uint8
        The digits to choose from.

    Returns
    -------
    array [16, 64, 64], uint8

    Examples
    --------
    >>> from tt_conv.applications.video_prediction import embedded_digits
    >>> draw_action(ACTIONS[0], np.full(UNIFORMS, 0.5), embedded_digits("test")[0]).shape
    (16, 64, 64)
    """
    path = _paths(action, uniforms)
    chosen = chosen_digits(uniforms, len(images))
    # Each digit is drawn into a window that follows it, and that into a canvas with room for it all around.
    window = math.ceil(float(path["side"].max()) * math.sqrt(2)) + 1
    canvas = torch.zeros(FRAMES, SIZE + 2 * window, SIZE + 2 * window)
    pixels = (torch.arange(window * _FINE) + 0.5) / _FINE
    for which, source in enumerate(torch.from_numpy(images[chosen]).float()):
        x, y, turn, half = path["x"][:, which], path["y"][:, which], path["angle"][:, which], path["side"] / 2
        left, top = ((place - window / 2).floor() for place in (x, y))
        # From a pixel to the digit's own axes, from -1 to 1 over its side.
        right, down = pixels + (left - x)[:, None], pixels + (top - y)[:, None]
        cos, sin = (torch.cos(turn) / half)[:, None, None], (torch.sin(turn) / half)[:, None, None]
        right, down = right[:, None, :], down[:, :, None]
        grid = torch.stack([cos * right + sin * down, cos * down - sin * right], dim=-1)
        seen = F.avg_pool2d(F.grid_sample(source.expand(FRAMES, 1, -1, -1), grid, align_corners=False), _FINE)
        for frame, digit, i, j in zip(canvas, seen[:, 0], top.int().tolist(), left.int().tolist(), strict=True):
            place = frame[i + window : i + 2 * window, j + window : j + 2 * window]
            torch.maximum(place, digit, out=place)
    inside = canvas[:, window:-window, window:-window]
    return inside.round().clamp(0, 255).to(torch.uint8).numpy()


def chosen_digits(uniforms: NDArray[np.float64], count: int) -> list[int]:
    """Which two of so many digits a clip shows."""
    return [int(value * count) for value in uniforms[:2]]


def _paths(action: Action, uniforms: NDArray[np.float64]) -> dict[str, torch.Tensor]:
    """By frame: x, y and angle of each digit [16, 2] (pixels, radians), and the side of both [16]."""
    x, y, size, distance, direction, first, second, speed, turning = uniforms[2:]
    steps = np.array(action.steps()) * action.sign
    crossed = _MOVED * (0.8 + 0.2 * speed)  # by the actions that go on, of the range

    def places(coordinate: str, start: float) -> NDArray[np.float64]:
        """From 0 to 1: anywhere at rest, and anywhere that leaves room for all steps in motion."""
        if coordinate != action.coordinate:
            return np.full(FRAMES, start)
        return start * (1 - crossed) + (crossed if action.sign < 0 else 0.0) + steps * crossed / (FRAMES - 1)

    apart = _between(*_DISTANCE, places("distance", distance)) / 2
    toward = np.array([np.cos(2 * np.pi * direction), np.sin(2 * np.pi * direction)])
    # Room for the digits at their largest distance, whatever it is in this clip.
    low = _MARGIN + _DISTANCE[1] / 2 * np.abs(toward)
    middle = np.stack(
        [_between(low[0], SIZE - low[0], places("x", x)), _between(low[1], SIZE - low[1], places("y", y))]
    )
    centres = np.stack([middle + apart * toward[:, None], middle - apart * toward[:, None]], axis=-1)  # [2, 16, 2]
    turned = np.radians(_between(*_TURN, turning)) * steps if action.coordinate == "angle" else np.zeros(FRAMES)
    angles = 2 * np.pi * np.array([first, second]) + turned[:, None]
    side = np.exp(_between(math.log(_SIDES[0]), math.log(_SIDES[1]), places("size", size)))
    found = {"x": centres[0], "y": centres[1], "angle": angles, "side": side}
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in found.items()}


def _between(low: float, high: float, part: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(low + (high - low) * part)
