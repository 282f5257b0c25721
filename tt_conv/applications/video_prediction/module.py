"""How a frame predictor is trained."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tt_conv.applications.training import TrainingModule
from tt_conv.applications.training.by_recipe import TrainedByRecipe
from tt_conv.applications.training.plateau import PlateauSchedule
from tt_conv.applications.video_prediction.scheduled_sampling import fed_with_truth
from tt_conv.applications.video_prediction.settings import Settings

Loss = Literal["l1_mse", "cross_entropy"]


class FramePrediction(TrainingModule):
    """Trains a model to predict the next frames of sequences.

    The sequences are ``[B, T, C, *S]`` with values from 0 to 1; the model predicts their frames 2 .. T.
    While there are given frames, the model predicts each frame from the true ones before it; after that from
    its own predictions. The loss is the mean over all its outputs.

    Parameters
    ----------
    model : nn.Module
        Called as ``model(frames [B, given, C, *S], future) -> [B, given + future - 1, C, *S]``.
    given : int
        Number of frames that the model is shown; it predicts the rest of the sequence.
    steps : int
        Optimizer steps of the training.
    loss : {"l1_mse", "cross_entropy"}
        The published L1 + MSE, or the cross-entropy of each pixel, for models that end with a sigmoid. (The
        absolute error alone favours an empty frame as long as it is unsure where things are.)
    growth : float
        Share of the training, from 0 to 1, over which the predicted future grows from one frame to all.
    learning_rate, clip_norm : float
        See :class:`~tt_conv.applications.training.TrainingModule`.

    Examples
    --------
    >>> from tt_conv.layers import FramePredictor
    >>> model = FramePredictor(1, (4,), (1,), kernel_size=3, rank=2)
    >>> task = FramePrediction(model, given=3, steps=100)
    >>> task.loss(torch.rand(2, 5, 1, 8, 8), progress=0.0).shape
    torch.Size([])

    References
    ----------
    J. Su, W. Byeon, J. Kossaifi, F. Huang, J. Kautz, A. Anandkumar: Convolutional tensor-train LSTM for
    spatio-temporal learning. NeurIPS 2020, arXiv 2002.09131 (the loss L1 + MSE).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        given: int,
        steps: int,
        loss: Loss = "l1_mse",
        growth: float = 0.0,
        learning_rate: float = 1e-3,
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__(model, steps=steps, learning_rate=learning_rate, clip_norm=clip_norm)
        if given < 1:
            raise ValueError(f"given must be at least 1 frame, got {given}")
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(map(repr, get_args(Loss)))}, got {loss!r}")
        if not 0 <= growth <= 1:
            raise ValueError(f"growth is a share of the training, from 0 to 1, got {growth}")
        self.given = given
        self.loss_name = loss
        self.growth = growth

    def future(self, frames: int, progress: float) -> int:
        """Number of frames predicted beyond the given ones, of sequences of ``frames``, at a point of training."""
        future = frames - self.given
        if future < 1:
            raise ValueError(f"sequences of {frames} frames with {self.given} given leave nothing to predict")
        return future if progress >= self.growth else 1 + int(future * progress / self.growth)

    def loss(self, batch: Tensor, progress: float = 1.0) -> Tensor:
        """Loss on sequences ``[B, T, C, *S]``; ``progress`` is the share of the training that is done."""
        future = self.future(batch.shape[1], progress)
        return self.loss_of(self.model(batch[:, : self.given], future), batch[:, 1 : self.given + future])

    def loss_of(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss of predicted frames against the true ones, of the same shape, in the precision of the latter."""
        with torch.autocast(target.device.type, enabled=False):
            predicted = predicted.to(target.dtype)
            if self.loss_name == "cross_entropy":
                try:
                    return F.binary_cross_entropy(predicted, target)
                except RuntimeError as error:
                    if "between 0 and 1" not in str(error):
                        raise
                    if not 0 <= target.min() <= target.max() <= 1:
                        raise ValueError(
                            f"cross_entropy: the frames must be numbers from 0 to 1, got {float(target.min())} to "
                            f"{float(target.max())}"
                        ) from error
                    raise ValueError(
                        "cross_entropy: the model's outputs are not numbers from 0 to 1: the training diverged (lower "
                        "its learning rate), or the model does not end with a sigmoid"
                    ) from error
            return F.l1_loss(predicted, target) + F.mse_loss(predicted, target)


def start_at_mean(model: nn.Module, frames: Tensor) -> None:
    """Let the output of a model with a sigmoid start at the mean of its frames instead of at one half."""
    output = model.get_submodule("output")
    with torch.no_grad():
        output.get_parameter("bias").fill_(torch.logit(frames.mean()))


class VideoPrediction(TrainedByRecipe, FramePrediction):
    """Trains a model by the settings of a recipe; batches are (numbers of the samples, sequences).

    Parameters
    ----------
    model : nn.Module
        Called as ``model(frames, future, truth, use_truth)``, see
        :class:`~tt_conv.layers.FramePredictor`.
    settings : Settings
        Everything else.
    steps : int
        Optimizer steps of the whole training.
    """

    def __init__(self, model: nn.Module, settings: Settings, steps: int) -> None:
        recipe = settings.training
        super().__init__(
            settings,
            model=model,
            given=settings.data.given,
            steps=steps,
            loss=recipe.loss,
            growth=recipe.growth,
        )
        self.plateau = PlateauSchedule(
            recipe.sampling_ratio, recipe.sampling_decay, recipe.patience, recipe.lr_decay, recipe.lr_decay_every
        )

    def step_loss(self, numbers: Tensor, samples: Tensor) -> Tensor:
        future = self.future(samples.shape[1], self.global_step / self.steps)
        truth = use_truth = None
        if self.plateau.ratio > 0 and future > 1:
            truth = samples[:, self.given : self.given + future - 1]
            use_truth = fed_with_truth(
                numbers, future - 1, self.plateau.ratio, seed=self.settings.training.seed, epoch=self.current_epoch
            )
        predicted = self.model(samples[:, : self.given], future, truth, use_truth)
        return self.loss_of(predicted, samples[:, 1 : self.given + future])

    def history(self) -> Mapping[str, float]:
        return {"sampling_ratio": self.plateau.ratio}

    def facts(self) -> Mapping[str, Any]:
        outputs = self.model.get_submodule("output").get_parameter("bias").numel()
        return {"channels": outputs // self.settings.model.patch_size**2}
