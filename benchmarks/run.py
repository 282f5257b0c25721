"""Checks and benchmarks of a device in one go: ``make bench`` on the CPU, ``make bench-gpu`` on a GPU.

A part is a module with ``cases(device)``, which yields one result, a dict with a ``case``, as each case ends. A part
whose ``cases`` takes ``wanted`` as well, a function from the name of a case to a bool, can run some of its cases alone.
"""

import argparse
import fnmatch
import importlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

PARTS = {
    "golden": "benchmarks.golden_on_device",
    "recurrence": "benchmarks.recurrence.speed",
    "conv_einsum": "benchmarks.conv_einsum.on_device",
    "conv_einsum_overhead": "benchmarks.conv_einsum.overhead",
    "conv_tt_programs": "benchmarks.conv_tt.programs",
    "decomposition_noise": "benchmarks.decomposition.noise",
    "decomposition_recovery": "benchmarks.decomposition.recovery",
    "video_prediction": "benchmarks.video_prediction.quality",
    "trained_kernels": "benchmarks.decomposition.trained_kernels",
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


def _selected(parser: argparse.ArgumentParser, selection: str) -> tuple[str, Callable[..., Iterator[dict]]]:
    """Return the name of a part and what yields the results of its selected cases."""
    part, _, pattern = selection.partition("/")
    if part not in PARTS:
        parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    cases = importlib.import_module(PARTS[part]).cases
    if not pattern:
        return part, cases
    if "wanted" not in inspect.signature(cases).parameters:
        parser.error(f"the cases of {part} can't be selected; use --only {part}")
    return part, partial(cases, wanted=lambda case: fnmatch.fnmatch(case, pattern))


def _kept(parser: argparse.ArgumentParser, path: Path, device: torch.device) -> list[dict]:
    if not path.exists():
        return []
    written = json.loads(path.read_text())
    if written["machine"] != machine(device):
        parser.error(f"{path} holds results of another machine, {written['machine']}; choose another --out")
    return written["results"]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; return 1 if a check failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART[/CASES]",
        default=list(PARTS),
        help=f"parts to run ({', '.join(PARTS)}), or some cases of one, such as 'recurrence/training*'",
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.json"), help="JSON file for the results")
    parser.add_argument("--keep", action="store_true", help="keep the results of other cases that --out holds already")
    options = parser.parse_args(arguments)
    selected = [_selected(parser, selection) for selection in options.only]
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; --device cpu runs the same code on the CPU")
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = _kept(parser, options.out, device) if options.keep else []
    results: list[dict] = []
    for part, cases in selected:
        for result in cases(device):
            results.append({"part": part, **result})
            fresh = {(other["part"], other["case"]) for other in results}
            others = [other for other in kept if (other["part"], other["case"]) not in fresh]
            write_json(options.out, {"machine": machine(device), "time": time.time(), "results": others + results})
            print(json.dumps(results[-1]), flush=True)
    failed = [result["case"] for result in results if not result.get("ok", True)]
    print(f"{len(results)} cases, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
