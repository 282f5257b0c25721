"""``tt-conv demo --task recognition``: two networks learn to name what moving digits do, before they have done it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tt_conv.applications.output import OutputFolder, json_text
from tt_conv.applications.recognition.data import LabelledClips
from tt_conv.applications.recognition.evaluate_trained import milliseconds_per_step
from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.module import FRACTIONS, EarlyRecognition
from tt_conv.applications.recognition.open_data import build_model, open_data
from tt_conv.applications.recognition.pictures import draw_accuracy, draw_confusion, draw_labels
from tt_conv.applications.recognition.scores import Accuracy
from tt_conv.applications.recognition.settings import DataSettings, DemoSettings, ModelSettings
from tt_conv.applications.training.demo import Demo, show_demo
from tt_conv.applications.training.epochs import EpochBatches
from tt_conv.applications.training.one_pass import Outcome
from tt_conv.tables import text_table

GOAL = 0.7  # of the way from chance to the best possible, at the fractions of GOAL_AT
GOAL_AT = (0.5, 1.0)


class RecognitionDemo(Demo):
    """Two recognizers learn to name what moving digits do, before they have done it."""

    settings: DemoSettings

    def prepare(self) -> dict[str, EarlyRecognition]:
        settings = self.settings
        print("Opening the clips (made at the first time, then kept in the cache) ...", flush=True)
        self.data = _data(settings)
        self.train, self.test = open_data(self.data, "train"), open_data(self.data, "test")
        return {
            name: EarlyRecognition(
                model,
                steps=settings.steps,
                prediction_weight=settings.prediction_weight,
                learning_rate=settings.learning_rate,
            )
            for name, model in build_recognizers(settings, len(self.train.classes)).items()
        }

    def introduction(self) -> str:
        settings, train = self.settings, self.train
        return (
            f"{len(train.classes)} actions of two digits, {len(train)} training clips of {len(train[0][0])} frames, "
            f"{settings.size} x {settings.size} pixels; some actions only part ways later in the clip.\n"
            f"Two models of the same width learn for {settings.steps} steps of {settings.batch_size} clips (seed "
            f"{settings.seed}). Ctrl-C stops early and keeps what was learned."
        )

    def batches(self) -> DataLoader[Any]:
        clips = _Epochs(self.train, self.settings)
        # A generator of its own: the loader draws a seed for its workers, from the global one otherwise.
        return DataLoader(clips, batch_size=clips.batch_size, generator=torch.Generator())

    def kept(self) -> Mapping[str, Any]:
        return {"classes": list(self.train.classes)}

    def show(self, folder: OutputFolder, models: Mapping[str, Recognizer], outcome: Outcome) -> list[str]:
        print(f"\nEvaluating on {len(self.test)} clips of digits that were never seen ...", flush=True)
        accuracies = {name: accuracy_of(model, self.test, FRACTIONS) for name, model in models.items()}
        best = ceiling(self.data, self.data.frames) or [1.0] * self.data.frames
        _tell_accuracies(folder, models, accuracies, self.test, best, self.facts(outcome))
        _draw_accuracies(folder, models, accuracies, self.test, best)
        return ["table.json", "accuracy.png", "confusion.png", "labels.png"]


def run_demo(settings: DemoSettings, out: Path | str | None = None) -> bool:
    """See :func:`~tt_conv.applications.training.demo.show_demo`."""
    return show_demo(RecognitionDemo(settings), out)


def build_recognizers(settings: DemoSettings, classes: int) -> dict[str, Recognizer]:
    """The untrained models, by name; they differ in their cells only."""
    common: dict[str, Any] = {
        "encoder_channels": list(settings.encoder_channels),
        "hidden_channels": list(settings.hidden_channels),
        "kernel_size": settings.kernel_size,
        "ahead": settings.ahead,
    }
    kinds = {
        "ConvLSTM": ModelSettings(kind="conv_lstm", **common),
        "ConvTT-LSTM": ModelSettings(kind="conv_tt_lstm", order=settings.order, rank=settings.rank, **common),
    }
    return {name: build_model(kind, 1, classes, settings.seed) for name, kind in kinds.items()}


class _Epochs(Dataset[tuple[Tensor, int]]):
    """One epoch after the other: each clip varied, in another order every time."""

    def __init__(self, clips: LabelledClips, settings: DemoSettings) -> None:
        self.clips = clips
        self.batch_size, self.seed = min(settings.batch_size, len(clips)), settings.seed
        self.length = settings.steps * self.batch_size
        self._epoch, self._order = -1, [0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        epoch, place = divmod(index, len(self.clips) // self.batch_size * self.batch_size)
        if epoch != self._epoch:
            batches = EpochBatches(len(self.clips), self.batch_size, seed=self.seed, epoch=epoch)
            self._epoch, self._order = epoch, [number for batch in batches for number in batch]
        return self.clips.draw(self._order[place], epoch)


def _data(settings: DemoSettings) -> DataSettings:
    return DataSettings(
        size=settings.size,
        short_side=settings.short_side,
        fresh=True,
        clips=settings.clips,
        test_clips=settings.test_clips,
        keep_decoded=True,
    )


def _tell_accuracies(
    folder: OutputFolder,
    models: Mapping[str, Recognizer],
    accuracies: Mapping[str, Accuracy],
    test: LabelledClips,
    best: list[float],
    facts: Mapping[str, Any],
) -> None:
    lowest, ways = chance(test), {}
    at = {fraction: best[round(fraction * len(best)) - 1] for fraction in FRACTIONS}
    rows = []
    for name, model in models.items():
        accuracy = accuracies[name]
        ways[name] = {f: (accuracy.at(f)[0] - lowest) / (at[f] - lowest) for f in FRACTIONS}
        cost = [
            f"{sum(parameter.numel() for parameter in model.parameters()):,}",
            f"{model.macs(test[0][0].shape[2:]) / 1e6:.1f} M",
            f"{milliseconds_per_step(model, test[0][0]):.2f}",
        ]
        rows.append([name, *(f"{100 * accuracy.at(f)[0]:.1f} %" for f in FRACTIONS), *cost])
    for name, values in (("chance", dict.fromkeys(FRACTIONS, lowest)), ("best possible", at)):
        rows.append([name, *(f"{100 * values[f]:.1f} %" for f in FRACTIONS), "", "", ""])
    seen = [f"{100 * f:.0f} %\nseen" for f in FRACTIONS]
    contents = {
        **facts,
        "chance": lowest,
        "best_possible": {"after_frame": best, "observed": {str(f): at[f] for f in FRACTIONS}},
        "models": {
            name: {
                "after_frame": {"top1": accuracy.top1, "top5": accuracy.top5},
                "share_of_the_way": {str(f): way for f, way in ways[name].items()},
            }
            for name, accuracy in accuracies.items()
        },
    }
    with folder.new_file("table.json") as file:
        file.write_text(json_text(contents))
    header = ["accuracy", *seen, "parameters", "MACs of\na frame", "ms of\na frame"]
    print(f"\n{text_table(header, rows)}\n")
    print("The best possible is computed from how the clips are made. Times are those of one CPU thread, one clip.\n")
    for name, way in ways.items():
        learned = "" if all(way[f] >= GOAL for f in GOAL_AT) else "not "
        shares = " and ".join(f"{100 * way[f]:.0f} % at {100 * f:.0f} % seen" for f in GOAL_AT)
        print(f"{name}: {shares} of the way from chance to the best possible ({learned}learned: {100 * GOAL:.0f} %)")


@torch.inference_mode()
def _draw_accuracies(
    folder: OutputFolder,
    models: Mapping[str, Recognizer],
    accuracies: Mapping[str, Accuracy],
    test: LabelledClips,
    best: list[float],
) -> None:
    with folder.new_file("accuracy.png") as file:
        curves = {name: accuracy.top1 for name, accuracy in accuracies.items()}
        draw_accuracy(file, curves, {"best possible": best, "chance": [chance(test)] * len(best)})
    last = [*models][-1]
    with folder.new_file("confusion.png") as file:
        titles = {f"{last}, {100 * f:.0f} % seen": counts for f, counts in accuracies[last].confusion.items()}
        draw_confusion(file, titles, test.classes)
    # The first clip of an action that shares its beginning with another one.
    shared = [number for number, label in enumerate(test.labels) if ", then " in test.classes[label]]
    clip, label = test[shared[0] if shared else 0]
    with folder.new_file("labels.png") as file:
        probabilities = models[last](clip[None])[0].softmax(-1)
        draw_labels(file, clip, probabilities, test.classes, f"{last}; the true class: {test.classes[label]}")
