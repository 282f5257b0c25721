"""Timing contenders side by side: a slow moment of the machine meets all of them."""

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

_LONG = 0.2


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the duration of one call, its work on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    budget: float = 2.0,
    fewest: int = 5,
    most: int = 100,
) -> dict[str, float]:
    """Return the median seconds of each contender, called in turn.

    Parameters
    ----------
    contenders : dict
        Name -> what to call, warmed up by the caller.
    device : torch.device
    budget : float
        Seconds after which no new round starts, once there were ``fewest``; at most ``most`` rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    generator = random.Random(0)
    start = time.perf_counter()
    for turn in range(most):
        if turn >= fewest and time.perf_counter() - start > budget:
            break
        # The one before leaves its traces in the caches: nobody always follows the same, and none is timed cold.
        # A long call warms them by itself.
        generator.shuffle(names)
        for name in names:
            if not times[name] or times[name][-1] < _LONG:
                contenders[name]()
            times[name].append(seconds(contenders[name], device))
    return {name: median(values) for name, values in times.items()}
