"""What a training leaves while it runs: checkpoints, a history, and a progress bar."""

import csv
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from tqdm import tqdm

from tt_conv.applications.output import replaced_file
from tt_conv.applications.training.by_recipe import TrainedByRecipe

BEST, LAST = "best.ckpt", "last.ckpt"


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` after every epoch and ``best.ckpt`` after those with the smallest validation loss yet.

    Within an epoch, ``last.ckpt`` is written anew whenever so many minutes have passed, 0 for never: a training that
    is killed loses what it did since.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder = folder
        self.seconds = 60 * minutes or float("inf")
        self._written = time.monotonic()
        self.best = float("inf")
        self.best_is_dense = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_is_dense": self.best_is_dense}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.best_is_dense = state_dict.get("best_is_dense", False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainedByRecipe)
        if pl_module.validated_epoch != trainer.current_epoch:
            return
        if self.best_is_dense and not pl_module.is_dense:
            self.best = float("inf")  # the best is what was asked for, not what it began as
        self.best_is_dense = pl_module.is_dense
        better = pl_module.validation_loss < self.best
        self.best = min(self.best, pl_module.validation_loss)
        self._write(trainer, [BEST] * better + [LAST])

    def on_train_start(self, *_: Any) -> None:
        self._written = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, TrainedByRecipe)
        if self.seconds == float("inf") or not pl_module.within_epoch:
            return
        # Clocks differ, and every process must take part: the first one says when.
        if trainer.strategy.broadcast(time.monotonic() - self._written >= self.seconds):
            self._write(trainer, [LAST])

    def _write(self, trainer: pl.Trainer, names: list[str]) -> None:
        # Every process takes part in collecting the state; one writes it.
        state = trainer._checkpoint_connector.dump_checkpoint()
        if trainer.is_global_zero:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            for name in names:
                with replaced_file(self.folder / name, to_disk=True) as partial:
                    partial.write_bytes(buffer.getvalue())
        trainer.strategy.barrier()
        self._written = time.monotonic()


class History(Callback):
    """Writes ``history.csv``: one line per epoch, rewritten as a whole, so that a resumed training continues it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": time.perf_counter() - self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._start = time.perf_counter() - state_dict.get("seconds", 0.0)

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainedByRecipe)
        if pl_module.validated_epoch != trainer.current_epoch:
            return
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "sequences": pl_module.sequences_seen,
                "training_loss": pl_module.training_loss,
                "validation_loss": pl_module.validation_loss,
                "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
                **pl_module.history(),
                "seconds": round(time.perf_counter() - self._start, 3),
            }
        )
        if trainer.is_global_zero:
            text = io.StringIO()
            writer = csv.DictWriter(text, [*self.rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            with replaced_file(self.folder / "history.csv", to_disk=True) as partial:
                partial.write_bytes(text.getvalue().encode())


class RunBar(Callback):
    """A progress bar over all steps of all epochs, with the time that is left."""

    FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps [{elapsed} < {remaining} left{postfix}]"

    def __init__(self, steps: int, epochs: int) -> None:
        self.steps, self.epochs = steps, epochs
        self._bar: tqdm | None = None
        self._shown: dict[str, str] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            interactive = sys.stdout.isatty()
            self._bar = tqdm(
                total=self.steps,
                initial=trainer.global_step,
                bar_format=self.FORMAT,
                file=sys.stdout,
                mininterval=0.2 if interactive else 20,
                dynamic_ncols=interactive,
                ncols=None if interactive else 110,
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_description(f"Epoch {trainer.current_epoch + 1}/{self.epochs}", refresh=False)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if self._bar is not None:
            loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
            # Reading a number from a GPU waits for it: not more often than the bar is drawn.
            if time.monotonic() - getattr(self, "_read", 0.0) > 1:
                self._read = time.monotonic()
                self._shown["loss"] = f"{float(loss):.4f}"
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainedByRecipe)
        self._shown["validation"] = f"{pl_module.validation_loss:.4f}"

    def on_train_end(self, *_: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None
