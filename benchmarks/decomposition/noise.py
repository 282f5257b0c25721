"""How close `conv_tt` comes to the noise on a large kernel: 192 x 48 x 3 x 9 x 9, rank 8, 1 % of noise.

Run from the repository's root:

    python -m benchmarks.decomposition.noise --threads 2 --output noise.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from benchmarks.decomposition.recovery import Setting, planted
from tt_conv import conv_tt

NOISE = 0.01


def measure(setting: Setting, seed: int) -> dict[str, float]:
    """Relative error of the fit, that of the noiseless kernel (the floor), and the time."""
    exact = planted(setting, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    noise = torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    noisy = exact + NOISE * noise * exact.norm() / noise.norm()
    start = time.perf_counter()
    found = conv_tt(noisy, setting.rank, order=setting.order, kernel_size=setting.kernel_size)
    seconds = time.perf_counter() - start
    error = float((found.to_tensor() - noisy).norm() / noisy.norm())
    return {"error": error, "floor": float((exact - noisy).norm() / noisy.norm()), "seconds": seconds}


def main() -> None:
    """Measure and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(order=3, lags=1, dim=2, window="sliding", outputs=192, inputs=48, rank=8)
    runs = []
    for seed in range(arguments.seeds):
        run = measure(setting, seed)
        print(
            f"seed {seed}: {run['error'] / run['floor']:.4f} of the floor in {run['seconds']:.1f} s",
            flush=True,
        )
        runs.append(run)
    if arguments.output is not None:
        environment = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": arguments.threads,
        }
        arguments.output.write_text(json.dumps({"environment": environment, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
