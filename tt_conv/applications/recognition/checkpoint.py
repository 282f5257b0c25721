"""Trained recognizers from checkpoints of ``tt-conv train``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.open_data import build_model
from tt_conv.applications.recognition.settings import Settings
from tt_conv.applications.training.checkpoint import CHECKPOINT_KEY, load_weights, read_checkpoint, task_of
from tt_conv.applications.training.settings import settings_from_dict


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
        A checkpoint of ``tt-conv train``. Only tensors and plain values are read.

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint of this task, or is damaged.
    """
    contents = read_checkpoint(path)
    if CHECKPOINT_KEY not in contents or task_of(contents) != "recognition":
        raise ValueError(f"{path} is no checkpoint of the task recognition: give one that tt-conv train wrote")
    kept = contents[CHECKPOINT_KEY]
    settings = settings_from_dict(kept["settings"])
    model = build_model(settings.model, kept["channels"], len(kept["classes"]))
    load_weights(model, contents, path)
    return Trained(model.eval(), settings, kept["classes"], kept["sequences_seen"], kept["epochs_done"])
