"""The convolutions of ResNet-34 with factorized kernels: the planned path against every fixed one.

Contenders, all with the same factors: TensorizedConv along its planned path (``optimize="measure"``, the fastest of
a few on this device), along the path with the fewest multiply-adds ("auto"), the same equation from left to right,
TensorLy-Torch's "factorized" and "reconstructed" convolutions, and the dense convolution. The ranks are those that
TensorLy-Torch gives the parameter budget. Every contender runs in its better memory format. All gains are those of the
measured path; divide by the column "auto" for those of the default, ``optimize="auto"``.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import tensorly
import torch
from torch import Tensor, nn

from benchmarks.guarded import fitting, guarded
from benchmarks.interleaved import interleaved, seconds
from benchmarks.run import machine, write_json
from tt_conv import TensorizedConv
from tt_conv.kernels.tensorly import tensorly_torch

FORMATS = ("cp", "tucker", "tt")
BUDGETS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
MODES = ("inference", "training")
RIVALS = ("auto", "left_to_right", "factorized", "reconstructed", "dense")
TLTORCH = ("factorized", "reconstructed")
SMALL = 0.25
SLOWER = 0.95


@dataclass(frozen=True)
class Shape:
    """One distinct convolution of ResNet-34 on images of 224 x 224."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    size: int

    def __str__(self) -> str:
        return f"{self.in_channels}-{self.out_channels}-{self.kernel}x{self.kernel}s{self.stride}@{self.size}"


SHAPES = (
    Shape(3, 64, 7, 2, 224),
    Shape(64, 64, 3, 1, 56),
    Shape(64, 128, 3, 2, 56),
    Shape(64, 128, 1, 2, 56),
    Shape(128, 128, 3, 1, 28),
    Shape(128, 256, 3, 2, 28),
    Shape(128, 256, 1, 2, 28),
    Shape(256, 256, 3, 1, 14),
    Shape(256, 512, 3, 2, 14),
    Shape(256, 512, 1, 2, 14),
    Shape(512, 512, 3, 1, 7),
)
QUICK_SHAPES = (SHAPES[4], SHAPES[9], SHAPES[10])
QUICK_BUDGETS = (0.1, 0.5)


@dataclass(frozen=True)
class Settings:
    """What to run, and for how long."""

    shapes: Sequence[Shape] = SHAPES
    budgets: Sequence[float] = BUDGETS
    modes: Sequence[str] = MODES
    only: str = ""
    batch: int = 8
    seconds: float = 2.0
    optimize: str = "measure"


def names(settings: Settings) -> Iterator[tuple[str, Shape, str, float, str]]:
    """Yield the name of each case, and what it stands for."""
    for shape in settings.shapes:
        for factorization in FORMATS:
            for budget in settings.budgets:
                for mode in settings.modes:
                    name = f"{shape} {factorization} {budget:g} {mode}"
                    if all(word in name.split() or word in str(shape) for word in settings.only.split()):
                        yield name, shape, factorization, budget, mode


def factorized_kernel(shape: Shape, factorization: str, budget: float) -> nn.Module:
    """Return a factorized kernel with the ranks that TensorLy-Torch gives a budget, at least 1."""
    tltorch = tensorly_torch()
    kernel = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel)
    if factorization == "tt":
        kernel = (*kernel[1:], kernel[0])
    rank = budget
    if factorization == "cp":
        rank = max(1, tensorly.cp_tensor.validate_cp_rank(kernel, budget))
    empty = tltorch.FactorizedTensor.new(kernel, rank=rank, factorization=factorization)
    # Its own initialization is off by orders of magnitude for trains.
    layer = TensorizedConv.from_factorized(empty)
    layer.reset_parameters()
    return layer.to_factorized()


def contenders(weight: nn.Module, shape: Shape, optimize: str) -> dict[str, nn.Module]:
    """Return the modules that compute the same convolution."""
    tltorch = tensorly_torch()
    stride, padding = shape.stride, shape.kernel // 2

    def ours(optimize: str | bool) -> TensorizedConv:
        return TensorizedConv.from_factorized(weight, stride=stride, padding=padding, optimize=optimize)

    def theirs(implementation: str) -> nn.Module:
        return tltorch.FactorizedConv.from_factorization(
            ours(False).to_factorized(), implementation=implementation, stride=stride, padding=padding
        )

    planned = ours(optimize)
    rivals = {"auto": ours("auto"), "left_to_right": ours(False), **{name: theirs(name) for name in TLTORCH}}
    return {"planned": planned, **rivals, "dense": planned.to_conv()}


