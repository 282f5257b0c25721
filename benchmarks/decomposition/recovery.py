"""Recovery of planted kernels.

Exact Conv-TT kernels with standard-normal factors are given to ``conv_tt``, which never sees the factors; a kernel
counts as recovered if the relative error ends at 1e-6 or below. Each cell is the number of recovered kernels among
the seeds 0, 1, 2, ..., none left out, and behind it the longest of the runs in seconds, on one thread. Kernels have
three taps per axis, ``O`` output and ``I`` input channels, and rank ``R`` at every level: below both, with one lag;
above the inputs; equal to the outputs; and both of these. With more than two levels and a rank above the inputs no
linear algebra identifies the cores, and the search from random starts takes long.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tt_conv import ConvTTTensor, conv_tt
from tt_conv.conv_tt.fit import PoorFitWarning, decompose
from tt_conv.conv_tt.tensor import Window

# (O, I, R)
SIZES = [(8, 4, 3), (16, 8, 4), (6, 6, 2), (8, 2, 3), (4, 6, 4), (3, 2, 3)]
SMALL = [(6, 4, 2), (3, 4, 3)]
SEEDS = 20
RECOVERED = 1e-6
FINISHED = Path("build/recovery.jsonl")
"""Cells that were finished, so that a run that was stopped goes on; those of other source code are not used."""


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
    def row(self) -> str:
        """What the cells of one row share."""
        return f"order {self.order}, lags {self.lags}, d = {self.dim}, {self.window}"

    @property
    def size(self) -> str:
        """Channels and rank."""
        return f"{self.outputs}, {self.inputs}, {self.rank}"


def grid() -> Iterator[Setting]:
    """All settings, row by row."""
    for dim in (1, 2):
        for order in (1, 2, 3):
            for lags in (1, 2):
                for size in SIZES:
                    yield Setting(order, lags, dim, "sliding", *size)
    for dim in (1, 2):
        for size in SIZES if dim == 1 else SIZES[:3]:
            yield Setting(4, 1, dim, "sliding", *size)
    for order in (1, 2, 3):
        for lags in (1, 2):
            for size in SMALL:
                yield Setting(order, lags, 3, "sliding", *size)
    for dim in (1, 2):
        for order in (2, 3):
            yield Setting(order, 1, dim, "fixed", *SIZES[0])


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


def measure(setting: Setting, device: torch.device) -> dict:
    """Errors and times of one setting, and the number of seeds that were recovered."""
    errors, seconds = [], []
    for seed in range(SEEDS):
        kernel = planted(setting, seed).to(device)
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
    return {
        "case": f"{setting.row}, O, I, R = {setting.size}",
        **asdict(setting),
        "seeds": SEEDS,
        "recovered": sum(error <= RECOVERED for error in errors),
        "errors": errors,
        "seconds": [round(s, 2) for s in seconds],
    }


def cases(device: torch.device) -> Iterator[dict]:
    """Yield one result per cell of the grid; those that were finished before are not measured again."""
    torch.set_num_threads(1)
    FINISHED.parent.mkdir(parents=True, exist_ok=True)
    lines = FINISHED.read_text().splitlines() if FINISHED.exists() else []
    known = {tuple(key): result for key, result in map(json.loads, lines)}
    for setting in grid():
        key = (_sources(), str(device), setting.row, setting.size)
        if key not in known:
            known[key] = measure(setting, device)
            with FINISHED.open("a") as file:
                file.write(json.dumps([key, known[key]]) + "\n")
        yield known[key]


def _sources() -> str:
    """A digest of what decides the results."""
    folder = Path(decompose.__file__).parent
    parts = [path.read_bytes() for path in [Path(__file__), *sorted(folder.glob("*.py"))]]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def table(results: Sequence[Mapping]) -> str:
    """Return rows of orders, lags and dimensions, and columns of channels and rank."""
    rows: dict[str, dict[str, str]] = {}
    for result in results:
        setting = Setting(**{name: result[name] for name in Setting.__dataclass_fields__})
        cell = f"{result['recovered']}/{result['seeds']} {max(result['seconds']):>5.1f} s"
        rows.setdefault(setting.row, {})[setting.size] = cell
    lines = []
    for sizes in (SIZES, SMALL):
        columns = [", ".join(map(str, size)) for size in sizes]
        lines.append(f"{'O, I, R':<36}" + "".join(f"{size:>15}" for size in columns))
        for row, cells in rows.items():
            if columns[0] in cells:
                lines.append(f"{row:<36}" + "".join(f"{cells.get(size, ''):>15}" for size in columns).rstrip())
        lines.append("")
    return "\n".join(lines[:-1])
