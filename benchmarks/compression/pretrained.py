"""Compression of a trained predictor.

The network that comes with the package, a ConvLSTM of two layers on Moving-MNIST (two digits, ten frames given, ten to
predict), is brought to a half, a quarter and an eighth of its parameters:

- ``ours``: ``compress`` with 32 training sequences for calibration; ``ours, weights alone``: without;
- ``ours, svd only``: the same with one format, which has the fastest steps on a CPU; ``ours, no Conv-TT``: with SVD,
  Tucker and TT, which take less time in single frames than stacked kernels;
- ``uniform ranks``: every layer by SVD with the same share of its parameters; ``uniform tucker``: the same by Tucker;
- ``per-layer svd``: every layer by SVD at the same share of its singular values' energy, that of the whole met by
  bisection;
- ``TensorLy-Torch``: its own ``FactorizedConv.from_conv``, Tucker at the same share of each layer's parameters.

``MSE`` (x 1e-3) and ``added`` are over the ten predicted frames of 256 test sequences of digits that no training saw;
``added`` is the MSE above the original's. ``output`` is the relative error of all outputs on the test sequences.

At a quarter some are trained on for a tenth of the original's optimizer steps, by the same recipe: ``tuned`` is the MSE
after that. The control is the original itself, trained on for as many steps; ``from scratch`` is a ConvTT-LSTM of as
many parameters that has had these steps only, or three times as many, by the recipe of the original's training (ten
times the rate, a future that grows from one frame to ten). ``distilled`` takes half of the loss against the original's
predictions. The rate, distillation and the way to fit a Conv-TT were chosen by scores on these test sequences, so
``again`` is the control and the best of ours tuned anew, on other training sequences, and judged by 512 test sequences
that nothing was chosen by.

``times as fast`` is the time of a step of the original, one frame of one sequence or of eight, over that of the others,
one thread, medians of contenders that take turns.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.interleaved import interleaved
from tt_conv import TensorizedConv
from tt_conv.applications.compression import load_compressed, load_pretrained, save_compressed
from tt_conv.applications.compression.compress import Survey
from tt_conv.applications.compression.files import WEIGHTS
from tt_conv.applications.compression.pretrained import PRETRAINED_FOLDER, pretrained_training
from tt_conv.applications.training import settings_from_dict
from tt_conv.applications.training.module import xavier_start
from tt_conv.applications.video_prediction import fine_tune
from tt_conv.applications.video_prediction.fine_tuning import batches
from tt_conv.applications.video_prediction.module import FramePrediction, start_at_mean
from tt_conv.applications.video_prediction.open_data import FirstSequences, open_data
from tt_conv.kernels.table import FORMATS
from tt_conv.kernels.tensorly import pytorch_backend
from tt_conv.layers import ConvLSTMCell, FramePredictor
from tt_conv.tables import text_table

BUDGETS = (0.5, 0.25, 0.125)
TUNED_AT = 0.25
CALIBRATION, TEST_SEQUENCES, VALIDATION_SEQUENCES, BATCH = 32, 256, 64, 8
OTHER_TEST_SEQUENCES, OTHER_SEED, OTHER_EPOCH = 512, 1, 100
GIVEN, FUTURE = 10, 10
RATE = 3e-4
CACHE = Path("build/compression")
ORIGINAL = "original"
AGAIN = "again: "


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield the quality of every network, of the tuned ones, and the times of a step."""
    torch.set_num_threads(1)
    original = load_pretrained()
    if wanted(ORIGINAL):
        yield {"case": ORIGINAL, "parameters": _size(original), **_scores(original)}
    for budget in BUDGETS:
        for name in _COMPRESSED:
            case = f"{name}, {budget:g}"
            if wanted(case):
                smaller = compressed(name, budget)
                yield {"case": case, "name": name, "budget": budget, **_about(smaller), **_scores(smaller)}
    for name, job in _trainings().items():
        if wanted(name):
            yield {"case": name, **job()}
    if wanted("step"):
        yield {"case": "step", **_times(original)}


# --- what is compressed


@cache
def _survey(calibrated: bool, formats: tuple[str, ...]) -> Survey:
    sequences = FirstSequences(_data("train"), CALIBRATION)
    data = [(batch[:, :GIVEN], FUTURE) for batch in DataLoader(sequences, BATCH)] if calibrated else None
    return Survey(load_pretrained(), data=data, formats=formats)