def call(module: nn.Module, x: Tensor, mode: str) -> Callable[[], Tensor]:
    """Return one inference, or one forward and backward step with all gradients."""
    if mode == "inference":
        module.eval()

        def infer() -> Tensor:
            with torch.no_grad():
                return module(x)

        return infer
    module.train()
    gradient = torch.ones_like(module(x).detach())

    def step() -> Tensor:
        x.grad = None
        module.zero_grad(set_to_none=True)
        y = module(x)
        y.backward(gradient)
        return y

    return step


def fastest_format(module: nn.Module, x: Tensor, mode: str, device: torch.device) -> tuple[str, Callable[[], Tensor]]:
    """Return the better memory format of a module's input, and the call in it, warmed up."""
    best: tuple[float, str, Callable[[], Tensor]] | None = None
    for name, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        # The image itself takes no gradient.
        laid = x.detach().clone(memory_format=memory_format).requires_grad_(x.shape[1] > 3)
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=memory_format)  # type: ignore[call-overload]
        run = call(module, laid, mode)
        run()
        run()
        took = median(seconds(run, device) for _ in range(3))
        if best is None or took < best[0]:
            best = (took, name, run)
    assert best is not None
    if isinstance(module, nn.Conv2d):
        last = torch.channels_last if best[1] == "nhwc" else torch.contiguous_format
        module.to(memory_format=last)  # type: ignore[call-overload]
    return best[1], best[2]


def run_case(
    name: str,
    shape: Shape,
    factorization: str,
    budget: float,
    mode: str,
    device: torch.device,
    settings: Settings,
) -> dict:
    """Measure one case."""
    torch.manual_seed(0)
    weight = factorized_kernel(shape, factorization, budget)
    modules = {key: module.to(device) for key, module in contenders(weight, shape, settings.optimize).items()}
    x = torch.randn(settings.batch, shape.in_channels, shape.size, shape.size, device=device)
    chosen = {key: fastest_format(module, x, mode, device) for key, module in modules.items()}
    runs = {key: run for key, (_, run) in chosen.items()}
    expected = runs["dense"]().detach()
    difference = max(float((run().detach() - expected).abs().max() / expected.abs().max()) for run in runs.values())
    times = interleaved(runs, device, budget=settings.seconds)
    planned = modules["planned"]
    assert isinstance(planned, TensorizedConv)
    return {
        "case": name,
        "shape": str(shape),
        "factorization": factorization,
        "budget": budget,
        "mode": mode,
        "rank": planned.rank,
        "batch": settings.batch,
        "path": planned.explain(x.shape, train=mode == "training").path,
        "format": {key: layout for key, (layout, _) in chosen.items()},
        "milliseconds": {key: 1e3 * value for key, value in times.items()},
        "gain": {key: times[key] / times["planned"] for key in RIVALS},
        "largest_relative_difference": difference,
        "ok": difference < 1e-3,
    }


def results(device: torch.device, settings: Settings, done: Iterable[str] = ()) -> Iterator[dict]:
    """Yield one result per case that is not done."""
    skipped = set(done)
    for name, shape, factorization, budget, mode in names(settings):
        if name not in skipped:
            with tensorly.backend_context("pytorch"):
                measure = partial(run_case, name, shape, factorization, budget, mode, device)
                result = guarded(name, partial(fitting, settings.batch, _with_batch(measure, settings)))
            yield result


