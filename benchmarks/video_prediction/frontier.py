"""Error against size: ConvLSTM, ConvTT-LSTM from scratch, and ConvTT-LSTM begun dense.

The task is that of :doc:`video_prediction`: one real MNIST digit that moves over 64 x 64 pixels, 8 frames given, 4 to
predict, 600 steps of 4 sequences. Every network has one recurrent layer with kernels of 3 x 3 and patches of 4 x 4
pixels, in several widths; the ConvTT-LSTM has order 3, 3 steps and rank 8. They are trained as ``tt-conv train`` does
(Adam, one cycle up to 0.01, cross-entropy over all outputs, a future that grows from one frame to all over 0.7 of the
training), each row from the same seeds, which set the weights and the sequences. ``begun dense`` is
``training.dense_start: 0.25``: a ConvLSTM of the same width for the first 150 steps, then the ConvTT-LSTM that it is
converted to for the other 450. The learning rate was not tuned for any of the rows.

A row shows the mean over the seeds that the file holds (column ``seeds``) of the MSE (x 1e-3, per pixel) of the 4
predicted frames of 256 held-out sequences of digits that no training saw, the standard deviation between the seeds
behind it, and the worst of them. ``time`` is the processor time of the training, conversion included, over that of
the ConvLSTM of 32 channels (medians over the seeds), one thread each, on a machine that did other things too.

The budget is a tiny share of a full training: the curves compare the three under it, and say nothing about a training
of full length.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.video_prediction.quality import (
    BATCH,
    FUTURE,
    GIVEN,
    GROWTH,
    LEARNING_RATE,
    STEPS,
    model_settings,
    scores,
    spread,
)
from tt_conv.applications.training import load_trained, run_training
from tt_conv.applications.video_prediction.settings import DataSettings, Settings, TrainingSettings

SEEDS, SMALL_STEPS = 5, 4
DENSE_START = 0.25
CONV_LSTM, SCRATCH, DENSE = "ConvLSTM", "ConvTT-LSTM from scratch", "ConvTT-LSTM begun dense"
# The ConvTT-LSTMs are about as large as the ConvLSTMs before them, but for the smallest.
WIDTHS: Mapping[str, Sequence[int]] = {CONV_LSTM: (18, 25, 32, 44), SCRATCH: (20, 32, 42, 56), DENSE: (20, 32, 42, 56)}
BASELINE = (CONV_LSTM, 32)


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per model, width and seed."""
    every = [(name, width, seed) for seed in range(SEEDS) for name, widths in WIDTHS.items() for width in widths]
    steps = SMALL_STEPS if small else STEPS
    jobs = [(*job, steps, device.type) for job in every if wanted(_case(*job))]
    if device.type != "cpu":
        yield from (train(*job) for job in jobs)
        return
    # Each network keeps one core busy, not several.
    processes = min(2, int(os.environ.get("OMP_NUM_THREADS", 2)), os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        for finished in as_completed([executor.submit(train, *job) for job in jobs]):
            yield finished.result()


def _case(name: str, width: int, seed: int) -> str:
    return f"{name}, {width} channels, seed {seed}"


def train(name: str, width: int, seed: int, steps: int = STEPS, device: str = "cpu") -> dict:
    """Train and test one network."""
    torch.set_num_threads(1)
    settings = recipe(name, width, seed, steps, device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        run_training(settings, Path(folder) / "run")
        seconds = time.process_time() - start
        model = load_trained(Path(folder) / "run" / "last.ckpt").model
    return {
        "case": _case(name, width, seed),
        "model": name,
        "width": width,
        "seed": seed,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": model.macs((64, 64)),
        "seconds": seconds,
        **scores(model, torch.device("cpu")),
    }


def recipe(name: str, width: int, seed: int, steps: int = STEPS, device: str = "cpu") -> Settings:
    """The training of a row from a seed."""
    cell = "conv_lstm" if name == CONV_LSTM else "conv_tt_lstm"
    return Settings(
        DataSettings(
            given=GIVEN, future=FUTURE, digits=1, speed=0.05, sequences=steps * BATCH, validation_sequences=8, seed=seed
        ),
        model_settings({"cell": cell, "hidden_channels": [width], "skip_stride": None}),
        TrainingSettings(
            epochs=1,
            batch_size=BATCH,
            loss="cross_entropy",
            optimizer="adam",
            learning_rate=LEARNING_RATE,
            growth=GROWTH,
            start_at_mean=True,
            dense_start=DENSE_START if name == DENSE else 0.0,
            pictures_every=0,
            seed=seed,
            accelerator="cpu" if device == "cpu" else "gpu",
        ),
    )


def table(results: Sequence[Mapping]) -> str:
    """Return a block for each model and in it one line per width: means over the seeds, and their spread."""
    baseline = [result for result in results if (result["model"], result["width"]) == BASELINE]
    lines = [
        f"{'':<26}{'width':>6}{'parameters':>11}{'M MACs':>8}{'MSE x 1e-3':>16}{'worst':>8}{'SSIM':>16}"
        f"{'seeds':>7}{'time':>7}"
    ]
    for name, widths in WIDTHS.items():
        for width in widths:
            runs = [result for result in results if (result["model"], result["width"]) == (name, width)]
            if not runs:
                continue
            share = f"{_median(runs) / _median(baseline):.2f}" if baseline else "-"
            lines.append(
                f"{name:<26}{width:>6}{runs[0]['parameters']:>11,}{runs[0]['macs'] / 1e6:>8.1f}"
                f"{spread(runs, 'mse', 1e3, 2):>16}{1e3 * max(run['mse'] for run in runs):>8.2f}"
                f"{spread(runs, 'ssim', 1, 3):>16}{len(runs):>7}{share:>7}"
            )
    return "\n".join(lines)


def _median(runs: Sequence[Mapping]) -> float:
    return statistics.median(run["seconds"] for run in runs)


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure of the MSE against parameters, multiply-adds and training time: a line through the means."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True, layout="constrained")
    sizes: dict[str, Callable[[Mapping], float]] = {
        "parameters": lambda run: run["parameters"],
        "million multiply-adds per frame": lambda run: run["macs"] / 1e6,
        "processor seconds of training": lambda run: run["seconds"],
    }
    for axes, (label, size) in zip(panels, sizes.items(), strict=True):
        for name in WIDTHS:
            runs = [result for result in results if result["model"] == name]
            widths = [width for width in WIDTHS[name] if any(run["width"] == width for run in runs)]
            groups = [[run for run in runs if run["width"] == width] for width in widths]
            middle = [statistics.median(map(size, group)) for group in groups]
            (line,) = axes.plot(
                middle,
                [1e3 * statistics.fmean(run["mse"] for run in group) for group in groups],
                "--" if name == SCRATCH else "-",
                label=name,
            )
            for place, group in zip(middle, groups, strict=True):
                values = [1e3 * run["mse"] for run in group]
                axes.plot([place] * len(group), values, "o", color=line.get_color(), alpha=0.35, markersize=4)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("MSE x 1e-3 (a point per seed)")
    panels[0].legend(fontsize=8)
    return figure
