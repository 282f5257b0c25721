"""The Lightning module that trains a frame predictor by the settings of a recipe."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tt_conv.applications.training.by_recipe import TrainedByRecipe
from tt_conv.applications.training.plateau import PlateauSchedule
from tt_conv.applications.video_prediction.scheduled_sampling import fed_with_truth
from tt_conv.applications.video_prediction.settings import Settings
from tt_conv.applications.video_prediction.task import FramePrediction


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
