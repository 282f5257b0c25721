"""What the tasks share: the trainings, by what is told of a task, their settings, recipes and checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tt_conv.applications.training.run import resume_training, run_training
    from tt_conv.applications.training.settings import TrainingSettings, settings_from_dict, settings_to_dict
    from tt_conv.applications.training.task_application import Application, application
    from tt_conv.applications.training.tasks import Outcome, SideBySide, Task, fit

__all__ = [
    "run_training",
    "resume_training",
    "TrainingSettings",
    "settings_from_dict",
    "settings_to_dict",
    "Application",
    "application",
    "Task",
    "SideBySide",
    "Outcome",
    "fit",
]

# Public name -> the module that defines it, imported at first use: the settings need no Lightning.
_DEFINED_IN = {
    "run_training": "run",
    "resume_training": "run",
    "TrainingSettings": "settings",
    "settings_from_dict": "settings",
    "settings_to_dict": "settings",
    "Application": "task_application",
    "application": "task_application",
    "Task": "tasks",
    "SideBySide": "tasks",
    "Outcome": "tasks",
    "fit": "tasks",
}


def __getattr__(name: str) -> object:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value
