"""A longer training on a GPU.

ConvLSTM and ConvTT-LSTM of the published widths (12 layers, kernels of 5 x 5; order 3, 3 steps, rank 8) learn to
predict two moving digits on 64 x 64 pixels folded into patches of 4 x 4, 10 frames given and 10 to predict. Both see
the same sequences, made on the GPU, from the same seed, for as many steps: AdamW, one cycle, cross-entropy over all
outputs, bf16 autocast, every step replayed as a CUDA graph. The predicted future grows in three stages, so that few
graphs are recorded. They take turns of a few hundred steps; after each one a checkpoint is written and the one before
it removed, so that a later run goes on from there.

MSE (x 1e-3, per pixel) and SSIM are means over the first 10 and over all 30 predicted frames of held-out sequences of
digits that no training saw. ``time`` is that of a training step, over ConvLSTM's.
"""

from __future__ import annotations

import io
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.guarded import fitting, guarded, release_memory
from tt_conv.applications.training.module import xavier_start
from tt_conv.applications.video_prediction.baselines import copy_last
from tt_conv.applications.video_prediction.metrics import FrameMetrics
from tt_conv.applications.video_prediction.module import FramePrediction, start_at_mean
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.layers import FramePredictor

MODELS = {"ConvLSTM": "conv_lstm", "ConvTT-LSTM": "conv_tt_lstm"}
GIVEN, SCORED = 10, 30
COPY = "copy the last frame"
RATE, WARM_UP, CLIP = 1e-3, 0.05, 1.0
SEED = 0
# Share of the training from which on as many frames are predicted.
FUTURES = ((0.0, 1), (0.1, 4), (0.2, 10))
PART = 15 * 2**20
"""Largest size of a file, in bytes: what carries files between machines often takes no larger ones."""


@dataclass(frozen=True)
class Plan:
    """How long is trained, on what, and how often a model is scored."""

    steps: int = 10_000
    segment: int = 250
    scored_every: int = 1_000
    batch: int = 16
    test_sequences: int = 256
    hidden_channels: tuple[int, ...] = (32, 48, 48, 32)
    layers_per_block: tuple[int, ...] = (3, 3, 3, 3)


SMALL = Plan(6, 2, 6, 2, 2, (8, 8), (1, 1))


def cases(
    device: torch.device,
    wanted: Callable[[str], bool] = lambda case: True,
    small: bool = False,
    folder: Path = Path("build"),
    digits: Path | None = None,
) -> Iterator[dict]:
    """Yield one result per model and segment, and one for the copied frame."""
    plan = SMALL if small else Plan()
    trainings = {name: Training(name, plan, device, folder, digits) for name in MODELS}
    if wanted(COPY):
        yield guarded(COPY, lambda: {"model": COPY, **score(copy_last, plan, device, digits)})
    batch = plan.batch
    for step in range(plan.segment, plan.steps + 1, plan.segment):
        for name, training in trainings.items():
            case = f"{name}, step {step}"
            if wanted(case):
                result = guarded(case, partial(fitting, batch, partial(training.go_on, step)))
                # What is too much for one of them is too much for both.
                batch = result.get("batch", batch)
                yield result