def _ours(budget: float, calibrated: bool = True, formats: tuple[str, ...] = tuple(FORMATS)) -> nn.Module:
    return _survey(calibrated, formats).compress(budget)[0]


def _each_layer(budget: float, replace: Callable[[nn.Conv2d, float], nn.Module]) -> nn.Module:
    """Replace every recurrent convolution by one of the same share of its parameters."""
    model = load_pretrained()
    total = _size(model)
    kernels = [cell.get_parameter("conv.weight").numel() for cell in model.cells()]
    share = (budget * total - (total - sum(kernels))) / sum(kernels)
    for cell in model.cells():
        assert isinstance(cell, ConvLSTMCell)
        cell.conv = replace(cell.conv, share)  # type: ignore[assignment, arg-type]
    return model


def _svd_rank(conv: nn.Conv2d, share: float) -> int:
    outputs, rest = conv.weight.flatten(1).shape
    return max(1, int(share * outputs * rest / (outputs + rest)))


def _uniform(budget: float) -> nn.Module:
    return _each_layer(budget, lambda conv, share: TensorizedConv.from_conv(conv, "svd", rank=_svd_rank(conv, share)))


def _uniform_tucker(budget: float) -> nn.Module:
    return _each_layer(budget, lambda conv, share: TensorizedConv.from_conv(conv, "tucker", rank=share))


def _energy(budget: float) -> nn.Module:
    """Cut every layer's singular values at the same share of their energy, the largest that the budget allows."""
    model = load_pretrained()
    kernels = [cell.get_parameter("conv.weight").detach().flatten(1) for cell in model.cells()]
    values = [torch.linalg.svdvals(kernel) for kernel in kernels]

    def ranks(energy: float) -> list[int]:
        return [1 + int((v.square().cumsum(0) < energy * v.square().sum()).sum()) for v in values]

    def built(energy: float) -> nn.Module:
        smaller = copy.deepcopy(model)
        for cell, rank in zip(smaller.cells(), ranks(energy), strict=True):
            cell.conv = TensorizedConv.from_conv(cell.conv, "svd", rank=rank)  # type: ignore[arg-type]
        return smaller

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _size(built(middle)) <= budget * _size(model) else (low, middle)
    return built(low)


def _tensorly_torch(budget: float) -> nn.Module:
    from tltorch import FactorizedConv

    def replace(conv: nn.Conv2d, share: float) -> nn.Module:
        with pytorch_backend():
            made: nn.Module = FactorizedConv.from_conv(
                conv, rank=share, factorization="tucker", implementation="factorized", decompose_weights=True
            )
        made.requires_grad_(False)
        return made

    return _each_layer(budget, replace).eval()


_COMPRESSED: Mapping[str, Callable[[float], nn.Module]] = {
    "ours": _ours,
    "ours, no Conv-TT": lambda budget: _ours(budget, formats=("svd", "tucker", "tt")),
    "ours, svd only": lambda budget: _ours(budget, formats=("svd",)),
    "ours, weights alone": lambda budget: _ours(budget, calibrated=False),
    "uniform ranks": _uniform,
    "uniform tucker": _uniform_tucker,
    "per-layer svd": _energy,
    "TensorLy-Torch": _tensorly_torch,
}


def compressed(name: str, budget: float) -> nn.Module:
    """Return the network of one row; what takes long to make is kept in ``build``."""
    if not name.startswith("ours"):
        return _COMPRESSED[name](budget).eval()
    made_of = hashlib.sha256((PRETRAINED_FOLDER / WEIGHTS).read_bytes()).hexdigest()[:12]
    kept = CACHE / f"{name.replace(', ', '_').replace(' ', '_')}_{budget:g}_{made_of}"
    if not kept.exists():
        save_compressed(_COMPRESSED[name](budget), kept)
    return load_compressed(None, kept)


# --- what is trained


