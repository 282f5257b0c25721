"""Fine-tuning of a compressed frame predictor: the task it was trained for, its original as a second teacher."""

import copy
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from tt_conv.applications import gate
from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.training.compression import Tuned
from tt_conv.applications.training.epochs import EpochBatches
from tt_conv.applications.training.one_pass import ProgressBar, quiet_lightning, stops_in_good_order
from tt_conv.applications.video_prediction.module import FramePrediction, Loss
from tt_conv.layers.wrapped import unwrapped

Batches = DataLoader[Tensor]


class Recovery(FramePrediction):
    """Frame prediction, with what another network predicts as a second truth.

    Parameters
    ----------
    model : nn.Module
        Called as ``model(frames [B, given, C, *S], future)``; it is trained.
    teacher : nn.Module, optional
        The original; called alike, it is left as it is.
    distill : float
        Its share of the loss, from 0 to 1; the true frames have the rest.
    given, steps, loss, learning_rate, clip_norm
        As in :class:`~tt_conv.applications.video_prediction.FramePrediction`.
    """

    def __init__(self, model: nn.Module, *, teacher: nn.Module | None = None, distill: float = 0.0, **task: Any):
        super().__init__(model, **task)
        if not 0 <= distill <= 1:
            raise ValueError(f"distill is a share of the loss, from 0 to 1, got {distill}")
        if distill and teacher is None:
            raise ValueError(f"distill={distill} needs the original network as the teacher")
        self.distill = distill
        self._teacher = (teacher,)  # not a part of this module: it is neither trained nor stored
        self._validation: list[tuple[float, int]] = []
        self.validated: list[tuple[int, float]] = []

    def loss(self, batch: Tensor, progress: float = 1.0) -> Tensor:
        """Loss on sequences ``[B, T, C, *S]``, and on what the teacher predicts of them."""
        (teacher,) = self._teacher
        if teacher is None or not self.distill:
            return super().loss(batch, progress)
        future = self.future(batch.shape[1], progress)
        given = batch[:, : self.given]
        predicted = self.model(given, future)
        with torch.no_grad():
            taught = teacher(given, future).to(batch.dtype)
        truth = self.loss_of(predicted, batch[:, 1 : self.given + future])
        return (1 - self.distill) * truth + self.distill * self.loss_of(predicted, taught)

    def validation_step(self, batch: Tensor) -> None:
        loss = super().loss(batch)
        self._validation.append((float(loss) * len(batch), len(batch)))

    def on_validation_epoch_end(self) -> None:
        total = sum(loss for loss, _ in self._validation) / sum(count for _, count in self._validation)
        self._validation.clear()
        self.validated.append((self.global_step, total))
        self.log("validation_loss", total)


