"""``tt-conv demo --task recognition``: two networks learn to name what moving digits do, before they have done it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tt_conv._version import __version__
from tt_conv.applications.output import OutputFolder, json_text
from tt_conv.applications.recognition.data import LabelledClips
from tt_conv.applications.recognition.evaluate_trained import milliseconds_per_frame
from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.module import FRACTIONS, EarlyRecognition
from tt_conv.applications.recognition.open_data import build_model, open_data
from tt_conv.applications.recognition.pictures import draw_accuracy, draw_confusion, draw_labels
from tt_conv.applications.recognition.scores import Accuracy
from tt_conv.applications.recognition.settings import DataSettings, DemoSettings, ModelSettings
from tt_conv.applications.training.epochs import EpochBatches
from tt_conv.applications.training.module import SideBySide
from tt_conv.applications.training.one_pass import Outcome, fit
from tt_conv.tables import text_table

GOAL = 0.7  # of the way from chance to the best possible, at the fractions of GOAL_AT
GOAL_AT = (0.5, 1.0)
TEST_BATCH = 28


def run_demo(settings: DemoSettings, out: Path | str | None = None) -> bool:
    """Make the clips, train, evaluate, print the tables and write a folder of results.

    Parameters
    ----------
    settings : DemoSettings
        The numbers depend on nothing else, timing apart.
    out : path, optional
        Folder to write to; by default ``tt-conv-demo``, or ``tt-conv-demo-2``, ... where that exists.

    Returns
    -------
    bool
        Whether the training was complete: ``False`` after Ctrl-C, with results of what had been learned.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C after the training; ``models.pt`` and what else was complete by then stay in the folder.
    FileExistsError
        If the folder exists and is not empty.
    ValueError
        If a setting is out of its range.
    """
    if settings.steps < 1:
        raise ValueError(f"steps must be at least 1, got {settings.steps}")
    if settings.seed < 0:
        raise ValueError(f"seed must be 0 or more, got {settings.seed}")
    folder = OutputFolder.with_free_name("tt-conv-demo") if out is None else OutputFolder(out)
    with folder, _one_thread():
        print("Opening the clips (made at the first time, then kept in the cache) ...", flush=True)
        data = _data(settings)
        train, test = open_data(data, "train"), open_data(data, "test")
        models = build_models(settings, len(train.classes))
        print(_introduction(settings, train, test), flush=True)
        outcome = _train(models, train, settings)
        if outcome.interrupted:
            print(
                f"\nStopped after {outcome.steps_done} of {settings.steps} steps; evaluating what was learned so far."
            )
        _save(folder, models, train, outcome, settings)
        print(f"\nEvaluating on {len(test)} clips of digits that were never seen ...", flush=True)
        accuracies = {name: accuracy_of(model.eval(), test, FRACTIONS) for name, model in models.items()}
        best = ceiling(data, data.frames) or [1.0] * data.frames
        _report(folder, models, accuracies, test, best, outcome, settings)
        _draw(folder, models, accuracies, test, best)
    print(f"\nmodels.pt, table.json, accuracy.png, confusion.png and labels.png are in {folder.path}")
    return not outcome.interrupted


def build_models(settings: DemoSettings, classes: int) -> dict[str, Recognizer]:
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per operation: each model has its own core, and numbers do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _introduction(settings: DemoSettings, train: LabelledClips, test: LabelledClips) -> str:
    return (
        f"{len(train.classes)} actions of two digits, {len(train)} training clips of {train[0][0].shape[0]} frames, "
        f"{settings.size} x {settings.size} pixels; some actions only part ways later in the clip.\n"
        f"Two models of the same width learn for {settings.steps} steps of {settings.batch_size} clips (seed "
        f"{settings.seed}). Ctrl-C stops early and keeps what was learned."
    )


def _train(models: Mapping[str, Recognizer], train: LabelledClips, settings: DemoSettings) -> Outcome:
    tasks = {
        name: EarlyRecognition(
            model,
            steps=settings.steps,
            prediction_weight=settings.prediction_weight,
            learning_rate=settings.learning_rate,
        )
        for name, model in models.items()
    }
    clips = _Epochs(train, settings)
    # A generator of its own: the loader draws a seed for its workers, from the global one otherwise.
    batches: DataLoader[Any] = DataLoader(clips, batch_size=clips.batch_size, generator=torch.Generator())
    return fit(SideBySide(tasks), batches)


def _save(
    folder: OutputFolder,
    models: Mapping[str, Recognizer],
    train: LabelledClips,
    outcome: Outcome,
    settings: DemoSettings,
) -> None:
    """Keep what was learned before anything that can be interrupted."""
    contents = {
        "models": {name: model.state_dict() for name, model in models.items()},
        "classes": list(train.classes),
        "steps_done": outcome.steps_done,
        "settings": asdict(settings),
    }
    with folder.new_file("models.pt") as file:
        torch.save(contents, file)


def _report(
    folder: OutputFolder,
    models: Mapping[str, Recognizer],
    accuracies: Mapping[str, Accuracy],
    test: LabelledClips,
    best: list[float],
    outcome: Outcome,
    settings: DemoSettings,
) -> None:
    lowest, ways = chance(test), {}
    at = {fraction: best[round(fraction * len(best)) - 1] for fraction in FRACTIONS}
    rows = []
    for name, model in models.items():
        accuracy = accuracies[name]
        ways[name] = {f: (accuracy.at(f)[0] - lowest) / (at[f] - lowest) for f in FRACTIONS}
        cost = [
            f"{sum(parameter.numel() for parameter in model.parameters()):,}",
            f"{model.macs((settings.size, settings.size)) / 1e6:.1f} M",
            f"{milliseconds_per_frame(model, test[0][0]):.2f}",
        ]
        rows.append([name, *(f"{100 * accuracy.at(f)[0]:.1f} %" for f in FRACTIONS), *cost])
    for name, values in (("chance", dict.fromkeys(FRACTIONS, lowest)), ("best possible", at)):
        rows.append([name, *(f"{100 * values[f]:.1f} %" for f in FRACTIONS), "", "", ""])
    seen = [f"{100 * f:.0f} %\nseen" for f in FRACTIONS]
    contents = {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "settings": asdict(settings),
        "training": asdict(outcome),
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
def _draw(
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
