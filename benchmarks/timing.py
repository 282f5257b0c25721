"""Side-by-side timing: contenders take turns, and what counts is the ratio of their medians."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int = 11,
    seconds: float = 2.0,
) -> dict[str, float]:
    """Return the median seconds of each contender.

    Parameters
    ----------
    contenders : mapping from name to function
        Each is called twice before anything counts.
    device : torch.device
        What must have finished before a clock is read.
    rounds : int
        Turns that each contender takes, fewer where they would take longer than ``seconds`` in all, but 3.
    seconds : float
        For all turns of all contenders together.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
        run()
    began = time.perf_counter()
    for turn in range(rounds):
        for name, run in contenders.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            times[name].append(time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() - began > seconds:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(medians: Mapping[str, float], reference: str) -> dict[str, float]:
    """Return how many times faster than ``reference`` each contender is."""
    return {name: medians[reference] / value for name, value in medians.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
