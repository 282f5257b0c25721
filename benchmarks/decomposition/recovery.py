"""How often `conv_tt` recovers planted kernels: exact trains with standard-normal factors, never shown to it.

Run from the repository's root, with the settings whose names contain a text, or all of them:

    python -m benchmarks.decomposition.recovery --seeds 20 --output recovery.json --only "order 3"
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tt_conv import ConvTTTensor, conv_tt
from tt_conv.conv_tt_tensor import Window
from tt_conv.decomposition import PoorFitWarning

# (O, I, R): ranks below both numbers of channels, above the inputs, equal to the outputs, and both of these.
SIZES = [(8, 4, 3), (16, 8, 4), (6, 6, 2), (8, 2, 3), (4, 6, 4), (4, 3, 4)]
RECOVERED = 1e-6


@dataclass(frozen=True)
class Setting:
    """One cell of the grid: the shape of a planted train."""

    order: int
    lags: int
    dim: int
    window: Window
    outputs: int
    inputs: int
    rank: int
    kernel_size: int = 3

    @property
    def name(self) -> str:
        return (
            f"order {self.order}, lags {self.lags}, d = {self.dim}, {self.window}, "
            f"O = {self.outputs}, I = {self.inputs}, R = {self.rank}"
        )


def grid() -> Iterator[Setting]:
    """All settings, those with a promised rate first."""
    for dim in (1, 2):
        for order in (1, 2, 3, 4):
            for lags in (1, 2) if order <= 3 else (1,):
                for size in SIZES:
                    yield Setting(order, lags, dim, "sliding", *size)
    for dim in (1, 2):
        for order in (2, 3):
            yield Setting(order, 1, dim, "fixed", 8, 4, 3)
    for order in (1, 2, 3):
        yield Setting(order, 1, 3, "sliding", 6, 4, 2)
    yield Setting(2, 2, 3, "sliding", 6, 4, 2)


def planted(setting: Setting, seed: int) -> torch.Tensor:
    """A dense kernel whose factors are standard normal."""
    generator = torch.Generator().manual_seed(seed)
    taps = (setting.kernel_size,) * setting.dim

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, *taps, generator=generator, dtype=torch.float64)

    frames = setting.lags if setting.window == "sliding" else setting.lags + setting.order - 1
    rows = [setting.rank] * (setting.order - 1) + [setting.outputs]
    projections = [normal(setting.rank, setting.inputs, frames) for _ in rows]
    cores = [normal(row, setting.rank) for row in rows]
    return ConvTTTensor(projections, cores, window=setting.window).to_tensor()


def measure(setting: Setting, seeds: int) -> dict[str, object]:
    """Errors and times of one setting, and the number of seeds that were recovered."""
    errors, seconds = [], []
    for seed in range(seeds):
        kernel = planted(setting, seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PoorFitWarning)
            found = conv_tt(
                kernel,
                setting.rank,
                order=setting.order,
                kernel_size=setting.kernel_size,
                window=setting.window,
            )
        seconds.append(time.perf_counter() - start)
        errors.append(math.nan if found.relative_error is None else found.relative_error)
    recovered = sum(error <= RECOVERED for error in errors)
    return {**asdict(setting), "seeds": seeds, "recovered": recovered, "errors": errors, "seconds": seconds}


def main() -> None:
    """Measure the grid and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="settings whose names contain this")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for setting in grid():
        if arguments.only not in setting.name:
            continue
        result = measure(setting, arguments.seeds)
        times = (
            sorted(t for t in result["seconds"] if isinstance(t, float)) if isinstance(result["seconds"], list) else []
        )
        print(f"{setting.name}: {result['recovered']}/{arguments.seeds}, longest {times[-1]:.1f} s", flush=True)
        results.append(result)
    if arguments.output is not None:
        environment = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": arguments.threads,
        }
        document = {"environment": environment, "recovered_below": RECOVERED, "settings": results}
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
