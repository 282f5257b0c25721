"""Why ConvTT-LSTM stays behind ConvLSTM under a small budget.

The task, the budget and the seeds are those of the benchmark of quality, 600 steps. Its two networks stand first; each
other row changes one thing, to see what closes the gap or widens it:

- *factors learn half as fast*: the learning rate of the Conv-TT's projections and cores (and its biases) is halved;
  with *rank 16* as well as with rank 8. (Rank 16 at the full rate is in the benchmark of quality.)
- *factors start smaller*: the newest core starts at half its values, and so does the dense kernel.
- *factors start centred*: projections and inner cores start as orthogonal mixtures of channels without a spatial
  extent, so that the dense kernels start as wide as the last core, 3 x 3, instead of 5 x 5 to 9 x 9.
- *full rank*: order 1, one step, rank 32: two convolutions in a row that can represent every ConvLSTM of kernels of
  3 x 3 exactly, with more parameters. What it loses against ConvLSTM is lost to the training of factors, not to rank.
- *ConvLSTM with kernels of 5 x 5*: as wide as the narrowest kernels of the Conv-TT.

MSE (x 1e-3, per pixel) and SSIM as in the benchmark of quality: means over three seeds and, behind them, the standard
deviation between them. ``gap`` is the mean over the seeds of the difference of MSE to ConvLSTM of the same seed.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.video_prediction.quality import (
    BATCH,
    GIVEN,
    GROWTH,
    LEARNING_RATE,
    SEEDS,
    STEPS,
    model_settings,
    scores,
    sequences,
    spread,
)
from tt_conv import ConvTT
from tt_conv.applications.training.module import one_cycle
from tt_conv.applications.video_prediction.module import FramePrediction, start_at_mean
from tt_conv.applications.video_prediction.open_data import build_model

BASELINE = "ConvLSTM"


@dataclass(frozen=True)
class Variant:
    """What a row changes: the architecture, the share of the learning rate for the factors, and their start."""

    options: Mapping[str, object]
    rate: float = 1.0
    start: str = ""


FULL_RANK = {"order": 1, "steps": 1, "rank": 32}
VARIANTS: Mapping[str, Variant] = {
    BASELINE: Variant({"cell": "conv_lstm"}),
    "ConvTT-LSTM": Variant({}),
    "  factors learn half as fast": Variant({}, rate=0.5),
    "  rank 16, half as fast": Variant({"rank": 16}, rate=0.5),
    "  factors start smaller": Variant({}, start="smaller"),
    "  factors start centred": Variant({}, start="centred"),
    "  full rank": Variant(FULL_RANK),
    "  full rank, half as fast": Variant(FULL_RANK, rate=0.5),
    "ConvLSTM, kernels of 5 x 5": Variant({"cell": "conv_lstm", "kernel_size": 5}),
}


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per variant and seed."""
    jobs = [(name, seed) for seed in range(SEEDS) for name in VARIANTS if wanted(_case(name, seed))]
    if device.type != "cpu":
        yield from (train(*job, str(device)) for job in jobs)
        return
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as processes:
        for finished in as_completed([processes.submit(train, *job) for job in jobs]):
            yield finished.result()


def _case(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def train(name: str, seed: int, device: str = "cpu", steps: int = STEPS) -> dict:
    """Train and test one variant."""
    torch.set_num_threads(1)
    variant, data = VARIANTS[name], sequences("train", steps * BATCH, seed)
    model = build_model(model_settings(variant.options), 1, seed)
    torch.manual_seed(seed)
    factors = [module for module in model.modules() if isinstance(module, ConvTT)]
    for conv in factors:
        start(conv, variant.start)
    start_at_mean(model, torch.stack([data[number] for number in range(16)]))
    model.to(device)
    task = FramePrediction(
        model, given=GIVEN, steps=steps, loss="cross_entropy", growth=GROWTH, learning_rate=LEARNING_RATE
    )
    slow = [parameter for conv in factors for parameter in conv.parameters()]
    fast = [parameter for parameter in model.parameters() if all(parameter is not other for other in slow)]
    groups = [(fast, LEARNING_RATE), (slow, variant.rate * LEARNING_RATE)][: 2 if slow else 1]
    optimizer = torch.optim.Adam([{"params": parameters} for parameters, _ in groups])
    schedule = one_cycle(optimizer, [rate for _, rate in groups], steps)
    for step, batch in enumerate(DataLoader(data, batch_size=BATCH)):
        optimizer.zero_grad()
        task.loss(batch.to(device), step / steps).backward()
        task.configure_gradient_clipping()
        optimizer.step()
        schedule.step()
    return {
        "case": _case(name, seed),
        "model": name,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **scores(model, torch.device(device)),
    }


@torch.no_grad()
def start(conv: ConvTT, how: str) -> None:
    """Change the start of a Conv-TT."""
    if how == "smaller":
        conv.cores[-1].mul_(0.5)
    if how == "centred":
        for factor in (*conv.projections, *conv.cores[:-1]):
            mixture = torch.empty(len(factor), factor[0].numel() // (factor.shape[-1] * factor.shape[-2]))
            nn.init.orthogonal_(mixture)
            factor.zero_()
            factor[..., factor.shape[-2] // 2, factor.shape[-1] // 2] = mixture.view(factor.shape[:-2])


def table(results: Sequence[Mapping]) -> str:
    """Return one line per variant: means over the seeds, and their spread."""
    base = {result["seed"]: result["mse"] for result in results if result["model"] == BASELINE}
    lines = [f"{'':<30}{'parameters':>11}{'MSE x 1e-3':>16}{'gap':>8}{'SSIM':>16}"]
    for name in VARIANTS:
        runs = [result for result in results if result["model"] == name]
        if not runs:
            continue
        gaps = [1e3 * (run["mse"] - base[run["seed"]]) for run in runs if run["seed"] in base]
        gap = "-" if name == BASELINE or not gaps else f"{statistics.fmean(gaps):+.2f}"
        lines.append(
            f"{name:<30}{runs[0]['parameters']:>11,}{spread(runs, 'mse', 1e3, 2):>16}{gap:>8}"
            f"{spread(runs, 'ssim', 1, 3):>16}"
        )
    return "\n".join(lines)
