"""Recognition as a training of any task sees it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tt_conv.applications.data.splits import Split
from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.module import Recognition
from tt_conv.applications.recognition.open_data import build_model, open_data
from tt_conv.applications.recognition.settings import DataSettings, Settings
from tt_conv.applications.training.applications import Application
from tt_conv.applications.training.checkpoint import Trained
from tt_conv.applications.training.compression import CompressionSource


class RecognitionApplication(Application):
    """Early recognition of actions."""

    task = "recognition"
    samples = "clips"
    leaves = "best.ckpt, last.ckpt, history.csv and the TensorBoard log"

    def check(self, settings: Settings) -> None:
        if settings.data.frames < 2:
            raise ValueError(f"data.frames must be at least 2, got {settings.data.frames}")

    def open_data(self, settings: DataSettings, split: Split) -> Any:
        return open_data(settings, split)

    def training(self, settings: Settings, train: Any, steps: int) -> Recognition:
        recipe, channels = settings.training, train[0][0].shape[1]
        model = build_model(settings.model, channels, len(train.classes), recipe.seed, recipe.start)
        model.check_size(train[0][0].shape[2:])
        return Recognition(model, settings, train.classes, steps)

    def inputs(self, settings: Settings, samples: Sequence[Any]) -> Any:
        return torch.stack([clip for clip, _ in samples])

    def introduction(self, settings: Settings, train: Any, validation: Any) -> str:
        frames, channels, height, width = train[0][0].shape
        return (
            f"{len(train):,} training and {len(validation):,} validation clips of {len(train.classes)} classes, "
            f"{frames} frames of {channels} x {height} x {width}, values from 0 to 1."
        )

    def model_name(self, settings: Settings) -> str:
        return settings.model.kind

    def load_trained(self, path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
        _of_ours(path, {"recipe": recipe, "channels": channels})
        return load_recognizer(path)

    def evaluate(self, checkpoint: Path | str, out: Path | str | None, settings: Any, **source: Any) -> dict[str, Any]:
        from tt_conv.applications.recognition.evaluate_trained import run_evaluation

        return run_evaluation(checkpoint, out, settings, data=_of_ours(checkpoint, source)["data"])

    def predict(
        self, checkpoint: Path | str, video: Path | str, out: Path | str | None, settings: Any, **source: Any
    ) -> Any:
        from tt_conv.applications.recognition.predict import run_prediction

        _of_ours(checkpoint, source)
        return run_prediction(checkpoint, video, out, settings)

    def compression_source(self, checkpoint: Path | str, **source: Any) -> CompressionSource:
        from tt_conv.applications.recognition.compression_source import RecognizerSource

        return RecognizerSource(checkpoint, _of_ours(checkpoint, source)["data"])

    def demo(self, settings: Any, out: Path | str | None = None) -> bool:
        from tt_conv.applications.recognition.demo import run_demo

        return run_demo(settings, out)


def _of_ours(checkpoint: Path | str, source: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is about networks that were not trained here."""
    needless = [f"--{name}" for name, value in source.items() if name != "data" and value is not None]
    if needless:
        raise ValueError(f"{checkpoint} is of the task recognition, which has no {', '.join(needless)}: leave that out")
    return source


APPLICATION = RecognitionApplication()
