"""Checks and benchmarks of a device in one go: ``make bench`` on the CPU, ``make bench-gpu`` on a GPU.

A part is a module with ``cases(device)``, which yields one result, a dict with a ``case``, as each case ends. A part
whose ``cases`` takes ``wanted`` as well, a function from the name of a case to a bool, can run some of its cases alone.
A part that fails, or lacks a package, does not stop the others. With ``--seconds`` no part starts or goes on after
that time; what was left out is named.
"""

import argparse
import fnmatch
import importlib
import inspect
import json
import os
import platform
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import torch

from benchmarks.guarded import OutOfTime, failure

PARTS = {
    "golden": "benchmarks.golden_on_device",
    "recurrence_checks": "benchmarks.recurrence.on_device",
    "recurrence": "benchmarks.recurrence.speed",
    "precision": "benchmarks.recurrence.precision",
    "conv_einsum": "benchmarks.conv_einsum.on_device",
    "conv_einsum_overhead": "benchmarks.conv_einsum.overhead",
    "conv_tt_programs": "benchmarks.conv_tt.programs",
    "decomposition_noise": "benchmarks.decomposition.noise",
    "decomposition_recovery": "benchmarks.decomposition.recovery",
    "video_prediction": "benchmarks.video_prediction.quality",
    "video_prediction_gap": "benchmarks.video_prediction.gap",
    "recognition": "benchmarks.recognition.accuracy",
    "trained_kernels": "benchmarks.decomposition.trained_kernels",
    "factorized_convolutions": "benchmarks.conv_einsum.factorized_convolutions",
    "compression": "benchmarks.compression.pretrained",
}

SECONDS_ON_GPU = 470
"""What a run on a GPU takes at most, unless --seconds says otherwise."""

# Checks first, then what says most; each with the seconds after which it makes room for the next.
ON_GPU = {
    "golden": 40,
    "recurrence_checks": 60,
    "conv_einsum": 60,
    "recurrence": 220,
    "precision": 40,
    "conv_tt_programs": 40,
    "factorized_convolutions": 60,
    "conv_einsum_overhead": 20,
    "decomposition_noise": 60,
    "trained_kernels": 60,
    "video_prediction": 60,
    "decomposition_recovery": 60,
}


def write_json(path: Path, value: object) -> None:
    """Write ``value`` under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model of the CPU, as far as the system tells it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return next(filter(None, [*models, platform.processor()]), "CPU")


def machine(device: torch.device) -> dict:
    """Return what a table must name beside its figures; nothing that tells one machine of a model from another."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"{cpu_model()} ({platform.machine()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()})"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


@contextmanager
def limited_to(seconds: float | None) -> Iterator[None]:
    """Raise :class:`OutOfTime` in the block after some seconds, between two steps of Python."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 5)  # again, if something swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def importable(folders: Sequence[Path]) -> Iterator[None]:
    """Let imports find what this Python lacks in folders of wheels, those for other versions of Python left out."""
    tags = ("-none-any.whl", f"-cp{sys.version_info.major}{sys.version_info.minor}-", "-abi3-")
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in sorted(wheel for folder in folders for wheel in folder.glob("*.whl")):
            if any(tag in wheel.name for tag in tags):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(unpacked)
        sys.path.append(unpacked)
        try:
            yield
        finally:
            sys.path.remove(unpacked)


def _run(part: str, pattern: str, device: torch.device) -> Iterator[dict]:
    """Yield the results of a part, or of those of its cases that match a pattern."""
    try:
        cases: Callable[..., Iterator[dict]] = importlib.import_module(PARTS[part]).cases
    except ModuleNotFoundError as error:
        yield {"case": "all", "skipped": f"no module named {error.name}"}
        return
    if pattern:
        cases = partial(cases, wanted=lambda case: fnmatch.fnmatch(case, pattern))
    try:
        yield from cases(device)
    except Exception as error:
        yield failure("the rest", error)


def _check_pattern(parser: argparse.ArgumentParser, part: str, pattern: str) -> None:
    if part not in PARTS:
        parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    if pattern and "wanted" not in inspect.signature(importlib.import_module(PARTS[part]).cases).parameters:
        parser.error(f"the cases of {part} can't be selected; use --only {part}")


def _kept(parser: argparse.ArgumentParser, path: Path, device: torch.device) -> list[dict]:
    if not path.exists():
        return []
    written = json.loads(path.read_text())
    if written["machine"] != machine(device):
        parser.error(f"{path} holds results of another machine, {written['machine']}; choose another --out")
    return written["results"]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART[/CASES]",
        help=f"parts to run ({', '.join(PARTS)}), or some cases of one, such as 'recurrence/training*'",
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.json"), help="JSON file for the results")
    parser.add_argument("--keep", action="store_true", help="keep the results of other cases that --out holds already")
    parser.add_argument(
        "--seconds", type=float, help=f"stop after that time; on a GPU {SECONDS_ON_GPU} unless given, otherwise never"
    )
    parser.add_argument("--wheels", type=Path, nargs="*", default=[], help="folders with wheels of missing packages")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; return 1 if a check failed, 2 without a GPU."""
    parser = _arguments()
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; --device cpu runs the same code on the CPU")
        return 2
    with importable(options.wheels):
        return _run_all(parser, options, device)


def _run_all(parser: argparse.ArgumentParser, options: argparse.Namespace, device: torch.device) -> int:
    on_gpu = device.type == "cuda"
    selected = [selection.partition("/")[::2] for selection in options.only or (ON_GPU if on_gpu else PARTS)]
    for part, pattern in selected:
        _check_pattern(parser, part, pattern)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = _kept(parser, options.out, device) if options.keep else []
    results: list[dict] = []

    def take(part: str, result: dict) -> None:
        results.append({"part": part, **result})
        fresh = {(other["part"], other["case"]) for other in results}
        others = [other for other in kept if (other["part"], other["case"]) not in fresh]
        write_json(options.out, {"machine": machine(device), "time": time.time(), "results": others + results})
        print(json.dumps(results[-1]), flush=True)

    limit = SECONDS_ON_GPU if on_gpu and options.seconds is None else options.seconds
    end = None if limit is None else time.monotonic() + limit
    for part, pattern in selected:
        seconds = None if end is None else end - time.monotonic()
        if seconds is not None and on_gpu and options.only is None:
            seconds = min(seconds, ON_GPU[part])
        try:
            with limited_to(seconds):
                for result in _run(part, pattern, device):
                    take(part, result)
        except OutOfTime:
            take(part, {"case": "the rest", "skipped": "out of time"})
    failed = [f"{result['part']}/{result['case']}" for result in results if not result.get("ok", True)]
    skipped = [f"{result['part']}/{result['case']} ({result['skipped']})" for result in results if "skipped" in result]
    print(f"{len(results) - len(skipped)} cases, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
    if skipped:
        print("skipped: " + ", ".join(skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
