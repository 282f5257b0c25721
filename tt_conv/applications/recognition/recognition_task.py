"""The Lightning module that trains a recognizer by the settings of a recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tt_conv.applications.recognition.data import observed_frames
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.settings import Settings
from tt_conv.applications.recognition.task import Batch, EarlyRecognition
from tt_conv.applications.training.by_recipe import TrainedByRecipe

FRACTIONS = (0.25, 0.5, 1.0)


class Recognition(TrainedByRecipe, EarlyRecognition):
    """Trains a model by the settings of a recipe; batches are (numbers of the samples, (clips, labels)).

    Parameters
    ----------
    model : Recognizer
        What is trained.
    settings : Settings
        Everything else.
    classes : sequence of str
        Names of the classes.
    steps : int
        Optimizer steps of the whole training.
    """

    def __init__(self, model: Recognizer, settings: Settings, classes: Sequence[str], steps: int) -> None:
        recipe = settings.training
        super().__init__(
            settings,
            model=model,
            steps=steps,
            prediction_weight=recipe.prediction_weight,
            weight_power=recipe.weight_power,
        )
        self.classes = list(classes)

    def step_loss(self, numbers: Tensor, samples: Batch) -> Tensor:
        return self.loss(samples)

    def measures(self, samples: Batch) -> dict[str, Tensor]:
        losses, labels = self.losses(samples), samples[1]
        right = losses.pop("scores").argmax(-1) == labels[:, None]
        frames = right.shape[1]
        return losses | {
            f"accuracy_{round(100 * fraction)}": right[:, observed_frames(frames, fraction) - 1].double().mean()
            for fraction in FRACTIONS
        }

    def history(self) -> Mapping[str, float]:
        return {name: value for name, value in self.validated.items() if name not in ("", "loss")}

    def facts(self) -> Mapping[str, Any]:
        return {"channels": self.model.in_channels, "classes": self.classes}
