"""Early recognition of moving digits.

Every network learns the same 14 actions of two real digits from 560 clips of 16 frames, 32 x 32 pixels, taken out of
36 x 36 at another place in every epoch: 20 epochs of 35 steps with 16 clips, AdamW, one cycle. The cross-entropy after
every frame counts, later ones more. All networks halve the frames twice (16 and 32 channels). The recurrent ones then
have one cell of 32 hidden channels with kernels of 3 x 3 (the ConvTT-LSTM with order 3, 3 steps, rank 8), the 3-D
CNN, which is causal, two more layers of 32 channels. ``begun dense`` trains a ConvLSTM for the first 5 epochs and
goes on with the ConvTT-LSTM that it is converted to, as ``training.dense_start: 0.25`` does. The rows ``+
prediction`` also predict the next 2 frames after every frame; the cross-entropy of their pixels is added to the loss
with weight 2, a value that was not tuned. The benchmark trains each from three seeds, which set the weights, the
order and the crops; a row shows the mean over the seeds that the file holds (column ``seeds``) and, behind it, the
standard deviation between them.

The budget is small, and it takes some epochs before any of the actions is told from another: a training that has not
got over that by the end stays near chance.

The accuracy (in %) is that on 168 test clips, with digits that no training saw, after 25, 50 and 100 % of the frames:
one network gives all three. ``best possible`` is computed from how the clips are made, not measured: some actions only
part ways later. Parameters and MACs are those of the encoder, the cells or layers, and the classifier, as they are used
after training; the decoder comes on top while training with prediction. ``time`` is the processor time of the training
over that of the ConvLSTM without prediction (medians over the seeds), one thread each, on a machine that did other
things too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.module import FRACTIONS, EarlyRecognition
from tt_conv.applications.recognition.open_data import build_model, open_data
from tt_conv.applications.recognition.settings import DataSettings, ModelSettings, Settings
from tt_conv.applications.training import carry_over
from tt_conv.applications.training.dense_start import DenseStart, calibration_batches
from tt_conv.applications.training.epochs import EpochBatches, EpochOfSamples
from tt_conv.applications.training.module import one_cycle
from tt_conv.applications.training.settings import conv_lstm_settings

EPOCHS, BATCH, SEEDS = 20, 16, 3
LEARNING_RATE, WEIGHT, AHEAD = 3e-3, 2.0, 2
BEST, CHANCE, BASELINE, JOINT = "best possible", "chance", "ConvLSTM", " + prediction"
KINDS: Mapping[str, Mapping[str, Any]] = {
    "3-D CNN": {"kind": "conv_3d", "hidden_channels": [32, 32]},
    BASELINE: {"kind": "conv_lstm"},
    "ConvTT-LSTM": {"kind": "conv_tt_lstm", "order": 3, "steps": 3, "rank": 8},
    "ConvTT-LSTM begun dense": {"kind": "conv_tt_lstm", "order": 3, "steps": 3, "rank": 8, "dense_start": 0.25},
}
MODELS = [name + joint for joint in ("", JOINT) for name in KINDS]


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per model and seed, and what nobody can do better or worse than."""
    data = _data()
    yield from (result for result in _references(data) if wanted(result["case"]))
    jobs = [job for job in ((name, seed) for seed in range(SEEDS) for name in MODELS) if wanted(_case(*job))]
    if device.type != "cpu":
        yield from (train(*job, str(device)) for job in jobs)
        return
    # Each network keeps one core busy, not several.
    with ProcessPoolExecutor(_processes(), mp_context=get_context("spawn")) as processes:
        for finished in as_completed([processes.submit(train, *job) for job in jobs]):
            yield finished.result()


def _processes() -> int:
    """Two trainings at a time, or one where the environment asks for one thread."""
    return min(2, int(os.environ.get("OMP_NUM_THREADS", 2)), os.cpu_count() or 1)


