"""Pictures of what a model predicts while it is trained."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.output import replaced_file
from tt_conv.applications.pictures import draw_strips
from tt_conv.applications.video_prediction.module import VideoPrediction


class SamplePictures(Callback):
    """Draws what the model predicts for the first validation sequences, every few epochs."""

    def __init__(self, folder: Path, sequences: SequenceDataset, every: int) -> None:
        self.folder = folder
        self.sequences = [sequences[number] for number in range(min(2, len(sequences)))]
        self.every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VideoPrediction)
        assert isinstance(pl_module, VideoPrediction)
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or pl_module.validated_epoch != trainer.current_epoch or epoch % self.every:
            return
        given = pl_module.given
        frames = torch.stack(self.sequences).to(pl_module.device, next(pl_module.parameters()).dtype)
        future = frames.shape[1] - given
        with torch.inference_mode():
            predicted = pl_module.model(frames[:, :given], future)[:, -future:].float().cpu()
        examples = [{"truth": a, "predicted": b} for a, b in zip(self.sequences, predicted, strict=True)]
        self.folder.mkdir(exist_ok=True)
        with replaced_file(self.folder / f"epoch_{epoch:04d}.png") as partial:
            draw_strips(partial, examples, given, f"after epoch {epoch}")
