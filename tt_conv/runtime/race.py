"""Contenders for the same result, timed side by side where they will run."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

Contender = TypeVar("Contender")

CONTENDERS = 8
"""Contenders that are timed at most."""

HOPELESS = 8
"""A contender that should take so many times the best one's time is not tried."""

CALLS = 8
"""Calls per weight update that are timed at most."""

SECONDS = 0.3
"""Time spent on timing, as far as three rounds allow."""


def promising(contenders: Iterable[Contender], prices: Sequence[float]) -> list[Contender]:
    """Return the contenders that are worth timing, in the order in which they came."""
    limit = HOPELESS * min(prices)
    return [c for c, price in zip(contenders, prices, strict=True) if price <= limit][:CONTENDERS]


def update_and_calls(
    bind: Callable[[], Callable[[], Tensor]], reuse: int, leaves: Sequence[Tensor]
) -> Callable[[], None]:
    """Return a run of what follows one update of the weights: work on weights alone, calls, and their gradients.

    Parameters
    ----------
    bind : callable
        Does what is paid once per update, and returns one call.
    reuse : int
        Calls per update.
    leaves : sequence of Tensor
        What needs a gradient.
    """

    def run() -> None:
        call = bind()
        results = [call() for _ in range(min(reuse, CALLS))]
        if leaves:
            torch.autograd.grad(results, leaves, [torch.ones_like(result) for result in results])

    return run


def fastest(runs: Sequence[Callable[[], Any]], device: torch.device) -> int:
    """Return the index of the fastest run, by the median of interleaved rounds.

    Runs that are twice as slow as the best leave the race, but not for one slow moment of the machine.
    """
    synchronize = getattr(torch, device.type).synchronize
    if device.type == "cuda":
        synchronize = partial(synchronize, device)
    times: dict[int, list[float]] = {i: [] for i in range(len(runs))}
    for run in runs:  # the first call allocates and lets libraries choose their algorithms
        run()
    start = time.perf_counter()
    while True:
        for i in times:
            synchronize()
            before = time.perf_counter()
            runs[i]()
            synchronize()
            times[i].append(time.perf_counter() - before)
        medians = {i: median(values) for i, values in times.items()}
        rounds = max(map(len, times.values()))
        if rounds < 3:
            continue
        best = min(medians.values())
        times = {i: values for i, values in times.items() if medians[i] <= 2 * best}
        if len(times) == 1 or time.perf_counter() - start > SECONDS or rounds >= 200:
            return min(times, key=medians.__getitem__)
