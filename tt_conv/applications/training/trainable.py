"""What a training needs to know of a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tt_conv.applications.training.epochs import Samples
from tt_conv.applications.training.settings import AnySettings, part_of_task

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from tt_conv.applications.training.by_recipe import TrainedByRecipe


class Trainable(ABC):
    """A task as its training sees it: its data, its model, and how one is trained on the other."""

    task: ClassVar[str]
    """Its name."""
    samples: ClassVar[str]
    """What the samples are called, in the plural."""
    leaves: ClassVar[str]
    """What a training leaves, in words."""

    @abstractmethod
    def check(self, settings: Any) -> None:
        """Refuse settings that are out of their range, before any data are read."""

    @abstractmethod
    def open_data(self, settings: Any, split: Any) -> Samples:
        """Open one part of the data that data settings name: train, validation or test."""

    def decided(self, settings: Any, train: Samples) -> Any:
        """The settings with what was found when the data were opened, where that must be the same ever after."""
        return settings

    @abstractmethod
    def training(self, settings: Any, train: Samples, steps: int) -> "TrainedByRecipe":
        """The module that Lightning trains for so many steps, with an untrained model in it."""

    @abstractmethod
    def inputs(self, settings: Any, samples: Sequence[Any]) -> Any:
        """What the network is called with for a batch of samples: a tensor, or a tuple of arguments."""

    @abstractmethod
    def introduction(self, settings: Any, train: Samples, validation: Samples) -> str:
        """What is trained on, in a line."""

    @abstractmethod
    def model_name(self, settings: Any) -> str:
        """What is trained, in a word."""

    def callbacks(self, settings: Any, folder: Path, validation: Samples) -> "list[Callback]":
        """What else a training leaves in its folder."""
        return []


def trainable_of(settings: AnySettings) -> Trainable:
    """Return the task that settings are of."""
    found: Trainable = part_of_task(settings.task, "application", "APPLICATION")
    return found
