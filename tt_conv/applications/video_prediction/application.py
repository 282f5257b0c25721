"""Video prediction as a training of any task sees it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from tt_conv.applications.data.splits import Split
from tt_conv.applications.training.applications import Application
from tt_conv.applications.training.checkpoint import Trained
from tt_conv.applications.training.compression import CompressionSource
from tt_conv.applications.video_prediction.checkpoint import load_predictor
from tt_conv.applications.video_prediction.module import VideoPrediction, start_at_mean
from tt_conv.applications.video_prediction.open_data import build_model, open_data
from tt_conv.applications.video_prediction.sample_pictures import SamplePictures
from tt_conv.applications.video_prediction.settings import DataSettings, Settings


class VideoPredictionApplication(Application):
    """Multi-step video prediction."""

    task = "video_prediction"
    samples = "sequences"
    leaves = "best.ckpt, last.ckpt, history.csv, samples and the TensorBoard log"

    def check(self, settings: Settings) -> None:
        recipe = settings.training
        if recipe.pictures_every < 0:
            raise ValueError(f"training.pictures_every must not be negative, got {recipe.pictures_every}")
        if not 0 <= recipe.sampling_ratio <= 1:
            raise ValueError(f"training.sampling_ratio must be from 0 to 1, got {recipe.sampling_ratio}")
        if not recipe.sampling_decay >= 0:
            raise ValueError(f"training.sampling_decay must not be negative, got {recipe.sampling_decay}")
        if not settings.model.sigmoid and (recipe.loss == "cross_entropy" or recipe.start_at_mean):
            raise ValueError(
                "training.loss=cross_entropy and training.start_at_mean need a model that ends with a sigmoid: set "
                "model.sigmoid=true, or training.loss=l1_mse and training.start_at_mean=false"
            )

    def open_data(self, settings: DataSettings, split: Split) -> Any:
        return open_data(settings, split)

    def decided(self, settings: Settings, train: Any) -> Settings:
        found = getattr(train, "value_range", None)
        if settings.data.kind != "own" or found is None:
            return settings
        return replace(settings, data=replace(settings.data, value_range=found))

    def training(self, settings: Settings, train: Any, steps: int) -> VideoPrediction:
        recipe, (channels, *sides) = settings.training, train[0].shape[1:]
        model = build_model(settings.model, channels, recipe.seed, recipe.start)
        patch = settings.model.patch_size
        if any(side % patch for side in sides):
            raise ValueError(
                f"model.patch_size={patch} must divide the frames' sides {tuple(sides)}: bring them to "
                "another with data.size"
            )
        if recipe.start_at_mean:
            start_at_mean(model, torch.stack([train[number] for number in range(min(16, len(train)))]))
        return VideoPrediction(model, settings, steps)

    def inputs(self, settings: Settings, samples: Sequence[Any]) -> Any:
        return torch.stack(list(samples))[:, : settings.data.given], settings.data.future

    def introduction(self, settings: Settings, train: Any, validation: Any) -> str:
        channels, height, width = train[0].shape[1:]
        return (
            f"{len(train):,} training and {len(validation):,} validation sequences of "
            f"{settings.data.given} + {settings.data.future} frames, "
            f"{channels} x {height} x {width}, values from 0 to 1."
        )

    def model_name(self, settings: Settings) -> str:
        return settings.model.cell

    def callbacks(self, settings: Settings, folder: Path, validation: Any) -> list[Callback]:
        every = settings.training.pictures_every
        return [SamplePictures(folder / "samples", validation, every)] if every else []

    def load_trained(self, path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
        return load_predictor(path, recipe, channels)

    def evaluate(self, checkpoint: Path | str, out: Path | str | None, settings: Any, **source: Any) -> dict[str, Any]:
        from tt_conv.applications.video_prediction.evaluate_trained import run_evaluation

        return run_evaluation(checkpoint, out, settings, **source)

    def predict(
        self, checkpoint: Path | str, video: Path | str, out: Path | str | None, settings: Any, **source: Any
    ) -> Any:
        from tt_conv.applications.video_prediction.predict import run_prediction

        return run_prediction(checkpoint, video, out, settings, **source)

    def compression_source(self, checkpoint: Path | str, **source: Any) -> CompressionSource:
        from tt_conv.applications.video_prediction.compression_source import open_source

        return open_source(checkpoint, **source)

    def demo(self, settings: Any, out: Path | str | None = None) -> bool:
        from tt_conv.applications.video_prediction.demo import run_demo

        return run_demo(settings, out)


APPLICATION = VideoPredictionApplication()