def _with_batch(measure: Callable[[Settings], dict], settings: Settings) -> Callable[[int], dict]:
    return lambda batch: measure(replace(settings, batch=batch))


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per shape, format, budget and mode."""
    settings = Settings(batch=32, seconds=0.2) if device.type == "cuda" else Settings()
    if small:
        settings = Settings(shapes=[Shape(8, 8, 3, 1, 8)], budgets=QUICK_BUDGETS, batch=1, seconds=0.01)
    yield from results(device, settings, [name for name, *_ in names(settings) if not wanted(name)])


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def table(measured: Sequence[Mapping]) -> str:
    """Return geometric means of the gains, and the cases where the better fixed path is faster."""
    header = f"{'':34}{'cases':>6}" + "".join(f"{rival:>15}" for rival in RIVALS) + f"{'slower':>9}"
    lines = ["gain of the planned path over", header]
    groups: dict[str, list[Mapping]] = {}
    for result in measured:
        size = f"<= {SMALL:.0%}" if result["budget"] <= SMALL else f"> {SMALL:.0%}"
        for key in (
            "all",
            f"all {size}",
            f"{result['mode']}",
            f"{result['mode']} {size}",
            f"{result['mode']} {result['factorization']}",
            f"{result['mode']} {result['factorization']} {size}",
        ):
            groups.setdefault(key, []).append(result)
    for key in sorted(groups):
        group = groups[key]
        means = [geometric_mean([r["gain"][rival] for r in group]) for rival in RIVALS]
        share = sum(_is_slower(r) for r in group) / len(group)
        lines.append(f"{key:34}{len(group):>6}" + "".join(f"{m:>14.2f}x" for m in means) + f"{share:>8.1%}")
    lines.append(f"slower: below {SLOWER}x of the better of {' and '.join(TLTORCH)}:")
    slower = sorted(filter(_is_slower, measured), key=_against_tltorch)
    lines += [f"  {_against_tltorch(r):.2f}x  {r['case']}  rank {r['rank']}  path {r['path']}" for r in slower]
    return "\n".join(lines)


def plot(measured: Sequence[Mapping]) -> Any:
    """Return a figure of the gains over the dense convolution and over TensorLy-Torch's better one, by budget."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    gains: dict[str, Callable[[Mapping], float]] = {
        "the dense convolution": lambda result: result["gain"]["dense"],
        "the better of TensorLy-Torch": _against_tltorch,
    }
    for axes, (rival, gain) in zip(grid, gains.items(), strict=True):
        for number, factorization in enumerate(FORMATS):
            group = [result for result in measured if result["factorization"] == factorization]
            color = f"C{number}"
            shift = 1 + 0.12 * (number - 1)
            axes.plot(
                [r["budget"] * shift for r in group],
                [gain(r) for r in group],
                ".",
                color=color,
                alpha=0.4,
                markersize=4,
            )
            budgets = sorted({result["budget"] for result in group})
            means = [geometric_mean([gain(r) for r in group if r["budget"] == budget]) for budget in budgets]
            axes.plot([budget * shift for budget in budgets], means, "o-", color=color, label=factorization)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="share of the dense parameters", title=f"gain over {rival}")
        axes.set_xticks(BUDGETS, [f"{budget:.0%}" for budget in BUDGETS])
        axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("speed (below the line: slower)")
    grid[0].legend(frameon=False, title="geometric mean of")
    return figure


def _against_tltorch(result: Mapping) -> float:
    return min(result["gain"][rival] for rival in TLTORCH)


def _is_slower(result: Mapping) -> bool:
    return _against_tltorch(result) < SLOWER


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases asked for, write each as it ends, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.conv_einsum.factorized_convolutions", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="three shapes, two budgets, shorter timings")
    parser.add_argument("--only", default="", help='words that a case must have, such as "cp training 3x3"')
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="per case")
    parser.add_argument("--optimize", default="measure", help="of the planned path, such as auto or measure")
    parser.add_argument("--out", type=Path, default=Path("build/factorized_convolutions.json"))
    parser.add_argument("--resume", action="store_true", help="keep the results in --out and do the rest")
    parser.add_argument("--table", action="store_true", help="print the table of --out and stop")
    options = parser.parse_args(arguments)
    kept: list[dict] = []
    if (options.resume or options.table) and options.out.exists():
        kept = json.loads(options.out.read_text())["results"]
    if not options.table:
        device = torch.device(options.device)
        settings = Settings(
            only=options.only,
            batch=options.batch,
            seconds=options.seconds,
            optimize=options.optimize,
        )
        if options.quick:
            settings = replace(settings, shapes=QUICK_SHAPES, budgets=QUICK_BUDGETS)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for result in results(device, settings, [result["case"] for result in kept]):
            kept.append(result)
            command = f"python -m benchmarks.conv_einsum.factorized_convolutions {' '.join(arguments or sys.argv[1:])}"
            settings_of_run = {"machine": machine(device), "time": time.time(), "command": command}
            write_json(options.out, {**settings_of_run, "results": kept})
            gains = "  ".join(f"{rival} {gain:.2f}x" for rival, gain in result["gain"].items())
            print(f"{result['case']:44}  {gains}", flush=True)
    print(table(kept))


if __name__ == "__main__":
    main()