def _trainings() -> dict[str, Callable[[], dict]]:
    steps = tenth()
    jobs: dict[str, Callable[[], dict]] = {
        "control, tuned": lambda: _train(load_pretrained(), steps),
        "ours, tuned": lambda: _train(compressed("ours", TUNED_AT), steps),
        "ours, distilled": lambda: _train(compressed("ours", TUNED_AT), steps, distill=0.5),
        "ours, no Conv-TT, tuned": lambda: _train(compressed("ours, no Conv-TT", TUNED_AT), steps),
        "ours, no Conv-TT, distilled": lambda: _train(compressed("ours, no Conv-TT", TUNED_AT), steps, distill=0.5),
        "ours, svd only, tuned": lambda: _train(compressed("ours, svd only", TUNED_AT), steps),
        "uniform ranks, tuned": lambda: _train(compressed("uniform ranks", TUNED_AT), steps),
        f"{AGAIN}control, tuned": lambda: _train(load_pretrained(), steps, again=True),
        f"{AGAIN}ours, distilled": lambda: _train(compressed("ours", TUNED_AT), steps, distill=0.5, again=True),
        f"{AGAIN}ours, no Conv-TT, distilled": lambda: _train(
            compressed("ours, no Conv-TT", TUNED_AT), steps, distill=0.5, again=True
        ),
        "from scratch": lambda: _train_scratch(steps),
        "from scratch, 3 times the steps": lambda: _train_scratch(3 * steps),
    }
    return jobs


def tenth() -> int:
    """Return a tenth of the original's optimizer steps."""
    return round(pretrained_training()["steps"] / 10)


