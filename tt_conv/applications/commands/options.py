"""Subcommands whose options are the settings of every task."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_type_hints

from tt_conv.applications.training.settings import TASKS, settings_class


@dataclass(frozen=True)
class Option:
    """One option of a subcommand.

    Parameters
    ----------
    name : str
        As in ``--name``.
    type : type
        What its value is parsed to.
    help : str
    default : object
        ``inspect.Parameter.empty`` for an option that must be given.
    """

    name: str
    type: Any
    help: str
    default: Any = inspect.Parameter.empty


class TaskOptions:
    """The fields of one kind of settings of all tasks, as options.

    Parameters
    ----------
    kind : str
        Name of a dataclass in the module ``settings`` of every task, such as ``EvaluationSettings``.
    without : iterable of str
        Fields that are no options.

    Examples
    --------
    >>> options = TaskOptions("EvaluationSettings")
    >>> [option.help for option in options if option.name == "lpips"]
    ["Compute LPIPS too; needs pip install 'tt-conv[lpips]' and AlexNet's weights. Of video_prediction."]
    """

    def __init__(self, kind: str, without: Iterable[str] = ()) -> None:
        self.kind = kind
        self.without = set(without)

    def __iter__(self) -> Any:
        return iter(self._options)

    @cached_property
    def _options(self) -> list[Option]:
        by_name: dict[str, dict[str, Option]] = {}
        for task in TASKS:
            for option in options_of(settings_class(task, self.kind)):
                by_name.setdefault(option.name, {})[task] = option
        return [_merged(of_tasks) for name, of_tasks in by_name.items() if name not in self.without]

    def settings(self, task: str, given: Mapping[str, Any], checkpoint: str) -> Any:
        """The settings of a task, from the values of all options.

        Raises
        ------
        ValueError
            If an option was given that means nothing for the task.
        """
        kind = settings_class(task, self.kind)
        known = {field.name for field in fields(kind)}
        defaults = {option.name: option.default for option in self}
        needless = [f"--{name}" for name, value in given.items() if name not in known and value != defaults[name]]
        if needless:
            raise ValueError(f"{checkpoint} is of the task {task}, which has no {', '.join(needless)}: leave that out")
        return kind(**{name: value for name, value in given.items() if name in known})


def options_of(kind: type) -> list[Option]:
    """The fields of a dataclass, with what its docstring, or that of a base class, says of each."""
    from docstring_parser import parse  # comes with jsonargparse

    said: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        for parameter in parse(inspect.cleandoc(each.__doc__ or "")).params:
            for name in parameter.arg_name.split(", "):
                said[name] = " ".join((parameter.description or "").split())
    types = get_type_hints(kind)
    return [Option(field.name, types[field.name], said.get(field.name, ""), _default(field)) for field in fields(kind)]


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _merged(of_tasks: Mapping[str, Option]) -> Option:
    first = next(iter(of_tasks.values()))
    if len(of_tasks) < len(TASKS):
        return Option(first.name, first.type, f"{first.help} Of {', '.join(of_tasks)}.", first.default)
    if any(option.help != first.help for option in of_tasks.values()):
        said = " ".join(f"{task}: {option.help}" for task, option in of_tasks.items())
        return Option(first.name, first.type, said, first.default)
    return first


def subcommand(name: str, text: str, options: Iterable[Option], run: Callable[..., None]) -> Callable[..., None]:
    """A function that jsonargparse makes a subcommand of.

    Parameters
    ----------
    name : str
    text : str
        What its help says: a sentence, then perhaps an empty line and more.
    options : iterable of Option
        Those that must be given first.
    run : callable
        Takes the values by name.

    Returns
    -------
    callable
    """

    def command(**values: Any) -> None:
        run(**values)

    options = list(options)
    parameter, keyword = inspect.Parameter, inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter(each.name, keyword, default=each.default, annotation=each.type) for each in options]
    lines = [f"    {each.name}: {each.help}" for each in options]
    command.__name__ = name
    command.__doc__ = "\n".join([inspect.cleandoc(text), "", "Args:", *lines])
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def task_option(help: str) -> Option:
    """``--task``, the first task by default."""
    return Option("task", Literal.__getitem__(tuple(TASKS)), help, next(iter(TASKS)))
