"""``tt-conv demo``, as far as no task changes it: networks learn side by side, and what they learned is shown."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from tt_conv._version import __version__
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.training.module import SideBySide, TrainingModule
from tt_conv.applications.training.one_pass import Outcome, fit


class Demo(ABC):
    """What a task shows.

    Parameters
    ----------
    settings : DemoSettings
        Of the task; the numbers depend on nothing else, timing apart.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    def __init__(self, settings: Any) -> None:
        if settings.steps < 1:
            raise ValueError(f"steps must be at least 1, got {settings.steps}")
        if settings.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {settings.seed}")
        self.settings = settings

    @abstractmethod
    def prepare(self) -> Mapping[str, TrainingModule]:
        """Open the data and build what is trained, by name; the models differ in their cells only."""

    @abstractmethod
    def introduction(self) -> str:
        """What is learned from what."""

    @abstractmethod
    def batches(self) -> DataLoader[Any]:
        """One batch for each step of the training."""

    @abstractmethod
    def show(self, folder: OutputFolder, models: Mapping[str, Any], outcome: Outcome) -> list[str]:
        """Evaluate the models, in evaluation mode, print the tables, and write files; returns their names."""

    def kept(self) -> Mapping[str, Any]:
        """What ``models.pt`` holds beside weights and settings."""
        return {}

    def facts(self, outcome: Outcome) -> dict[str, Any]:
        """What every ``table.json`` begins with."""
        return {
            "tt_conv": __version__,
            "torch": torch.__version__,
            "settings": asdict(self.settings),
            "training": asdict(outcome),
        }


def show_demo(demo: Demo, out: Path | str | None = None) -> bool:
    """Train, evaluate, print the tables and write a folder of results.

    Parameters
    ----------
    demo : Demo
    out : path, optional
        Folder to write to; by default ``tt-conv-demo``, or ``tt-conv-demo-2``, ... where that exists.

    Returns
    -------
    bool
        Whether the training was complete: ``False`` after Ctrl-C, with results of what had been learned.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C after the training; ``models.pt`` and what else was complete by then stay in the folder.
    FileExistsError
        If the folder exists and is not empty.
    """
    settings = demo.settings
    with OutputFolder.with_free_name("tt-conv-demo") if out is None else OutputFolder(out) as folder, _one_thread():
        trained = demo.prepare()
        print(demo.introduction(), flush=True)
        outcome = fit(SideBySide(trained), demo.batches())
        if outcome.interrupted:
            print(
                f"\nStopped after {outcome.steps_done} of {settings.steps} steps; evaluating what was learned so far."
            )
        models = {name: module.model.eval() for name, module in trained.items()}
        _keep(folder, demo, models, outcome)
        with _says_what_is_left(folder):
            names = ["models.pt", *demo.show(folder, models, outcome)]
    print(f"\n{', '.join(names)} are in {folder.path}")
    return not outcome.interrupted


def _keep(folder: OutputFolder, demo: Demo, models: Mapping[str, nn.Module], outcome: Outcome) -> None:
    """Keep what was learned before anything that can be interrupted."""
    contents = {
        "models": {name: model.state_dict() for name, model in models.items()},
        **demo.kept(),
        "steps_done": outcome.steps_done,
        "settings": asdict(demo.settings),
    }
    with folder.new_file("models.pt") as file:
        torch.save(contents, file)


@contextmanager
def _says_what_is_left(folder: OutputFolder) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        names = sorted(path.name for path in folder.path.iterdir())
        print(f"\nStopped before all results were there: {folder.path} holds {', '.join(names)}", flush=True)
        raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per operation: each model has its own core, and numbers do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