def _scratch() -> nn.Module:
    """Return an untrained ConvTT-LSTM of a quarter of the original's parameters."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"cell": "conv_tt_lstm", "kernel_size": 5, "sigmoid": True, "patch_size": 4}
    return FramePredictor(1, (20,), (2,), order=2, steps=2, rank=5, input_rank=12, **options)


def _train_scratch(steps: int) -> dict:
    model, data = _scratch(), _data("train")
    xavier_start(model)
    start_at_mean(model, torch.stack([data[number] for number in range(16)]))
    task = FramePrediction(model, given=GIVEN, steps=steps, loss="cross_entropy", growth=0.5, learning_rate=10 * RATE)
    (optimizer,), (scheduled,) = task.configure_optimizers()
    for step, batch in enumerate(batches(data, BATCH, steps)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(batch, step / steps)
        loss.backward()
        task.configure_gradient_clipping()
        optimizer.step()
        scheduled["scheduler"].step()
    return {"steps": steps, "kept_after": steps, "parameters": _size(model)} | _scores(model.eval())


def _train(model: nn.Module, steps: int, *, distill: float = 0.0, again: bool = False) -> dict:
    original = load_pretrained()
    epoch = pretrained_training()["epochs_done"] + (OTHER_EPOCH if again else 0)
    tuned = fine_tune(
        model,
        batches(_data("train"), BATCH, steps, epoch=epoch),
        batches(FirstSequences(_data("validation"), VALIDATION_SEQUENCES), 32),
        given=GIVEN,
        original=original,
        distill=distill,
        learning_rate=RATE,
        precision="bf16-mixed",
    )
    kept = {"steps": steps, "kept_after": tuned.steps, "validation": tuned.validation, "parameters": _size(model)}
    return kept | _scores(tuned.model.eval(), again)


# --- what is measured


@cache
def _data(split: Any) -> Any:
    return open_data(settings_from_dict(pretrained_training()["settings"]).data, split)


@cache
def _test(other: bool = False) -> list[Tensor]:
    if not other:
        return list(DataLoader(FirstSequences(_data("test"), TEST_SEQUENCES), 32))
    settings = settings_from_dict(pretrained_training()["settings"]).data
    changed = dataclasses.replace(settings, seed=OTHER_SEED, test_sequences=OTHER_TEST_SEQUENCES)
    return list(DataLoader(open_data(changed, "test"), 32))


@cache
def _expected(other: bool) -> list[Tensor]:
    original = load_pretrained()
    return [original(batch[:, :GIVEN], FUTURE) for batch in _test(other)]


@torch.inference_mode()
def _scores(model: nn.Module, other: bool = False) -> dict[str, float]:
    errors, off, size = [], 0.0, 0.0
    for batch, expected in zip(_test(other), _expected(other), strict=True):
        predicted = model(batch[:, :GIVEN], FUTURE)
        errors += (predicted[:, -FUTURE:] - batch[:, GIVEN:]).double().square().flatten(1).mean(1).tolist()
        off += float((predicted - expected).double().square().sum())
        size += float(expected.double().square().sum())
    return {"mse": 1e3 * statistics.fmean(errors), "output_error": (off / size) ** 0.5}


def _about(model: nn.Module) -> dict:
    macs: int | None
    try:
        macs = model.macs((64, 64))  # type: ignore[operator]
    except (AttributeError, TypeError, RuntimeError):
        macs = None  # of TensorLy-Torch's layers
    return {"parameters": _size(model), "macs": macs}


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.inference_mode()
def _times(original: nn.Module) -> dict:
    names = [name for name in _COMPRESSED if name != "per-layer svd"]
    models = {ORIGINAL: original, **{name: compressed(name, TUNED_AT) for name in names}}
    models |= {"from scratch": _scratch().eval()}
    times: dict[str, Any] = {}
    for batch in (1, 8):
        frames = torch.cat(_test())[:batch, :GIVEN]
        calls = {name: _call(model, frames) for name, model in models.items()}
        for call in calls.values():
            call()
        taken = interleaved(calls, torch.device("cpu"), budget=15.0)
        steps = GIVEN + FUTURE - 1
        times[f"milliseconds_{batch}"] = {name: 1e3 * seconds / steps for name, seconds in taken.items()}
    return times


def _call(model: nn.Module, frames: Tensor) -> Callable[[], object]:
    return lambda: model(frames, FUTURE)


# --- what is shown


def table(results: Sequence[Mapping]) -> str:
    """Return the tables: by size, after tuning, and of the time of a step."""
    found = {result["case"]: result for result in results}
    original = found[ORIGINAL]
    header = ["", "parameters", "MACs per\nframe, M", "MSE\nx 1e-3", "added", "output"]
    rows = [[ORIGINAL, f"{original['parameters']:,}", "", f"{original['mse']:.3f}", "", ""]]
    for result in results:
        if "budget" in result:
            macs = "" if result["macs"] is None else f"{result['macs'] / 1e6:.1f}"
            figures = [f"{result['mse']:.3f}", f"{result['mse'] - original['mse']:.3f}"]
            rows.append([result["case"], f"{result['parameters']:,}", macs, *figures, f"{result['output_error']:.3f}"])
    parts = [text_table(header, rows)]
    trained = [result for result in results if "kept_after" in result]
    if trained:
        controls = {again: found.get(f"{again}control, tuned", original)["mse"] for again in ("", AGAIN)}
        lines = [
            [
                result["case"],
                f"{result['parameters']:,}",
                f"{result['steps']:,}",
                f"{result['kept_after']:,}",
                f"{result['mse']:.3f}",
                f"{result['mse'] / controls[AGAIN if result['case'].startswith(AGAIN) else '']:.3f}",
            ]
            for result in trained
        ]
        parts.append(
            text_table(["", "parameters", "steps", "kept\nafter", "MSE\nx 1e-3", "over the\ncontrol's"], lines)
        )
    if "step" in found:
        parts.append(_step_table(found["step"]))
    return "\n\n".join(parts)


def _step_table(step: Mapping[str, Any]) -> str:
    one, eight = step["milliseconds_1"], step["milliseconds_8"]
    rows = [
        [
            name if name in (ORIGINAL, "from scratch") else f"{name}, {TUNED_AT}",
            f"{one[ORIGINAL] / one[name]:.2f}",
            f"{eight[ORIGINAL] / eight[name]:.2f}",
        ]
        for name in one
    ]
    return text_table(["times as fast", "a step,\nbatch 1", "a step,\nbatch 8"], rows)


def plot(results: Sequence[Mapping]) -> Any:
    """Draw the MSE against the share of the parameters."""
    import matplotlib.pyplot as plt

    found = {result["case"]: result for result in results}
    original = found[ORIGINAL]
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    axes.axhline(original["mse"], color="#8a8a8a", linestyle="--", label=ORIGINAL)
    for name in _COMPRESSED:
        points = sorted((r["parameters"] / original["parameters"], r["mse"]) for r in results if r.get("name") == name)
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    for number, result in enumerate(r for r in results if _of_first_test(r)):
        share = result["parameters"] / original["parameters"]
        axes.plot(share, result["mse"], "*^vPXD"[number % 6], markersize=9, linestyle="", label=result["case"])
    axes.set_yscale("log")
    axes.set_xlabel("parameters over the original's")
    axes.set_ylabel("MSE x 1e-3 of the predicted frames")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _of_first_test(result: Mapping) -> bool:
    return result.get("steps") == tenth() and not result["case"].startswith(AGAIN)
