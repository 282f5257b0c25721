"""Quality of frame prediction under a small budget.

Every network learns the same task with the same few optimizer steps: one real MNIST digit that moves over 64 x 64
pixels, 8 frames given, 4 to predict; a single recurrent layer of 32 hidden channels, kernels of 3 x 3, patches of 4 x 4
pixels; Adam, one cycle, cross-entropy over all outputs, a future that grows from one frame to all. The rows differ in
the cell only. The first ConvTT-LSTM is the default (order 3, 3 steps, rank 8, sliding window); the rows below it change
one thing. Each is trained from three seeds, which set the weights and the sequences; a row shows the mean over the
seeds and, behind it, the standard deviation between them.

MSE (x 1e-3, per pixel) and SSIM are means over the 4 predicted frames of 256 held-out sequences of digits that no
training saw. ``beaten`` says in how many of the three seeds the MSE is no higher than ConvLSTM's. ``time`` is the
processor time of the training over that of ConvLSTM (medians over the seeds), one thread each, two trainings at a time.

ConvLSTM and the default ConvTT-LSTM are also trained for three times as many steps, which tells whether a difference
is one of what they can learn or of how fast they do.

The budget is a tiny share of a full training: the table compares cells with each other under it, and says nothing
about how they compare after a training of full length.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch
from torch.utils.data import DataLoader

from tt_conv.applications.video_prediction.baselines import copy_last
from tt_conv.applications.video_prediction.metrics import FrameMetrics
from tt_conv.applications.video_prediction.module import FramePrediction, start_at_mean
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.applications.video_prediction.open_data import build_model
from tt_conv.applications.video_prediction.settings import ModelSettings
from tt_conv.layers import FramePredictor

STEPS, BATCH, SEEDS, TEST_SEQUENCES = 600, 4, 3, 256
GIVEN, FUTURE = 8, 4
LEARNING_RATE, GROWTH = 1e-2, 0.7
COPY, BASELINE = "copy the last frame", "ConvLSTM"
MODELS: Mapping[str, Mapping[str, Any]] = {
    BASELINE: {"cell": "conv_lstm"},
    "ConvTT-LSTM": {},
    "  input_rank 8": {"input_rank": 8},
    "  order 1": {"order": 1, "steps": 3},
    "  order 2": {"order": 2, "steps": 3},
    "  5 steps": {"steps": 5},
    "  rank 4": {"rank": 4},
    "  rank 16": {"rank": 16},
    "  fixed window": {"window": "fixed"},
}
# Steps -> the models that are trained for as many.
BUDGETS: Mapping[int, Sequence[str]] = {STEPS: tuple(MODELS), 3 * STEPS: (BASELINE, "ConvTT-LSTM")}


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per model and seed, and one for the copied frame."""
    every = [(name, seed, steps) for steps, names in BUDGETS.items() for seed in range(SEEDS) for name in names]
    jobs = [job for job in every if wanted(_case(*job))]
    if wanted(COPY):
        yield {"case": COPY, "model": COPY, **scores(copy_last, torch.device("cpu"))}
    if device.type != "cpu":
        yield from (train(*job, str(device)) for job in jobs)
        return
    # Each network keeps one core busy, not several.
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as processes:
        for finished in as_completed([processes.submit(train, *job) for job in jobs]):
            yield finished.result()


def _case(name: str, seed: int, steps: int) -> str:
    return f"{name}, {steps} steps, seed {seed}"


def train(name: str, seed: int, steps: int = STEPS, device: str = "cpu") -> dict:
    """Train and test one network."""
    torch.set_num_threads(1)
    data = sequences("train", steps * BATCH, seed)
    model = build_model(model_settings(MODELS[name]), 1, seed)
    start_at_mean(model, torch.stack([data[number] for number in range(16)]))
    model.to(device)
    task = FramePrediction(
        model, given=GIVEN, steps=steps, loss="cross_entropy", growth=GROWTH, learning_rate=LEARNING_RATE
    )
    (optimizer,), (scheduled,) = task.configure_optimizers()
    seconds = 0.0
    for step, batch in enumerate(DataLoader(data, batch_size=BATCH)):
        start = time.process_time()
        optimizer.zero_grad()
        task.loss(batch.to(device), step / steps).backward()
        task.configure_gradient_clipping()
        optimizer.step()
        scheduled["scheduler"].step()
        seconds += time.process_time() - start
    return {
        "case": _case(name, seed, steps),
        "model": name,
        "seed": seed,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": model.macs((64, 64)),
        "seconds": seconds,
        **scores(model, torch.device(device)),
    }


