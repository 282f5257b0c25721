"""Loss curves in three precisions.

A ConvTT-LSTM (one layer of 32 hidden channels, order 3, 3 steps, rank 8, kernels of 3 x 3, patches of 4 x 4 pixels)
learns to predict one moving MNIST digit on 64 x 64 pixels, 8 frames given and 4 to predict, by Adam on the binary
cross-entropy of all outputs. fp32, bf16 autocast, and fp16 autocast with a ``GradScaler`` start from the same weights
and see the same sequences; two seeds, at two learning rates. Losses are means over 10 steps, ``held-out`` those of 64
sequences of digits that no training saw, evaluated in the precision of the training. ``skipped`` counts the steps that
the scaler left out because a gradient overflowed; it starts from PyTorch's scale of 65536. ``time`` is over that of
fp32, forward and backward on one thread; a CPU without instructions for fp16 computes it by way of fp32.

The learning rate is constant and the losses soon reach a plateau, where small differences decide which way a training
goes on: a curve that leaves the plateau upwards is one that became unstable there. Two seeds are too few to say whether
low precision makes that more likely; a smaller rate is safer in any precision.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.guarded import guarded
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.layers import FramePredictor

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RATES = (1e-3, 3e-3)
SEEDS, STEPS, BATCH = 2, 300, 4
GIVEN, FUTURE = 8, 4
TEST_SEQUENCES = 64
TOGETHER = 10


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per learning rate, seed and precision."""
    torch.set_num_threads(1)
    for rate, seed, precision in itertools.product(RATES, range(SEEDS), PRECISIONS):
        case = f"{precision}, seed {seed}, rate {rate:g}"
        if wanted(case):
            yield guarded(case, partial(train, precision, seed, rate, device, TOGETHER if small else STEPS))


def train(precision: str, seed: int, rate: float, device: torch.device, steps: int = STEPS) -> dict[str, Any]:
    """Train one network and return its losses."""
    torch.manual_seed(seed)
    model = FramePredictor(1, (32,), (1,), kernel_size=3, skip_stride=None, patch_size=4).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    sequences = MovingMNIST("train", steps * BATCH, frames=GIVEN + FUTURE, digits=1, speed=0.05, seed=seed)
    losses, skipped, seconds = [], 0, 0.0
    for frames in DataLoader(sequences, batch_size=BATCH):
        frames = frames.to(device)
        start = _now(device)
        optimizer.zero_grad()
        loss = _loss(model, frames, precision)
        scaler.scale(loss).backward()
        seconds += _now(device) - start
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < scale
        losses.append(loss.item())
    return {
        "precision": precision,
        "seed": seed,
        "rate": rate,
        "losses": [sum(losses[n : n + TOGETHER]) / TOGETHER for n in range(0, steps, TOGETHER)],
        "held-out": _held_out(model, precision, device),
        "skipped steps": skipped,
        "seconds": seconds,
    }


def _now(device: torch.device) -> float:
    """Return a time in seconds: on a GPU the clock's, after all work that was started, on a CPU the process's."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _loss(model: FramePredictor, frames: Tensor, precision: str) -> Tensor:
    """Return the cross-entropy of the predictions of frames 2, 3, ..., itself in fp32."""
    dtype = PRECISIONS[precision]
    with torch.autocast(frames.device.type, dtype, enabled=precision != "fp32"):
        logits = model(frames[:, :GIVEN], FUTURE)
    return F.binary_cross_entropy_with_logits(logits.float(), frames[:, 1:])


@torch.no_grad()
def _held_out(model: FramePredictor, precision: str, device: torch.device) -> float:
    sequences = MovingMNIST("test", TEST_SEQUENCES, frames=GIVEN + FUTURE, digits=1, speed=0.05, seed=0)
    losses = [_loss(model, frames.to(device), precision).item() for frames in DataLoader(sequences, batch_size=16)]
    return sum(losses) / len(losses)


def table(results: Sequence[Mapping]) -> str:
    """Return a line per learning rate, seed and precision, and per case that failed."""
    failed = [f"{result['case']} failed: {result['error']}" for result in results if "error" in result]
    results = _trained(results)
    lines = [f"{'':<27}{'first':>9}{'middle':>9}{'last':>9}{'held-out':>10}{'skipped':>9}{'time':>7}"]
    seconds = {(r["rate"], r["seed"]): r["seconds"] for r in results if r["precision"] == "fp32"}
    for result in results:
        losses, same = result["losses"], (result["rate"], result["seed"])
        lines.append(
            f"rate {result['rate']:<7g} seed {result['seed']}, {result['precision']:<6}"
            + "".join(f"{loss:>9.4f}" for loss in (losses[0], losses[len(losses) // 2], losses[-1]))
            + f"{result['held-out']:>10.4f}{result['skipped steps']:>9}"
            + (f"{result['seconds'] / seconds[same]:>7.2f}" if same in seconds else "")
        )
    return "\n".join([*lines, *failed])


def _trained(results: Sequence[Mapping]) -> list[Mapping]:
    """Return the results without those of cases that failed or were left out."""
    return [result for result in results if "losses" in result]


def plot(results: Sequence[Mapping]) -> Any:
    """Return the curves, a panel per learning rate and seed."""
    from matplotlib.figure import Figure

    results = _trained(results)
    rates, seeds = (sorted({result[key] for result in results}) for key in ("rate", "seed"))
    figure = Figure(figsize=(9, 3.2 * len(rates)), layout="constrained")
    axes = figure.subplots(len(rates), len(seeds), sharex=True, sharey=True, squeeze=False)
    styles = {"fp32": "-", "bf16": "--", "fp16": ":"}
    for result in results:
        panel = axes[rates.index(result["rate"])][seeds.index(result["seed"])]
        steps = [TOGETHER * (n + 1) for n in range(len(result["losses"]))]
        panel.plot(steps, result["losses"], styles[result["precision"]], label=result["precision"])
        panel.set(title=f"learning rate {result['rate']:g}, seed {result['seed']}", yscale="log")
    for panel in axes.flat:
        panel.grid(alpha=0.3, which="both")
    for panel in axes[-1]:
        panel.set_xlabel("optimizer step")
    for row in axes:
        row[0].set_ylabel("cross-entropy")
    axes[0][0].legend()
    return figure
