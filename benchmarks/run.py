"""Checks and benchmarks of a device: ``make bench`` on the CPU, ``make bench-gpu`` and its sisters on a GPU.

A part is a module with ``cases(device)``, which yields one result, a dict with a ``case``, as each case ends. Its
``cases`` may take more, each by its name: ``wanted``, a function from the name of a case to a bool, so that some cases
can be run alone; ``small``, to run everything at a size that shows no more than that it runs; ``folder``, where it may
keep files; ``digits``, a folder with IDX files. A part that fails, or lacks a package, does not stop the others. With
``--seconds`` no part starts or goes on after that time; what was left out is named. ``--resume`` goes on where a run
into the same file stopped: cases that ended well are not repeated.
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
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.guarded import NEEDS_CUDA, OutOfTime, failure

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
    "video_prediction_frontier": "benchmarks.video_prediction.frontier",
    "recognition": "benchmarks.recognition.accuracy",
    "trained_kernels": "benchmarks.decomposition.trained_kernels",
    "factorized_convolutions": "benchmarks.conv_einsum.factorized_convolutions",
    "compression": "benchmarks.compression.pretrained",
    "long_training": "benchmarks.video_prediction.long_training",
}

SECONDS_ON_GPU = 500
"""What a run on a GPU takes at most, unless --seconds says otherwise: nine minutes with its start."""

# What a GPU is asked, in runs that are worth having alone. In each, checks come first, then what says most; a part
# makes room for the next after its seconds.
SERIES: dict[str, dict[str, int]] = {
    "engine": {"golden": 30, "recurrence_checks": 70, "conv_einsum": 60, "recurrence": SECONDS_ON_GPU},
    "paths": {
        "conv_tt_programs": 60,
        "factorized_convolutions": 240,
        "conv_einsum_overhead": 20,
        "decomposition_noise": 60,
        "precision": 120,
    },
    "training": {"long_training": SECONDS_ON_GPU},
}
ONLY_ON_REQUEST = ("long_training",)
"""Parts that take hours without a GPU."""


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


_PLATFORM = (sys.platform, platform.machine())


def runs_here(wheel: str) -> bool:
    """Say whether a wheel is for this Python and this kind of machine, by its name."""
    pythons, abis, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    major, minor = sys.version_info[:2]
    if platforms != "any":
        system, processor = _PLATFORM
        names = [name for name in platforms.split(".") if "musl" not in name]
        if not any(system in name and name.endswith(processor) for name in names):
            return False
    for python in pythons.split("."):
        if python in ("py3", f"py{major}{minor}", f"cp{major}{minor}"):
            return True
        # The stable interface of a version serves all later ones.
        if "abi3" in abis.split(".") and python.startswith(f"cp{major}"):
            return int(python.removeprefix(f"cp{major}") or 0) <= minor
    return False


@contextmanager
def importable(folders: Sequence[Path]) -> Iterator[None]:
    """Let imports find what this Python lacks in folders of wheels; those for others are named and left out."""
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in sorted(wheel for folder in folders for wheel in folder.glob("*.whl")):
            if not runs_here(wheel.name):
                print(
                    f"left out {wheel.name}: it is not for Python {platform.python_version()} on {' '.join(_PLATFORM)}"
                )
                continue
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        sys.path.append(unpacked)
        try:
            yield
        finally:
            sys.path.remove(unpacked)


Offer = Mapping[str, Any]


def _run(part: str, device: torch.device, offered: Offer) -> Iterator[dict]:
    """Yield the results of a part, called with what it takes of what is offered."""
    try:
        cases: Callable[..., Iterator[dict]] = importlib.import_module(PARTS[part]).cases
    except ModuleNotFoundError as error:
        yield {"case": "all", "skipped": f"no module named {error.name}"}
        return
    taken = inspect.signature(cases).parameters
    try:
        yield from cases(device, **{name: value for name, value in offered.items() if name in taken})
    except Exception as error:
        yield failure(THE_REST, error)


THE_REST = "the rest"


def ended_well(result: Mapping[str, Any]) -> bool:
    """Say whether there is no reason to repeat a case on the same machine."""
    return result.get("ok", True) and result.get("skipped", NEEDS_CUDA) == NEEDS_CUDA


def _check_pattern(parser: argparse.ArgumentParser, part: str, pattern: str) -> None:
    if part not in PARTS:
        parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    if pattern and "wanted" not in inspect.signature(importlib.import_module(PARTS[part]).cases).parameters:
        parser.error(f"the cases of {part} can't be selected; use --only {part}")


def _kept(parser: argparse.ArgumentParser, path: Path, about: Mapping[str, Any]) -> list[dict]:
    if not path.exists():
        return []
    written = json.loads(path.read_text())
    if written["machine"] != about:
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
    parser.add_argument("--series", choices=SERIES, help="what a GPU is asked in one run (without --only)")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.json"), help="JSON file for the results")
    parser.add_argument("--keep", action="store_true", help="keep the results of other cases that --out holds already")
    parser.add_argument("--resume", action="store_true", help="as --keep, and leave out the cases that ended well")
    parser.add_argument("--small", action="store_true", help="run all of it at a size that ends soon and says little")
    parser.add_argument("--digits", type=Path, help="folder with IDX files of MNIST for the long training")
    parser.add_argument(
        "--seconds", type=float, help=f"stop after that time; on a GPU {SECONDS_ON_GPU} unless given, otherwise never"
    )
    parser.add_argument("--wheels", type=Path, nargs="*", default=[], help="folders with wheels of missing packages")
    return parser


def _is_wanted(part: str, pattern: str, done: Set[tuple[str, str]], case: str) -> bool:
    return (part, case) not in done and fnmatch.fnmatch(case, pattern or "*")


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
    series = SERIES[options.series or "engine"] if options.series or on_gpu else None
    usual = series or [part for part in PARTS if part not in ONLY_ON_REQUEST]
    selected = [selection.partition("/")[::2] for selection in options.only or usual]
    for part, pattern in selected:
        _check_pattern(parser, part, pattern)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    about = {**machine(device), **({"size": "small"} if options.small else {})}
    kept = _kept(parser, options.out, about) if options.keep or options.resume else []
    if options.resume:
        kept = [result for result in kept if ended_well(result) or "skipped" not in result]
    done = {(result["part"], result["case"]) for result in kept if options.resume and ended_well(result)}
    results: list[dict] = []

    def take(part: str, result: dict) -> None:
        results.append({"part": part, **result})
        fresh = {(other["part"], other["case"]) for other in results}
        others = [other for other in kept if (other["part"], other["case"]) not in fresh]
        write_json(options.out, {"machine": about, "time": time.time(), "results": others + results})
        print(json.dumps(results[-1]), flush=True)

    limit = SECONDS_ON_GPU if on_gpu and options.seconds is None else options.seconds
    end = None if limit is None else time.monotonic() + limit
    for part, pattern in selected:
        seconds = None if end is None else end - time.monotonic()
        if seconds is not None and series is not None and options.only is None:
            seconds = min(seconds, series[part])
        offered = {"wanted": partial(_is_wanted, part, pattern, done), "small": options.small}
        offered |= {"folder": options.out.parent, "digits": options.digits}
        try:
            with limited_to(seconds):
                for result in _run(part, device, offered):
                    take(part, result)
        except OutOfTime:
            take(part, {"case": THE_REST, "skipped": "out of time"})
    if done:
        print(f"{len(done)} cases that ended well before were left out")
    failed = [f"{result['part']}/{result['case']}" for result in results if not result.get("ok", True)]
    skipped = [f"{result['part']}/{result['case']} ({result['skipped']})" for result in results if "skipped" in result]
    print(f"{len(results) - len(skipped)} cases, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
    if skipped:
        print("skipped: " + ", ".join(skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