def _case(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def _references(data: DataSettings) -> Iterator[dict]:
    test = open_data(data, "test")
    best = ceiling(data, data.frames)
    assert best is not None
    last = [int(fraction * data.frames) - 1 for fraction in FRACTIONS]
    for name, values in ((BEST, best), (CHANCE, [chance(test)] * data.frames)):
        yield {"case": name, "model": name, "accuracy": [values[number] for number in last], "after_frame": values}


def _data() -> DataSettings:
    return DataSettings(size=32, short_side=36, fresh=True, keep_decoded=True)


def train(name: str, seed: int, device: str = "cpu", epochs: int = EPOCHS) -> dict:
    """Train and test one network."""
    torch.set_num_threads(1)
    joint = name.endswith(JOINT)
    clips, test = open_data(_data(), "train"), open_data(_data(), "test")
    model = build_model(model_settings(name), 1, len(clips.classes), seed).to(device)
    steps = epochs * (len(clips) // BATCH)
    start = None
    if share := KINDS[name.removesuffix(JOINT)].get("dense_start"):
        as_dense = conv_lstm_settings(Settings(model=model_settings(name))).model
        dense = build_model(as_dense, 1, len(clips.classes), seed).to(device)
        start = DenseStart(round(share * steps), dense, model, partial(calibration_batches, clips, _inputs, seed))
        model = dense
    task = EarlyRecognition(model, steps=steps, prediction_weight=WEIGHT if joint else 0.0, learning_rate=LEARNING_RATE)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = one_cycle(optimizer, LEARNING_RATE, steps)
    seconds, step = 0.0, 0
    for epoch in range(epochs):
        # Another seed draws other crops: its epochs are others.
        batches = EpochBatches(len(clips), BATCH, seed=seed, epoch=epoch)
        samples = EpochOfSamples(clips, 1000 * seed + epoch)
        for _, (frames, labels) in DataLoader(samples, batch_sampler=batches, generator=torch.Generator()):
            began = time.process_time()
            if start is not None and step == start.steps:
                start.convert(model)
                carry_over(optimizer, model, start.target)
                model = task.model = cast(Recognizer, start.target)
            optimizer.zero_grad()
            task.loss((frames.to(device), labels.to(device))).backward()
            task.configure_gradient_clipping()
            with nullcontext() if start is None or step < start.steps else start.warming_up(optimizer, step):
                optimizer.step()
            schedule.step()
            seconds, step = seconds + time.process_time() - began, step + 1
    model.eval()
    accuracy = accuracy_of(model, test, device=device)
    decoder = 0 if model.decoder is None else sum(parameter.numel() for parameter in model.decoder.parameters())
    return {
        "case": _case(name, seed),
        "model": name,
        "seed": seed,
        "epochs": epochs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()) - decoder,
        "macs": model.macs((32, 32)),
        "seconds": seconds,
        "accuracy": [accuracy.at(fraction)[0] for fraction in FRACTIONS],
        "after_frame": accuracy.top1,
        "top5": [accuracy.at(fraction)[1] for fraction in FRACTIONS],
    }


def model_settings(name: str) -> ModelSettings:
    """The network of a row."""
    options = {option: value for option, value in KINDS[name.removesuffix(JOINT)].items() if option != "dense_start"}
    return ModelSettings(**options, ahead=AHEAD if name.endswith(JOINT) else 0)


def _inputs(samples: Sequence[Any]) -> torch.Tensor:
    return torch.stack([clip for clip, _ in samples])


def table(results: Sequence[Mapping]) -> str:
    """Return one line per model: means over the seeds, and their spread."""
    lines = [f"{'':<37}{'parameters':>11}{'M MACs':>8}{'25 %':>14}{'50 %':>14}{'100 %':>14}{'time':>7}{'seeds':>7}"]
    rows = {name: [result for result in results if result["model"] == name] for name in (CHANCE, *MODELS, BEST)}
    for name, runs in rows.items():
        if not runs:
            continue
        cells = "".join(f"{_spread([100 * run['accuracy'][column] for run in runs]):>14}" for column in range(3))
        if name in (CHANCE, BEST):
            lines.append(f"{name:<37}{'-':>11}{'-':>8}{cells}{'-':>7}{'-':>7}")
            continue
        share = f"{_median(runs) / _median(rows[BASELINE]):.2f}" if rows[BASELINE] else "-"
        lines.append(
            f"{name:<37}{runs[0]['parameters']:>11,}{runs[0]['macs'] / 1e6:>8.1f}{cells}{share:>7}{len(runs):>7}"
        )
    return "\n".join(lines)


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure: mean accuracy against the observed part, with and without joint prediction."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for axes, joint in zip(grid, ("", JOINT), strict=True):
        for name, style in ((BEST, "k--"), (CHANCE, "k:"), *((kind + joint, "o-") for kind in KINDS)):
            runs = [result["after_frame"] for result in results if result["model"] == name]
            if runs:
                means = [100 * statistics.fmean(values) for values in zip(*runs, strict=True)]
                seen = [100 * (number + 1) / len(means) for number in range(len(means))]
                axes.plot(seen, means, style, markersize=3, label=name.removesuffix(JOINT))
        axes.set(title=f"with{'' if joint else 'out'} joint prediction", xlabel="observed part of the clip (%)")
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("accuracy (%)")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _median(runs: Sequence[Mapping]) -> float:
    return statistics.median(run["seconds"] for run in runs)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"
