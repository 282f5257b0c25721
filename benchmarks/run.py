"""Checks and benchmarks of a device in one go: ``make bench`` on the CPU, ``make bench-gpu`` on a GPU.

A part is a module with ``cases(device)``, which yields one result, a dict with a ``case``, as each case ends.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

PARTS = {
    "golden": "benchmarks.golden_on_device",
    "conv_einsum": "benchmarks.conv_einsum.on_device",
    "conv_einsum_overhead": "benchmarks.conv_einsum.overhead",
    "conv_tt_programs": "benchmarks.conv_tt.programs",
    "decomposition_noise": "benchmarks.decomposition.noise",
    "decomposition_recovery": "benchmarks.decomposition.recovery",
    "factorized_convolutions": "benchmarks.conv_einsum.factorized_convolutions",
}


def write_json(path: Path, value: object) -> None:
    """Write ``value`` under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def machine(device: torch.device) -> dict:
    """Return what a table must name beside its figures."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; return 1 if a check failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.json"), help="JSON file for the results")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; --device cpu runs the same code on the CPU")
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: list[dict] = []
    for part in options.only:
        for result in importlib.import_module(PARTS[part]).cases(device):
            results.append({"part": part, **result})
            write_json(options.out, {"machine": machine(device), "time": time.time(), "results": results})
            print(json.dumps(results[-1]), flush=True)
    failed = [result["case"] for result in results if not result.get("ok", True)]
    print(f"{len(results)} cases, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
