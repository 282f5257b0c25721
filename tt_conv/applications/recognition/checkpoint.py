"""Trained recognizers from checkpoints of ``tt-conv train``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tt_conv.applications.compression import load_compressed
from tt_conv.applications.compression.pretrained import TRAINING
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.open_data import build_model
from tt_conv.applications.recognition.settings import Settings
from tt_conv.applications.training.checkpoint import (
    UNCOUNTED,
    Account,
    account_of,
    load_network,
    named,
    read_checkpoint,
)


@dataclass
class Trained:
    """A recognizer with its weights, and what is known about its training.

    Parameters
    ----------
    model : Recognizer
        In evaluation mode, on the CPU.
    settings : Settings
        Of the training.
    classes : sequence of str
        Names of the classes.
    sequences_seen, epochs_done : int, optional
        In training.
    """

    model: Recognizer
    settings: Settings
    classes: Sequence[str]
    sequences_seen: int | None = None
    epochs_done: int | None = None


def load_trained(path: Path | str) -> Trained:
    """Load a recognizer.

    Parameters
    ----------
    path : path
        A checkpoint of ``tt-conv train``, or a folder of ``tt-conv compress``. Only tensors and plain values are
        read.

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint of this task, or is damaged.

    Examples
    --------
    >>> import contextlib, io, tempfile
    >>> from tt_conv.applications.recognition.settings import DataSettings, ModelSettings, Settings, TrainingSettings
    >>> from tt_conv.applications.training import run_training
    >>> folder = tempfile.TemporaryDirectory()
    >>> settings = Settings(
    ...     DataSettings(frames=4, size=16, clips=14, validation_clips=14, test_clips=14, cache=folder.name),
    ...     ModelSettings("conv_lstm", encoder_channels=[4], hidden_channels=[4]),
    ...     TrainingSettings(epochs=1, batch_size=14),
    ... )
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     complete = run_training(settings, folder.name + "/run")
    >>> trained = load_trained(folder.name + "/run/best.ckpt")
    >>> trained.settings.data.frames
    4
    >>> folder.cleanup()
    """
    path = Path(path)
    if (path / TRAINING).is_file():
        return _from_compressed(path)
    model, account = load_network(path, read_checkpoint(path), "recognition", _build)
    return _trained(model, account)


def _build(account: Account) -> Recognizer:
    if not account.classes:
        raise ValueError("it names no classes")
    return build_model(account.settings.model, account.channels, len(account.classes))


def _trained(model: Recognizer, account: Account) -> Trained:
    return Trained(model, account.settings, account.classes, account.sequences_seen, account.epochs_done)


def _from_compressed(folder: Path) -> Trained:
    file = folder / TRAINING
    with named(file, "give another folder"):
        account = account_of({**UNCOUNTED, **json.loads(file.read_text())}, "recognition")
        model = _build(account)
    return _trained(load_compressed(model.eval(), folder), account)  # type: ignore[arg-type]