def model_settings(options: Mapping[str, Any]) -> ModelSettings:
    """The network of all rows, but for the options of one."""
    common: dict[str, Any] = {"hidden_channels": [32], "layers_per_block": [1], "kernel_size": 3, "patch_size": 4}
    return ModelSettings(**(common | dict(options)))


def sequences(split: Any, length: int, seed: int) -> MovingMNIST:
    """The task: one digit that moves over 64 x 64 pixels."""
    return MovingMNIST(split, length, frames=GIVEN + FUTURE, digits=1, speed=0.05, seed=seed)


@torch.inference_mode()
def scores(predictor: Callable | FramePredictor, device: torch.device) -> dict[str, float]:
    """Means over the predicted frames of the held-out sequences."""
    gathered = FrameMetrics()
    for batch in DataLoader(sequences("test", TEST_SEQUENCES, 0), batch_size=32):
        predicted = predictor(batch[:, :GIVEN].to(device), FUTURE)[:, -FUTURE:].cpu()
        gathered.update(predicted, batch[:, GIVEN:])
    values = gathered.compute()
    return {metric: statistics.fmean(values[metric]) for metric in ("mse", "mae", "ssim")}


def table(results: Sequence[Mapping]) -> str:
    """Return a block for each budget and in it one line per model: means over the seeds, and their spread."""
    copied = [result for result in results if result["model"] == COPY]
    blocks = [_block([run for run in results if run.get("steps") == steps], steps, copied) for steps in BUDGETS]
    return "\n\n".join(block for block in blocks if block)


def _block(results: Sequence[Mapping], steps: int, copied: Sequence[Mapping]) -> str:
    if not results:
        return ""
    lines = [f"{steps} steps of {BATCH} sequences each"]
    lines += [f"{'':<22}{'parameters':>11}{'M MACs':>8}{'MSE x 1e-3':>16}{'SSIM':>16}{'beaten':>8}{'time':>7}"]
    lines += [f"{COPY:<22}{'-':>11}{'-':>8}{spread(copied, 'mse', 1e3, 2):>16}{spread(copied, 'ssim', 1, 3):>16}"][
        : len(copied)
    ]
    rows = {name: [result for result in results if result["model"] == name] for name in MODELS}
    base = {result["seed"]: result for result in rows[BASELINE]}
    for name, runs in rows.items():
        if not runs:
            continue
        beaten = sum(run["mse"] <= base[run["seed"]]["mse"] for run in runs if run["seed"] in base)
        share = f"{_median(runs) / _median(rows[BASELINE]):.2f}" if rows[BASELINE] else "-"
        lines.append(
            f"{name:<22}{runs[0]['parameters']:>11,}{runs[0]['macs'] / 1e6:>8.1f}{spread(runs, 'mse', 1e3, 2):>16}"
            f"{spread(runs, 'ssim', 1, 3):>16}{'-' if name == BASELINE else f'{beaten} of {len(runs)}':>8}{share:>7}"
        )
    return "\n".join(lines)


def _median(runs: Sequence[Mapping]) -> float:
    return statistics.median(run["seconds"] for run in runs)


def spread(runs: Sequence[Mapping], metric: str, scale: float, digits: int) -> str:
    """The mean over runs and, behind it, the standard deviation between them."""
    values = [scale * run[metric] for run in runs]
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure of the MSE of every model, a point per seed and a line at the mean, one panel per budget."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(1, len(BUDGETS), figsize=(10, 3.8), sharey=True, layout="constrained")
    names = list(MODELS)
    for axes, steps in zip(grid, BUDGETS, strict=True):
        for place, name in enumerate(names):
            values = [1e3 * run["mse"] for run in results if run["model"] == name and run.get("steps") == steps]
            axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.6)
            if values:
                axes.plot(statistics.fmean(values), place, "|", color="black", markersize=16)
                if name == BASELINE:
                    axes.axvline(statistics.fmean(values), color="gray", linewidth=0.8, linestyle="--")
        axes.set(title=f"{steps} steps", xlabel="MSE x 1e-3 (a point per seed, a line at the mean)")
        axes.grid(alpha=0.3, axis="x")
    grid[0].set_yticks(range(len(names)), [name.strip() for name in names])
    grid[0].invert_yaxis()
    return figure
