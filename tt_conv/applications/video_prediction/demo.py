"""``tt-conv demo``: two frame predictors learn moving digits side by side; a trained one is compressed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tt_conv.applications.compression.pretrained import PRETRAINED
from tt_conv.applications.data.splits import Split
from tt_conv.applications.output import OutputFolder, json_text
from tt_conv.applications.pictures import draw_animation, draw_curves, draw_strips
from tt_conv.applications.training.compression import compress_source, draw_curve, sweep_cells
from tt_conv.applications.training.demo import Demo, show_demo
from tt_conv.applications.training.module import xavier_start
from tt_conv.applications.training.one_pass import Outcome
from tt_conv.applications.video_prediction.baselines import BASELINES
from tt_conv.applications.video_prediction.compression_source import open_source
from tt_conv.applications.video_prediction.evaluation import evaluate, milliseconds_per_frame
from tt_conv.applications.video_prediction.module import FramePrediction, start_at_mean
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.applications.video_prediction.report import Row, judge, learned_table, results_table
from tt_conv.applications.video_prediction.settings import CompressionSettings, DemoSettings
from tt_conv.layers import FramePredictor
from tt_conv.tables import text_table

DEMO_PANELS = {"mse": "MSE", "psnr": "PSNR (dB)", "ssim": "SSIM", "mass_ratio": "predicted / true mass"}
DEMO_PANELS |= {"centre_distance": "centre of mass off by (px)"}
PICTURED_SEQUENCES = 3
TEST_BATCH = 16


class PredictionDemo(Demo):
    """Two frame predictors learn moving digits; a trained one is compressed."""

    settings: DemoSettings

    def prepare(self) -> dict[str, FramePrediction]:
        settings = self.settings
        self.train_set = _sequences("train", settings.steps * settings.batch_size, settings)
        self.test_set = _sequences("test", settings.test_sequences, settings)
        return {
            name: FramePrediction(
                model,
                given=settings.given,
                steps=settings.steps,
                loss="cross_entropy",
                growth=settings.growth,
                learning_rate=settings.learning_rate,
            )
            for name, model in build_predictors(settings).items()
        }

    def introduction(self) -> str:
        settings = self.settings
        digits = "one moving digit" if settings.digits == 1 else f"{settings.digits} moving digits"
        return (
            f"{digits.capitalize()} on {settings.size} x {settings.size} pixels: {settings.given} frames given, "
            f"{settings.future} to predict.\n"
            f"Two models of the same width learn from {settings.steps * settings.batch_size:,} sequences "
            f"({settings.steps} steps, seed {settings.seed}). Ctrl-C stops early and keeps what was learned."
        )

    def batches(self) -> DataLoader[Tensor]:
        return _in_batches(self.train_set, self.settings.batch_size)

    def show(self, folder: OutputFolder, models: Mapping[str, FramePredictor], outcome: Outcome) -> list[str]:
        rows = _evaluate(models, self.test_set, self.settings)
        learned = judge(rows)
        contents = {
            **self.facts(outcome),
            "rows": [row.to_json() for row in rows],
            "learned": {name: figures.to_json() for name, figures in learned.items()},
        }
        with folder.new_file("table.json") as file:
            file.write_text(json_text(contents))
        frame = next(iter(learned.values())).frame
        print(f"\n{results_table(rows)}\n")
        print(f"Means over the {self.settings.future} predicted frames; pixels from 0 (black) to 1.")
        print(f"Times are those of one CPU thread, in batches of {TEST_BATCH}.")
        print(f"\nAt the predicted frame {frame}:\n{learned_table(learned)}", flush=True)
        _draw_predictions(folder, models, rows, self.test_set, outcome, self.settings)
        names = ["table.json", "curves.png", "strips.png", "animation.gif"]
        if self.settings.budgets:
            _compress(folder, self.settings)
            names += ["compression.json", "compression.png"]
        return names


def run_demo(settings: DemoSettings, out: Path | str | None = None) -> bool:
    """See :func:`~tt_conv.applications.training.demo.show_demo`."""
    return show_demo(PredictionDemo(settings), out)


def build_predictors(settings: DemoSettings) -> dict[str, FramePredictor]:
    """The untrained models, by name; they differ in their cells only."""
    options: dict[str, Any] = {"order": settings.order, "rank": settings.rank}
    sequences = _sequences("train", 16, settings)
    frames = torch.stack([sequences[index] for index in range(len(sequences))])
    models = {}
    kinds: list[tuple[str, str, dict[str, Any]]]
    kinds = [("ConvLSTM", "conv_lstm", {}), ("ConvTT-LSTM", "conv_tt_lstm", options)]
    for name, cell, cell_options in kinds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            models[name] = FramePredictor(
                1,
                settings.hidden_channels,
                settings.layers_per_block,
                cell=cell,
                kernel_size=settings.kernel_size,
                sigmoid=True,
                patch_size=settings.patch_size,
                **cell_options,
            )
            xavier_start(models[name])
        start_at_mean(models[name], frames)
    return models


def _sequences(split: Split, length: int, settings: DemoSettings) -> MovingMNIST:
    return MovingMNIST(
        split,
        length,
        frames=settings.given + settings.future,
        size=settings.size,
        digits=settings.digits,
        speed=settings.speed,
        seed=settings.seed,
        digit_size=settings.digit_size,
    )


def _in_batches(sequences: MovingMNIST, size: int) -> DataLoader[Tensor]:
    # No shuffling: the sequences are random already, and so every run sees the same ones in the same order.
    # A generator of its own: the loader draws a seed for its workers, from the global one otherwise.
    return DataLoader(sequences, batch_size=size, generator=torch.Generator())


def _evaluate(models: Mapping[str, FramePredictor], test_set: MovingMNIST, settings: DemoSettings) -> list[Row]:
    print(f"\nEvaluating on {len(test_set)} sequences of digits that were never seen ...", flush=True)
    batches = _in_batches(test_set, TEST_BATCH)
    metrics = evaluate({**BASELINES, **models}, batches, settings.given)
    given = next(iter(batches))[:, : settings.given]
    times = milliseconds_per_frame(models, given, settings.future)
    rows = [Row(name, metrics[name]) for name in BASELINES]
    for name, model in models.items():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rows.append(Row(name, metrics[name], parameters, model.macs(test_set.size), times[name]))
    return rows


def _draw_predictions(
    folder: OutputFolder,
    models: Mapping[str, FramePredictor],
    rows: list[Row],
    test_set: MovingMNIST,
    outcome: Outcome,
    settings: DemoSettings,
) -> None:
    title = f"Moving-MNIST, {settings.given} frames given, {settings.future} predicted\n{_training(outcome, settings)}"
    with folder.new_file("curves.png") as file:
        panels = {label: {row.name: row.metrics[metric] for row in rows} for metric, label in DEMO_PANELS.items()}
        draw_curves(file, panels, list(BASELINES), x_label="predicted frame", title=title)
    examples = _examples(models, test_set, settings)
    with folder.new_file("strips.png") as file:
        draw_strips(file, examples, settings.given, title)
    with folder.new_file("animation.gif") as file:
        draw_animation(file, examples, settings.given)


def _compress(folder: OutputFolder, settings: DemoSettings) -> None:
    """Make the network that comes with the package smaller, and show what that costs."""
    print(
        f"\nCompressing a trained ConvLSTM that comes with the package (Moving-MNIST, two digits, 10 frames given, "
        f"10 predicted), fitted to {settings.compression_sequences} sequences, nothing trained again ...",
        flush=True,
    )
    wanted = CompressionSettings(
        settings.budgets,
        calibration=settings.compression_sequences,
        formats=("svd",),
        quality_sequences=2 * settings.compression_sequences,
    )
    source = open_source(PRETRAINED)
    made = compress_source(source, wanted)
    print(f"\n{text_table(*sweep_cells(made, source.quality_name))}", flush=True)
    with folder.new_file("compression.json") as file:
        contents = {f"{one.report.budget:g}": one.to_json() for one in made}
        file.write_text(json_text(contents))
    with folder.new_file("compression.png") as file:
        draw_curve(file, made, source.quality_name, "A trained ConvLSTM, compressed")


def _training(outcome: Outcome, settings: DemoSettings) -> str:
    steps = f"{settings.steps} steps"
    return f"seed {settings.seed}, " + (
        f"stopped after {outcome.steps_done} of {steps}" if outcome.interrupted else steps
    )


@torch.inference_mode()
def _examples(
    models: Mapping[str, FramePredictor], test_set: MovingMNIST, settings: DemoSettings
) -> list[dict[str, Tensor]]:
    """The first test sequences, as they come, with what each model predicts."""
    sequences = [test_set[index] for index in range(min(PICTURED_SEQUENCES, len(test_set)))]
    predictions = {
        name: model(torch.stack(sequences)[:, : settings.given], settings.future)[:, -settings.future :]
        for name, model in models.items()
    }
    return [
        {"truth": sequence, **{name: predicted[number] for name, predicted in predictions.items()}}
        for number, sequence in enumerate(sequences)
    ]
