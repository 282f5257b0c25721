"""Measure what ``import tt_conv`` adds to ``import torch``: fresh processes that take turns, medians.

python tools/import_time.py
"""

import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "import torch": "import torch",
    "import tt_conv": "import torch, tt_conv",
    "all public names": "import torch; from tt_conv import *; import tt_conv.layers, tt_conv.applications.compression",
}
ROUNDS = 11


def main() -> None:
    """Print the median of each program, and what it adds to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["import torch"])
    for name, measured in seconds.items():
        print(f"{name:<18} {statistics.median(measured):6.3f} s {statistics.median(measured) - base:+7.3f} s")


if __name__ == "__main__":
    main()