class Training:
    """The training of one model, from its newest checkpoint on.

    Parameters
    ----------
    name : str
        Of ``MODELS``.
    plan : Plan
    device : torch.device
    folder : path
        Where checkpoints are.
    digits : path, optional
        IDX files of MNIST; by default the digits that come with the package.
    """

    def __init__(self, name: str, plan: Plan, device: torch.device, folder: Path, digits: Path | None = None) -> None:
        self.name, self.plan, self.device, self.folder, self.digits = name, plan, device, folder, digits
        self._model: FramePredictor | None = None
        self._batch = 0

    def go_on(self, step: int, batch: int) -> dict[str, Any]:
        """Train until a step, write a checkpoint, and return what the last segment gave."""
        if self._model is None or batch != self._batch:
            self._model = None
            release_memory()
            self._begin(batch)
        if step in self.history:
            return self.history[step]
        model = cast(FramePredictor, self._model)
        losses: list[torch.Tensor] = []
        seconds: list[float] = []
        while self.step < step:
            start = time.perf_counter()
            loss = self._train(model)
            if len(losses) % 10 == 0:
                loss.item()  # else the host runs ahead, and time is taken of nothing
            seconds.append(time.perf_counter() - start)
            losses.append(loss)
        newest = losses[-self.plan.segment :]
        result = {
            "model": self.name,
            "step": step,
            "batch": batch,
            "future": self.future(),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "loss": torch.stack(newest).mean().item(),
            # The first calls of a kind record a graph.
            "seconds per step": statistics.fmean(seconds[len(seconds) // 2 :]),
        }
        if step % self.plan.scored_every == 0 or step == self.plan.steps:
            with torch.autocast(self.device.type, torch.bfloat16):
                result |= score(model.eval(), self.plan, self.device, self.digits)
        self.history[step] = result
        self._save()
        return result

    def future(self) -> int:
        """Return how many frames are predicted at the present step."""
        return max(future for share, future in FUTURES if self.step >= share * self.plan.steps)

    def _begin(self, batch: int) -> None:
        plan = self.plan
        torch.manual_seed(SEED)
        model = FramePredictor(
            1,
            plan.hidden_channels,
            plan.layers_per_block,
            cell=MODELS[self.name],
            sigmoid=True,
            patch_size=4,
        )
        xavier_start(model)
        future = FUTURES[-1][1]
        self.data = MovingMNIST("train", plan.batch, frames=GIVEN + future, seed=SEED, idx_folder=self.digits)
        start_at_mean(model, self.data.sequences(range(16)))
        self._model, self._batch = model.to(self.device), batch
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=on_gpu)
        self.task = FramePrediction(model, given=GIVEN, steps=plan.steps, loss="cross_entropy")
        self.step = 0
        self.history: dict[int, dict[str, Any]] = {}
        self._load(model)
        if on_gpu:
            model.use_cuda_graphs()

    def _train(self, model: FramePredictor) -> torch.Tensor:
        first = self.step * self.plan.batch
        frames = self.data.sequences(range(first, first + self._batch), self.device)
        frames = frames[:, : GIVEN + self.future()]
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * one_cycle(self.step / self.plan.steps)
        model.train()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.task.loss(frames)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _save(self) -> None:
        """Write a checkpoint in files of no more than ``PART`` bytes, then remove those before it."""
        state = self.optimizer.state_dict()
        # Moments in bf16 halve the files; a training that goes on differs from one in a piece by their rounding.
        moments = {
            number: {key: value.bfloat16() if value.dim() else value for key, value in values.items()}
            for number, values in state["state"].items()
        }
        whole = io.BytesIO()
        checkpoint = {"step": self.step, "model": cast(nn.Module, self._model).state_dict(), "history": self.history}
        torch.save({**checkpoint, "optimizer": {**state, "state": moments}}, whole)
        content, old = whole.getvalue(), list(self._files())
        number = math.ceil(len(content) / PART)
        for n in range(number):
            path = self.folder / f"{MODELS[self.name]}-{self.step:06d}-{n + 1}of{number}.pt"
            temporary = path.with_suffix(".part")
            temporary.write_bytes(content[n * PART : (n + 1) * PART])
            os.replace(temporary, path)
        for path, step, *_ in old:
            if step != self.step:
                with suppress(OSError):  # files of an earlier run may be read-only
                    path.unlink()

    def _files(self) -> Iterator[tuple[Path, int, int, int]]:
        """Yield path, step, place and number of the files of checkpoints."""
        for path in self.folder.glob(f"{MODELS[self.name]}-*.pt"):
            found = re.fullmatch(r".*-(\d{6})-(\d+)of(\d+)\.pt", path.name)
            if found:
                step, place, number = map(int, found.groups())
                yield path, step, place, number

    def _load(self, model: nn.Module) -> None:
        """Go back to the newest checkpoint whose files are all there."""
        files: dict[int, list[Path]] = {}
        complete = []
        for path, step, _, number in sorted(self._files(), key=lambda file: file[1:]):
            files.setdefault(step, []).append(path)
            if len(files[step]) == number:
                complete.append(step)
        if not complete:
            return
        content = b"".join(path.read_bytes() for path in files[max(complete)])
        checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location=self.device)
        model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.step, self.history = checkpoint["step"], checkpoint["history"]


def one_cycle(progress: float) -> float:
    """Return the learning rate over the largest one: it rises, then falls to zero along a cosine."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


@torch.no_grad()
def score(predictor: Callable, plan: Plan, device: torch.device, digits: Path | None) -> dict[str, list[float]]:
    """Return MSE and SSIM of each predicted frame."""
    data = MovingMNIST("test", plan.test_sequences, frames=GIVEN + SCORED, seed=SEED, idx_folder=digits)
    gathered = FrameMetrics()
    for first in range(0, plan.test_sequences, 32):
        frames = data.sequences(range(first, min(first + 32, plan.test_sequences)), device)
        gathered.update(predictor(frames[:, :GIVEN], SCORED)[:, -SCORED:], frames[:, GIVEN:])
    values = gathered.compute()
    return {metric: values[metric] for metric in ("mse", "ssim")}


def table(results: Sequence[Mapping]) -> str:
    """Return a line per model and scored step."""
    lines = [f"{'':<24}{'step':>7}{'MSE, 10':>9}{'MSE, 30':>9}{'SSIM, 10':>10}{'SSIM, 30':>10}{'time':>7}"]
    seconds = {(r["model"], r["step"]): r["seconds per step"] for r in results if "step" in r}
    for result in sorted((r for r in results if "mse" in r), key=lambda r: r.get("step", 0)):
        step = result.get("step", 0)
        dense = seconds.get(("ConvLSTM", step))
        figures = [1e3 * statistics.fmean(result["mse"][:n]) for n in (10, SCORED)]
        similar = [statistics.fmean(result["ssim"][:n]) for n in (10, SCORED)]
        ratio = f"{result['seconds per step'] / dense:>7.2f}" if dense and "seconds per step" in result else ""
        lines.append(
            f"{result['model']:<24}{step or '-':>7}"
            + "".join(f"{value:>9.2f}" for value in figures)
            + "".join(f"{value:>10.3f}" for value in similar)
            + ratio
        )
    lines += sorted({f"{result['model']}: {result['note']}" for result in results if "note" in result})
    return "\n".join(lines)


def plot(results: Sequence[Mapping]) -> Any:
    """Return the loss by step, and the error of each predicted frame at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    curves, frames = figure.subplots(1, 2)
    for name in (*MODELS, COPY):
        mine = sorted((r for r in results if r.get("model") == name), key=lambda r: r.get("step", 0))
        if any("loss" in result for result in mine):
            curves.plot([r["step"] for r in mine], [r["loss"] for r in mine], label=name)
        scored = [result for result in mine if "mse" in result]
        if scored:
            frames.plot(range(1, SCORED + 1), [1e3 * value for value in scored[-1]["mse"]], label=name)
    curves.set(xlabel="step", ylabel="cross-entropy", title="training")
    frames.set(xlabel="predicted frame", ylabel="MSE x 1e-3", title="held-out sequences")
    for axes in (curves, frames):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure
