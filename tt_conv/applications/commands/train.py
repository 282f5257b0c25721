"""``tt-conv train``."""

from collections.abc import Callable
from typing import Any

from tt_conv.applications.commands.options import Option, options_of, subcommand
from tt_conv.applications.training.settings import TASKS, settings_class

TEXT = """Train a network: tt-conv train --config moving_mnist_conv_tt_lstm_small --out run.

--config takes a YAML file or the name of a recipe (tt-conv recipes lists them); what is given after it on the command
line counts instead of what it says. The folder gets best.ckpt and last.ckpt, history.csv, a TensorBoard log and, where
frames are predicted, sample pictures. Ctrl-C stops; --resume goes on from last.ckpt.
"""


def train(task: str) -> Callable[..., None]:
    """The subcommand for a task, whose settings are its options."""

    def run(out: str | None, resume: str | None, **parts: Any) -> None:
        from tt_conv.applications.training.applications import application

        trained = application(task)
        complete = trained.train(settings(**parts), out) if resume is None else trained.resume(resume)
        if not complete:
            raise KeyboardInterrupt

    settings = settings_class(task, "Settings")
    said = {"data": "On which samples.", "model": "Which network.", "training": "By which recipe, on what."}
    others = ", ".join(f'"tt-conv train --task {other} --help"' for other in TASKS if other != task)
    said["task"] = f"What is trained; {others} has the settings of the other task."
    out = "Folder to write to, new or empty; by default tt-conv-training, or tt-conv-training-2, ..."
    resume = "Folder of a training to go on with, by the settings it has; nothing else may be given then."
    return subcommand(
        "train",
        TEXT,
        [
            *(_settings_option(option, said[option.name]) for option in options_of(settings)),
            Option("out", str | None, out, None),
            Option("resume", str | None, resume, None),
        ],
        run,
    )


def _settings_option(option: Option, help: str) -> Option:
    # A dataclass without a default becomes a group of options.
    return Option(option.name, option.type, help, *([option.default] if option.name == "task" else []))
