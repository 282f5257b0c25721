"""The settings that the trainings of all tasks have, and settings as YAML files hold them. Imports nothing heavy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from tt_conv.applications import gate

# Task -> the package whose module ``settings`` has its Settings, and whose module ``application`` its Application.
TASKS: Mapping[str, str] = {
    "video_prediction": "tt_conv.applications.video_prediction",
    "recognition": "tt_conv.applications.recognition",
}
# What files were made by that do not tell.
FIRST_TASK = "video_prediction"
PARTS = ("data", "model", "training")
# Model settings that a ConvTT-LSTM has and a ConvLSTM has not.
OPTIONS_OF_CONV_TT = ("order", "steps", "rank", "input_rank", "window", "boundary")

Values = TypeVar("Values", bound=Any)


@dataclass
class TrainingSettings:
    """The part of a recipe that does not depend on the task: optimizer, schedules, and on what it runs.

    Parameters
    ----------
    epochs : int
        Passes over the training samples.
    batch_size : int
        Samples in a step, of all devices together.
    optimizer : str
        adam or adamw.
    learning_rate : float
        The largest one.
    weight_decay : float
        Of adamw.
    clip_norm : float, optional
        Largest norm of the gradient.
    dense_start : float
        Share of the steps, from 0 to below 1, that a ConvTT-LSTM begins as a ConvLSTM of the same shape; then it is
        converted with samples of the training, and the training goes on.
    schedule : str
        plateau: the learning rate decays once the validation loss has stalled (and, where there is scheduled
        sampling, stalled again after that began to fade); one_cycle: it rises over a tenth of the steps, then falls
        along a cosine.
    patience : int
        Epochs without a better validation loss that count as stalled.
    lr_decay : float
        Factor of the learning rate, schedule plateau.
    lr_decay_every : int
        Epochs between two such decays.
    start : str
        Initial weights: xavier (zero biases) or default (PyTorch's).
    precision : str
        32, bf16 (convolutions in bfloat16), fp16 (in float16, with scaled losses; GPU only) or 64.
    seed : int
        Of all that is random in a training.
    checkpoint_minutes : float
        last.ckpt is written after every epoch, and within an epoch whenever so many minutes have passed; 0 for never.
    accelerator : str
        auto, cpu, gpu or another that Lightning knows.
    devices : str
        Number of devices, or auto for all of one machine; start several machines with torchrun.
    strategy : str
        auto, ddp or another that Lightning knows.
    nodes : int
        Machines.

    Examples
    --------
    >>> TrainingSettings(epochs=5, schedule="one_cycle").optimizer
    'adamw'
    """

    epochs: int = 20
    batch_size: int = 16
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    dense_start: float = 0.0
    schedule: Literal["plateau", "one_cycle"] = "one_cycle"
    patience: int = 20
    lr_decay: float = 0.98
    lr_decay_every: int = 5
    start: Literal["xavier", "default"] = "xavier"
    precision: Literal["32", "bf16", "fp16", "64"] = "32"
    seed: int = 0
    checkpoint_minutes: float = 10.0
    accelerator: str = "auto"
    devices: str = "1"
    strategy: str = "auto"
    nodes: int = 1


@dataclass(frozen=True)
class EvaluationSettings:
    """How an evaluation is done.

    Parameters
    ----------
    split : str
        Part of the data.
    batch_size : int
        Samples at a time.
    device : str
        Such as cpu or cuda; auto takes a GPU where there is one.
    """

    split: Literal["train", "validation", "test"] = "test"
    batch_size: int = 16
    device: str = "auto"


@dataclass(frozen=True)
class PredictionSettings:
    """How a network is applied to a video.

    Parameters
    ----------
    device : str
        Such as cpu or cuda; auto takes a GPU where there is one.
    """

    device: str = "auto"


@dataclass(frozen=True)
class CompressionSettings:
    """How a trained network is compressed.

    Parameters
    ----------
    budgets : sequence of float
        One, or several for a sweep.
    budget_of : str
        Of what: a fraction of the parameters or MACs, or the largest relative error of the output.
    formats : sequence of str
        To choose from; none means all.
    keep : sequence of str
        Name patterns of layers to leave as they are.
    force : mapping, optional
        Formats of layers, with a rank if wanted, see :func:`~tt_conv.applications.compression.compress`.
    calibration : int
        Number of training samples, or inputs, that the layers are fitted to; 0 for weights alone.
    batch_size : int
        Samples, or inputs, at a time.
    """

    budgets: Sequence[float]
    budget_of: Literal["parameters", "macs", "error"] = "parameters"
    formats: Sequence[str] = ()
    keep: Sequence[str] = ()
    force: Any = None
    calibration: int = 32
    batch_size: int = 8


class AnySettings(Protocol):
    """A whole training: every task has a dataclass of this form."""

    data: Any
    model: Any
    training: Any
    task: Any


def settings_to_dict(settings: AnySettings) -> dict[str, Any]:
    """Settings as nested dicts of what YAML and checkpoints hold.

    Parameters
    ----------
    settings : AnySettings
        Of any task.

    Returns
    -------
    dict
        ``task``, and a dict for each of ``data``, ``model`` and ``training``.

    Examples
    --------
    >>> from tt_conv.applications.video_prediction.settings import Settings
    >>> settings_to_dict(Settings())["training"]["epochs"]
    20
    """
    parts: dict[str, dict[str, Any]] = {name: asdict(getattr(settings, name)) for name in ("data", "model", "training")}
    for part in parts.values():
        part.update({name: list(value) for name, value in part.items() if isinstance(value, tuple)})
    return {"task": settings.task, **parts}


def settings_from_dict(values: Mapping[str, Any]) -> Any:
    """Undo :func:`settings_to_dict`; what a newer version added takes its default.

    Parameters
    ----------
    values : mapping
        What :func:`settings_to_dict` returned, or a part of it.

    Returns
    -------
    AnySettings
        Of the task that they name.

    Raises
    ------
    ValueError
        For a task or a setting that does not exist.

    Examples
    --------
    >>> settings_from_dict({"task": "video_prediction", "data": {"given": 8}}).data.given
    8
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected settings under data, model and training, got {str(values)[:40]!r}")
    task = values.get("task", FIRST_TASK)
    check_task(task)
    unknown = sorted(set(map(str, values)) - {"task", "data", "model", "training"})
    if unknown:
        said = gate.nearest(unknown[0], PARTS)
        raise ValueError(f"unknown settings: {', '.join(unknown)}; there are task, data, model and training{said}")
    _check_parts(values, "these settings")
    whole = settings_class(task, "Settings")
    made = {}
    for field in fields(whole):
        if field.name == "task":
            continue
        part: Any = field.default_factory
        known = {each.name for each in fields(part)}
        given = values.get(field.name) or {}
        unknown = sorted(str(key) for key in set(given) - known)
        if unknown:
            named = ", ".join(f"{field.name}.{key}" for key in unknown)
            raise ValueError(f"unknown settings: {named:.300}{gate.nearest(unknown[0], known)}")
        made[field.name] = _of_types(part, given, field.name)
    return whole(**made)


def _check_parts(values: Mapping[str, Any], name: object) -> None:
    """Refuse parts of settings that hold something else than named values; an empty part counts as missing."""
    for part in PARTS:
        if not isinstance(values.get(part) or {}, Mapping):
            raise ValueError(f"{name}: {part} must be named values, got {str(values[part])[:40]!r}")


def conv_lstm_settings(settings: Values) -> Values:
    """The settings of the ConvLSTM that a training with ``dense_start`` begins with.

    Parameters
    ----------
    settings : AnySettings
        Of a ConvTT-LSTM.

    Returns
    -------
    AnySettings
        The same but for the cell and its options.

    Examples
    --------
    >>> from tt_conv.applications.video_prediction.settings import ModelSettings, Settings
    >>> conv_lstm_settings(Settings(model=ModelSettings(rank=4, kernel_size=3))).model.kernel_size
    3
    """
    model = settings.model
    changes: dict[str, Any] = dict.fromkeys(OPTIONS_OF_CONV_TT) | {name_of_cell(model): "conv_lstm"}
    training = replace(settings.training, dense_start=0.0)
    return replace(settings, model=replace(model, **changes), training=training)


def name_of_cell(model: Any) -> str:
    """The name of the model setting that says which cells a network has."""
    return "cell" if hasattr(model, "cell") else "kind"


def read_settings(path: Path) -> Any:
    """The settings in a YAML file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it holds none, with its name.
    """
    content = gate.read_yaml(path)
    try:
        return settings_from_dict(content)
    except ValueError as error:
        raise ValueError(f"{path}: {gate.one_line(error)}") from error


def _of_types(kind: Any, values: Mapping[str, Any], name: str) -> Any:
    """A dataclass from values, each of which must be of its field's type."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, name)
    try:
        return kind(**parser.parse_object({name: dict(values)})[name].as_dict())
    except ArgumentError as error:
        words = " ".join(str(error).replace("Parser key ", "").replace("a typing.Literal", "one of ").split())
        raise ValueError(re.sub(r"a <class '(\w+)'>", r"\1", words)) from error


def settings_class(task: str, name: str) -> Any:
    """A dataclass of the module ``settings`` of a task, such as ``Settings`` or ``EvaluationSettings``."""
    return part_of_task(task, "settings", name)


def part_of_task(task: str, module: str, name: str) -> Any:
    """What a module of a task defines under a name."""
    check_task(task)
    return getattr(import_module(f"{TASKS[task]}.{module}"), name)


def check_task(task: object) -> None:
    """Refuse what is not the name of a task."""
    if not isinstance(task, str) or task not in TASKS:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")


def task_of_arguments(arguments: Sequence[str]) -> str:
    """The task that a command line is about: that of ``--task``, or of the YAML file of ``--config``.

    Examples
    --------
    >>> task_of_arguments(["--task", "recognition", "--out", "run"]), task_of_arguments([])
    ('recognition', 'video_prediction')
    """
    told: dict[str, str] = {}
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in ("--task", "--config"):
            told[name] = value if equals else following
    task: object = told.get("--task")
    if Path(told.get("--config", "")).is_file():
        # The parser reads the file again; what it would choke on is refused here.
        content = gate.read_yaml(told["--config"])
        if not isinstance(content, dict):
            raise ValueError(f"{told['--config']} holds no named settings: write data:, model: and training:")
        _check_parts(content, told["--config"])
        task = content.get("task") if task is None else task
    if task is None:
        return FIRST_TASK
    check_task(task)
    return str(task)


def with_changes(settings: Values, changes: Mapping[str, Any]) -> Values:
    """Data settings with some of them changed; a name that does not exist is an error."""
    names = [field.name for field in fields(settings)]
    unknown = sorted(set(changes) - set(names))
    if unknown:
        raise ValueError(f"there is no data setting {', '.join(unknown)}; there are {', '.join(names)}")
    return _of_types(type(settings), {**asdict(settings), **changes}, "data")