def fine_tune(
    model: nn.Module,
    train: Batches,
    validation: Batches,
    *,
    given: int,
    original: nn.Module | None = None,
    distill: float = 0.0,
    steps: int | None = None,
    checks: int = 5,
    loss: Loss = "cross_entropy",
    learning_rate: float = 3e-4,
    clip_norm: float = 1.0,
    precision: str = "32-true",
    accelerator: str = "cpu",
) -> Tuned:
    """Train a compressed network a little further and return the best of what it was on the way.

    Parameters
    ----------
    model : nn.Module
        As :func:`~tt_conv.applications.compression.compress` returned it; called as ``model(frames, future)``. It is
        left as it is.
    train : DataLoader of Tensor ``[B, T, C, *S]``
        One batch per step; sequences with values from 0 to 1.
    validation : DataLoader of Tensor ``[B, T, C, *S]``
        Decides which weights are kept.
    given : int
        Frames that the network is shown.
    original : nn.Module, optional
        The network before compression, for ``distill``.
    distill : float
        Share of the loss, from 0 to 1, that is taken against the original's predictions instead of the true frames.
    steps : int, optional
        By default one per batch of ``train``.
    checks : int
        Validations on the way, the last one at the end; one more comes before the first step.
    loss, learning_rate, clip_norm
        As in :class:`~tt_conv.applications.video_prediction.FramePrediction`; one cycle, Adam.
    precision, accelerator : str
        As Lightning's trainer takes them.

    Returns
    -------
    Tuned

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> import contextlib, io
    >>> import torch
    >>> from tt_conv.applications.compression import compress
    >>> from tt_conv.layers import FramePredictor
    >>> model = FramePredictor(1, (8,), (1,), cell="conv_lstm", kernel_size=3, sigmoid=True)
    >>> smaller, report = compress(model, budget=0.5)
    >>> videos = DataLoader(torch.rand(8, 5, 1, 16, 16), batch_size=2)
    >>> with contextlib.redirect_stdout(io.StringIO()):  # the progress bar
    ...     tuned = fine_tune(smaller, videos, videos, given=3, original=model, distill=0.5)
    >>> tuned.validation[-1][0]  # steps
    4
    """
    steps = len(train) if steps is None else steps
    if not 1 <= steps <= len(train):
        raise ValueError(f"steps must be from 1 to the number of batches, {len(train)}, got {steps}")
    if checks < 1:
        raise ValueError(f"checks must be at least 1, got {checks}")
    tuned = copy.deepcopy(model)
    teacher = None if original is None or not distill else copy.deepcopy(original).eval()
    task = Recovery(
        tuned,
        teacher=teacher,
        distill=distill,
        given=given,
        steps=steps,
        loss=loss,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
    )
    bar = _TuningBar("Tuning", steps)
    before = copy.deepcopy(tuned.state_dict())
    with quiet_lightning(), TemporaryDirectory() as folder:
        kept = ModelCheckpoint(folder, monitor="validation_loss", save_top_k=1, save_weights_only=True)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=steps,
            val_check_interval=math.ceil(steps / checks),
            limit_train_batches=steps,
            num_sanity_val_steps=0,
            logger=False,
            enable_model_summary=False,
            callbacks=[bar, kept],
        )
        with stops_in_good_order(trainer) as stopped:
            try:
                trainer.validate(task, validation, verbose=False)
                trainer.fit(task, train, validation)
            except SystemExit as end:
                raise KeyboardInterrupt from end
        tuned.cpu()
        best = _best(task, before, kept.best_model_path)
        tuned.load_state_dict(best)
    for parameter, was in zip(tuned.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(was.requires_grad)
        parameter.grad = None
    done, _ = min(task.validated, key=lambda entry: entry[1])
    return Tuned(tuned.train(model.training), task.validated, done, bool(stopped))


class _TuningBar(ProgressBar):
    """One bar for the steps, none for the validations between them."""

    def init_sanity_tqdm(self) -> Any:
        return tqdm(disable=True)

    init_validation_tqdm = init_sanity_tqdm

    def on_exception(self, *_: Any) -> None:
        if self._train_progress_bar is not None:
            super().on_exception()


def _best(task: Recovery, before: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return the weights of the smallest validation loss."""
    start = task.validated[0][1]
    # NaN is no improvement.
    if not path or not Path(path).exists() or not min(loss for _, loss in task.validated[1:]) < start:
        return before
    contents = gate.read_torch(path)["state_dict"]
    return unwrapped(contents, before)


def batches(sequences: SequenceDataset, size: int, steps: int | None = None, epoch: int = 0) -> Batches:
    """Return the sequences of a data set in batches, all of them in order.

    With ``steps``, so many batches, shuffled, over and over if need be, as training draws them from ``epoch`` on.
    """
    if steps is None:
        return DataLoader(sequences, batch_size=size, generator=torch.Generator())
    return DataLoader(_Repeated(sequences, steps * size, epoch), batch_size=size, generator=torch.Generator())


class _Repeated(torch.utils.data.Dataset[Tensor]):
    """Draws from a data set, shuffled epoch after epoch, until there are as many sequences as asked for."""

    def __init__(self, sequences: SequenceDataset, length: int, epoch: int) -> None:
        self.sequences, self.length, self.first = sequences, length, epoch
        self._order: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < self.length:
            raise IndexError(number)
        epoch, place = divmod(number, len(self.sequences))
        epoch += self.first
        if epoch not in self._order:
            whole = len(self.sequences)
            self._order = {epoch: EpochBatches(whole, whole, seed=0, epoch=epoch).order}
        return self.sequences.draw(self._order[epoch][place], epoch)
