"""Files of weights: what is in them, and of which task they are."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tt_conv.applications import gate
from tt_conv.applications.training.recipes import recipe_file
from tt_conv.applications.training.settings import (
    FIRST_TASK,
    conv_lstm_settings,
    read_settings,
    settings_from_dict,
)
from tt_conv.checks import check_sizes
from tt_conv.layers.wrapped import unwrapped

CHECKPOINT_KEY = "tt_conv"
# Where training programs keep the weights inside what they save.
_NESTED = ("state_dict", "model_state_dict", "model")
UNCOUNTED: Mapping[str, None] = {"sequences_seen": None, "epochs_done": None}
"""For files that need not tell of the training."""


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
    contents = gate.read_torch(path)
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} holds a {type(contents).__name__}, expected a checkpoint or a state dict")
    return contents


def weights_in(path: Path | str, contents: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights in what a file holds, by themselves or where training programs keep them."""
    weights = next((contents[key] for key in _NESTED if isinstance(contents.get(key), Mapping)), contents)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights: give a checkpoint of tt-conv train, or a state dict")
    gate.check_weights(path, weights)
    return weights


def task_of(contents: Mapping[str, Any]) -> str | None:
    """The task of what a file holds; ``None`` if it is not of ``tt-conv train``."""
    if CHECKPOINT_KEY not in contents:
        return None
    kept = contents[CHECKPOINT_KEY]
    return kept.get("task", FIRST_TASK) if isinstance(kept, Mapping) else FIRST_TASK


def settings_of_recipe(recipe: str) -> Any:
    """The settings in a YAML file, or in the recipe of that name."""
    return read_settings(Path(recipe) if Path(recipe).exists() else recipe_file(recipe))


@contextmanager
def named(path: Path | str, remedy: str = "give a checkpoint as tt-conv train wrote it") -> Iterator[None]:
    """Name the file in what goes wrong while what it tells of a training is made sense of."""
    try:
        yield
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}: {remedy}") from error
    except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is incomplete, or not of this program ({said}): {remedy}") from error


@dataclass(frozen=True)
class Account:
    """What a file tells of a trained network besides its weights.

    Parameters
    ----------
    settings : AnySettings
        Of the training.
    channels : int
        Of a frame.
    classes : tuple of str
        Names of the classes; empty where the task has none.
    sequences_seen, epochs_done : int, optional
        In training; ``None`` if the file does not tell.
    """

    settings: Any
    channels: int
    classes: tuple[str, ...]
    sequences_seen: int | None
    epochs_done: int | None


@dataclass(frozen=True)
class Trained(Account):
    """A network with its weights, and what is told of its training.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, on the CPU.

    Examples
    --------
    >>> from tt_conv.applications.training import load_trained
    >>> trained = load_trained("pretrained")
    >>> trained.settings.task, trained.channels, trained.classes
    ('video_prediction', 1, ())
    """

    model: Any

    @classmethod
    def of(cls, model: nn.Module, account: Account) -> "Trained":
        """A network and what its file tells of it."""
        return cls(**vars(account), model=model)


def account_of(kept: object, task: str) -> Account:
    """Check what a file tells of a trained network of a task.

    Parameters
    ----------
    kept : mapping
        What a checkpoint of ``tt-conv train`` has under its key, or the file beside a compressed network.
    task : str

    Returns
    -------
    Account

    Raises
    ------
    LookupError, TypeError, ValueError
        If something is missing, or is not what it should be; :func:`named` adds the file.
    """
    if not isinstance(kept, Mapping):
        raise TypeError(f"expected what is known of the training by name, got {str(kept)[:40]!r}")
    settings, classes = settings_from_dict(kept["settings"]), kept.get("classes", ())
    if settings.task != task:
        raise ValueError(f"its settings are of the task {settings.task}, expected {task}")
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be names, got {str(classes)[:40]!r}")
    counts = [kept["channels"], *(kept[name] for name in ("sequences_seen", "epochs_done"))]
    for name, count in zip(("channels", "sequences_seen", "epochs_done"), counts, strict=True):
        smallest = 1 if name == "channels" else 0
        if not (count is None and not smallest) and (type(count) is not int or not smallest <= count < 1 << 53):
            raise ValueError(f"{name} must be a number of at least {smallest} that can be counted, got {count!r:.40}")
    check_sizes({**asdict(settings.model), "channels": counts[0], "classes": len(classes)})
    return Account(settings, counts[0], tuple(classes), *counts[1:])


def load_network(
    path: Path | str, contents: Mapping[str, Any], task: str, build: Callable[[Account], nn.Module]
) -> Trained:
    """Build the network of a checkpoint of ``tt-conv train`` and give it its weights.

    Nothing of what the file says is believed: whatever is missing or wrong is refused with the file's name.

    Parameters
    ----------
    path : path
        Named in errors.
    contents : mapping
        What :func:`read_checkpoint` returned.
    task : str
        The task that the network must be of.
    build : callable
        Returns the untrained network from what is told of it.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        If it is no checkpoint of the task, or is damaged.
    """
    if CHECKPOINT_KEY not in contents:
        raise ValueError(f"{path} is no checkpoint of the task {task}: give one that tt-conv train wrote")
    if task_of(contents) != task:
        raise ValueError(f"{path} is a checkpoint of the task {task_of(contents)}: give one of {task}")
    with named(path):
        account = account_of(contents[CHECKPOINT_KEY], task)
        if contents[CHECKPOINT_KEY].get("dense"):  # from the first part of a training that began dense
            account = replace(account, settings=conv_lstm_settings(account.settings))
        with torch.device("meta"):  # sizes from a file cannot fill the memory
            model = build(account)
        weights = unwrapped(contents["state_dict"], model.state_dict())
        gate.check_weights(path, {name: weights[name] for name in model.state_dict() if name in weights})
        _give_weights(model, weights)
    return Trained.of(model.requires_grad_().eval(), account)


def _give_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Give a model on the meta device its weights, in its own dtypes."""
    for name, empty in model.state_dict().items():
        value = weights.get(name)
        if isinstance(value, Tensor):
            if value.is_floating_point() != empty.is_floating_point():
                raise ValueError(f"its weights {name} are {value.dtype}, expected {empty.dtype}")
            weights[name] = value.to(empty.dtype)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"its weights are not of the architecture that it names ({reason})") from error
