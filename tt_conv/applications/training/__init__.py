"""What the tasks share: the trainings, by what is told of a task, their settings, recipes and checkpoints."""

from typing import TYPE_CHECKING

from tt_conv.lazy import exports

if TYPE_CHECKING:
    from tt_conv.applications.training.applications import Application, application, load_trained
    from tt_conv.applications.training.checkpoint import Trained
    from tt_conv.applications.training.dense_start import carry_over
    from tt_conv.applications.training.module import SideBySide, TrainingModule, one_cycle
    from tt_conv.applications.training.one_pass import Outcome, fit
    from tt_conv.applications.training.run import resume_training, run_training
    from tt_conv.applications.training.settings import TrainingSettings, settings_from_dict, settings_to_dict

__all__ = [
    "run_training",
    "resume_training",
    "TrainingSettings",
    "settings_from_dict",
    "settings_to_dict",
    "Application",
    "application",
    "load_trained",
    "Trained",
    "TrainingModule",
    "SideBySide",
    "Outcome",
    "fit",
    "one_cycle",
    "carry_over",
]

# Public name -> the module that defines it, imported at first use: the settings need no Lightning.
_DEFINED_IN = {
    "run_training": ".run",
    "resume_training": ".run",
    "TrainingSettings": ".settings",
    "settings_from_dict": ".settings",
    "settings_to_dict": ".settings",
    "Application": ".applications",
    "application": ".applications",
    "load_trained": ".applications",
    "Trained": ".checkpoint",
    "TrainingModule": ".module",
    "SideBySide": ".module",
    "Outcome": ".one_pass",
    "fit": ".one_pass",
    "carry_over": ".dense_start",
    "one_cycle": ".module",
}

__getattr__ = exports(__name__, _DEFINED_IN)
