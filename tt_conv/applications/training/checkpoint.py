"""Files of weights: what is in them, and of which task they are."""

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tt_conv.applications.training.settings import FIRST_TASK
from tt_conv.applications.training.task_application import Trained, application

CHECKPOINT_KEY = "tt_conv"


def read_checkpoint(path: Path | str) -> Mapping[str, Any]:
    """What a file holds that ``torch.save`` wrote; only tensors and plain values are read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint, or is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a checkpoint, such as {path / 'best.ckpt'}")
    with path.open("rb") as file:  # for the plain error of a file that is missing or may not be read
        is_archive = file.read(2) == b"PK"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is no checkpoint, before it is refused
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, OSError) as error:
        # PyTorch's own words advise to load it all the same, which runs what it holds.
        if is_archive and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} holds Python objects beside tensors and plain values; they could run any code and are not "
                "loaded: save a state dict instead, torch.save(model.state_dict(), path)"
            ) from error
        raise ValueError(f"{path} is no checkpoint, or a damaged one: give another file") from error
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} holds a {type(contents).__name__}, expected a checkpoint or a state dict")
    return contents


def task_of(contents: Mapping[str, Any]) -> str:
    """The task of what a file holds; those that do not tell are of video prediction."""
    kept = contents.get(CHECKPOINT_KEY)
    return kept.get("task", FIRST_TASK) if isinstance(kept, Mapping) else FIRST_TASK


def task_of_file(path: Path | str) -> str:
    """The task of the network in a file; whatever else is wrong with it, loading will say."""
    path = Path(path)
    if path.is_dir():
        return _task_of_folder(path)
    return task_of(read_checkpoint(path)) if path.is_file() and path.suffix != ".safetensors" else FIRST_TASK


def _task_of_folder(folder: Path) -> str:
    """Of a folder of ``tt-conv compress``."""
    try:
        settings = json.loads((folder / "training.json").read_text())["settings"]
        return str(settings.get("task", FIRST_TASK))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return FIRST_TASK


def load_any_trained(path: Path | str) -> Trained:
    """A trained network of any task, from a checkpoint of ``tt-conv train``.

    Parameters
    ----------
    path : path

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint, or is damaged.

    Examples
    --------
    >>> load_any_trained("pretrained").settings.data.kind  # the network that comes with the package
    'moving_mnist'
    """
    return application(task_of_file(path)).load_trained(path)


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Name the file in what goes wrong while a checkpoint of ``tt-conv train`` is made sense of."""
    remedy = "give a checkpoint as tt-conv train wrote it"
    try:
        yield
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}: {remedy}") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is incomplete, or not of this program ({error}): {remedy}") from error


def load_weights(model: nn.Module, contents: Mapping[str, Any], path: Path | str) -> None:
    """Give a model the weights of a checkpoint."""
    weights = {name.removeprefix("model."): value for name, value in contents["state_dict"].items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its weights are not of the architecture that it names ({' '.join(str(error).split())[:300]}): "
            "give a checkpoint as tt-conv train wrote it"
        ) from error
