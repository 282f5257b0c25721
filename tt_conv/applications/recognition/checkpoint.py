"""Trained recognizers from checkpoints of ``tt-conv train``."""

from pathlib import Path

import torch

from tt_conv.applications import gate
from tt_conv.applications.compression import load_compressed
from tt_conv.applications.compression.pretrained import TRAINING
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.open_data import build_model
from tt_conv.applications.training.checkpoint import (
    UNCOUNTED,
    Account,
    Trained,
    account_of,
    load_network,
    named,
    read_checkpoint,
)


def load_recognizer(path: Path | str) -> Trained:
    """Load a recognizer; see :func:`~tt_conv.applications.training.load_trained`."""
    path = Path(path)
    if (path / TRAINING).is_file():
        return _compressed_recognizer(path)
    return load_network(path, read_checkpoint(path), "recognition", _recognizer)


def _recognizer(account: Account) -> Recognizer:
    if not account.classes:
        raise ValueError("it names no classes")
    return build_model(account.settings.model, account.channels, len(account.classes))


def _compressed_recognizer(folder: Path) -> Trained:
    file = folder / TRAINING
    with named(file, "give another folder"):
        account = account_of({**UNCOUNTED, **gate.read_json(file, "give another folder")}, "recognition")
        with torch.device("meta"):  # sizes from a file cannot fill the memory
            model = _recognizer(account)
    return Trained.of(load_compressed(model.eval(), folder), account)
