"""The fit of a large noisy kernel.

A planted kernel of shape 192 x 48 x 3 x 9 x 9 (order 3, kernels of 3 x 3, rank 8, standard-normal factors) with 1 % of
noise. The floor is the error of the kernel without the noise; a fit ends below it, since it takes up a part of the
noise. The second case has its cores scaled such that all frames are of one size, where otherwise the older ones, which
pass more cores, are the larger ones. On two threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.decomposition.recovery import Setting, planted
from benchmarks.guarded import guarded
from tt_conv import conv_tt

SETTING = Setting(order=3, lags=1, dim=2, window="sliding", outputs=192, inputs=48, rank=8)
NOISE = 0.01
ALLOWED = 1.1
SECONDS = 60.0
SEEDS = 3


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per seed and kind of kernel."""
    torch.set_num_threads(2)
    setting = replace(SETTING, outputs=12, inputs=6, rank=2) if small else SETTING
    for frames in ("of growing size", "of one size"):
        for seed in range(SEEDS):
            case = f"frames {frames}, seed {seed}"
            if not wanted(case):
                continue
            exact = planted(setting, seed)
            if frames == "of one size":
                exact /= torch.linalg.vector_norm(exact, dim=(0, 1, 3, 4), keepdim=True)
            yield guarded(case, partial(_measure, setting, exact, seed, device))


def _measure(setting: Setting, exact: torch.Tensor, seed: int, device: torch.device) -> dict:
    generator = torch.Generator().manual_seed(1000 + seed)
    noise = torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    noisy = exact + NOISE * noise * exact.norm() / noise.norm()
    start = time.perf_counter()
    found = conv_tt(noisy.to(device), setting.rank, order=setting.order, kernel_size=setting.kernel_size)
    seconds = time.perf_counter() - start
    error = float((found.to_tensor().cpu() - noisy).norm() / noisy.norm())
    floor = float((exact - noisy).norm() / noisy.norm())
    ok = error <= ALLOWED * floor and seconds <= SECONDS
    return {"ok": ok, "error": error, "floor": floor, "error over floor": error / floor, "seconds": seconds}


def table(results: Sequence[Mapping]) -> str:
    """Return one line per kernel."""
    lines = [f"{'kernel':<32}{'error':>12}{'floor':>12}{'ratio':>10}{'seconds':>10}"]
    for result in results:
        lines.append(
            f"{result['case']:<32}{result['error']:>12.6f}{result['floor']:>12.6f}"
            f"{result['error over floor']:>10.4f}{result['seconds']:>10.1f}"
        )
    return "\n".join(lines)
