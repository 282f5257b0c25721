"""How a network learns to recognize actions early."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.applications.recognition.data import observed_frames
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.settings import Settings
from tt_conv.applications.training.by_recipe import TrainedByRecipe
from tt_conv.applications.training.module import TrainingModule

Batch = tuple[Tensor, Tensor]
"""Clips ``[B, T, C, H, W]`` with values from 0 to 1, and their labels ``[B]``."""


class EarlyRecognition(TrainingModule):
    r"""Trains a network to name the class after every frame, and to predict the frames that follow.

    With the scores after frame t and the predictions :math:`\hat x_{t+n}` that the network makes then, the loss is

    .. math::

        \sum_t w_t\, \mathrm{CE}(\text{scores}_t, \text{label})
        + \lambda\, \mathrm{mean}_{t,n}\, \mathrm{BCE}(\hat x_{t+n}, x_{t+n}),
        \qquad w_t \propto (t / T)^p, \quad \sum_t w_t = 1 ,

    over all frames t and n = 1 .. ``ahead`` with t + n <= T; BCE is the cross-entropy of the pixels.

    Parameters
    ----------
    model : Recognizer
        What is trained.
    steps : int
        Optimizer steps of the training.
    prediction_weight : float
        :math:`\lambda`; 0 trains the classifier alone: a decoder, if there is one, stays as it began.
    weight_power : float
        p.
    learning_rate, clip_norm : float
        See :class:`~tt_conv.applications.training.TrainingModule`.

    Examples
    --------
    >>> from tt_conv.applications.recognition.model import RecurrentRecognizer
    >>> model = RecurrentRecognizer(1, 3, (4,), (4,), rank=2, ahead=1)
    >>> task = EarlyRecognition(model, steps=100, prediction_weight=1.0)
    >>> task.loss((torch.rand(2, 5, 1, 8, 8), torch.tensor([0, 2]))).shape
    torch.Size([])
    """

    model: Recognizer

    def __init__(
        self,
        model: Recognizer,
        *,
        steps: int,
        prediction_weight: float = 0.0,
        weight_power: float = 1.0,
        learning_rate: float = 1e-3,
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__(model, steps=steps, learning_rate=learning_rate, clip_norm=clip_norm)
        if not prediction_weight >= 0 or not weight_power >= 0:
            raise ValueError(
                f"prediction_weight and weight_power must not be negative, got {prediction_weight} and {weight_power}"
            )
        if prediction_weight > 0 and not model.ahead:
            raise ValueError(
                f"prediction_weight={prediction_weight} needs a network that predicts frames: set model.ahead to at "
                "least 1, or prediction_weight to 0"
            )
        self.prediction_weight, self.weight_power = prediction_weight, weight_power

    def loss(self, batch: Batch, progress: float = 1.0) -> Tensor:
        """The joint loss."""
        return self.losses(batch)["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``; its parts ``cross_entropy`` and, with a decoder, ``prediction``; and the scores."""
        clips, labels = batch
        if not self.model.ahead:
            scores = self.model(clips)
            cross_entropy = self.cross_entropy(scores, labels)
            return {"loss": cross_entropy, "cross_entropy": cross_entropy, "scores": scores}
        scores, future = self.model.with_future(clips)
        cross_entropy, prediction = self.cross_entropy(scores, labels), prediction_loss(future, clips)
        loss = cross_entropy + self.prediction_weight * prediction
        return {"loss": loss, "cross_entropy": cross_entropy, "prediction": prediction, "scores": scores}

    def cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over the frames of scores ``[B, T, K]``, mean over the labels ``[B]``."""
        batch, frames = scores.shape[:2]
        weights = (torch.arange(1, frames + 1, device=scores.device, dtype=torch.float32) / frames) ** self.weight_power
        with torch.autocast(scores.device.type, enabled=False):
            scores = scores if scores.dtype == torch.float64 else scores.float()
            each = F.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(frames), reduction="none")
            weights = (weights / weights.sum()).to(each.dtype)
            return (each.reshape(batch, frames) @ weights).mean()


def prediction_loss(future: Tensor, clips: Tensor) -> Tensor:
    """Cross-entropy of the pixels, mean over all predicted frames that a clip has.

    Parameters
    ----------
    future : Tensor [B, T, ahead, C, H, W]
        Logits: number t, n is a guess at frame t + 1 + n.
    clips : Tensor [B, T, C, H, W]
    """
    frames = clips.shape[1]
    ahead = min(future.shape[2], frames - 1)
    if ahead < 1:
        raise ValueError("clips of one frame leave nothing to predict")
    with torch.autocast(clips.device.type, enabled=False):
        sums = [
            F.binary_cross_entropy_with_logits(
                future[:, : frames - 1 - n, n].to(clips.dtype), clips[:, 1 + n :], reduction="sum"
            )
            for n in range(ahead)
        ]
    predicted = sum(frames - 1 - n for n in range(ahead)) * clips[:, 0].numel()
    return torch.stack(sums).sum() / predicted


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
