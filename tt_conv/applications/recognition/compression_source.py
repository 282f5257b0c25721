"""What ``tt-conv compress`` needs to know of a recognizer: clips, and the accuracy on them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex

from torch import Tensor, nn
from torch.utils.data import DataLoader

from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.data import LabelledClips
from tt_conv.applications.recognition.evaluate_trained import check_classes, milliseconds_per_step
from tt_conv.applications.recognition.evaluation import accuracy_of, ceiling, chance
from tt_conv.applications.recognition.module import FRACTIONS
from tt_conv.applications.recognition.open_data import open_data
from tt_conv.applications.recognition.scores import Accuracy
from tt_conv.applications.recognition.settings import CompressionSettings
from tt_conv.applications.training.compression import CompressionSource, Measured
from tt_conv.applications.training.settings import settings_to_dict, with_changes
from tt_conv.tables import text_table


class RecognizerSource(CompressionSource):
    """A trained recognizer and its clips.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.training.load_trained`.
    data : mapping, optional
        Data settings that differ from those of the training.
    """

    quality_name = "top-1 accuracy"

    def __init__(self, checkpoint: Path | str, data: Mapping[str, Any] | None = None) -> None:
        self.trained = load_recognizer(checkpoint)
        self.model = self.trained.model
        self.data = with_changes(self.trained.settings.data, dict(data or {}))
        self.test = open_data(self.data, "test")
        check_classes(self.trained, self.test, checkpoint)
        self._accuracies: list[Accuracy] = []
        self._clips = len(self.test)

    def check(self, settings: CompressionSettings) -> None:
        clips = settings.quality_sequences
        if clips is not None and clips < 1:
            raise ValueError(f"quality_sequences must be at least 1, got {clips}")

    def calibration(self, settings: CompressionSettings) -> list[Any]:
        clips, future = FirstClips(open_data(self.data, "train"), settings.calibration), self.trained.model.ahead > 0
        return [(frames, future) for frames, _ in DataLoader(clips, settings.batch_size)]

    def quality(self, settings: CompressionSettings) -> Callable[[nn.Module], float]:
        """What measures the share of test clips that are named right at their end."""
        wanted = settings.quality_sequences
        part = self.test if wanted is None else FirstClips(self.test, wanted)
        self._accuracies, self._clips = [], len(part)

        def accuracy(model: Any) -> float:
            self._accuracies.append(accuracy_of(model, part, FRACTIONS, batch_size=settings.batch_size))
            return self._accuracies[-1].at(1.0)[0]

        return accuracy

    def measured(self) -> Measured:
        before, after = self._accuracies[0], self._accuracies[-1]
        contents = {"accuracy": {"before": _shares(before), "after": _shares(after)}}
        return Measured(contents, f"Accuracy on {self._clips:,} test clips:\n{_accuracy_table(before, after)}")

    def milliseconds(self, smaller: nn.Module) -> tuple[float, float]:
        clip = self.test[0][0]
        return milliseconds_per_step(self.model, clip), milliseconds_per_step(smaller.eval(), clip)

    def facts(self) -> Mapping[str, Any]:
        return {
            "clips": self._clips,
            "chance": chance(self.test),
            "ceiling_after_frame": ceiling(self.data, self.data.frames),
        }

    def training(self) -> Mapping[str, Any]:
        return {
            "settings": settings_to_dict(replace(self.trained.settings, data=self.data)),
            "classes": list(self.trained.classes),
            "channels": self.trained.channels,
            "sequences_seen": self.trained.sequences_seen,
            "epochs_done": self.trained.epochs_done,
        }


class FirstClips(LabelledClips):
    """The first clips of another data set."""

    def __init__(self, whole: LabelledClips, length: int) -> None:
        self.whole = whole
        self.classes, self.notes, self.labels = whole.classes, whole.notes, list(whole.labels[:length])

    def clip(self, number: int) -> Tensor:
        return self.whole.clip(number)

    def name(self, index: SupportsIndex) -> str:
        return self.whole.name(self.checked_index(index))


def _shares(accuracy: Accuracy) -> dict[str, Any]:
    observed = {str(f): dict(zip(("top1", "top5"), accuracy.at(f), strict=True)) for f in FRACTIONS}
    return {"observed": observed, "after_frame": {"top1": accuracy.top1, "top5": accuracy.top5}}


def _accuracy_table(before: Accuracy, after: Accuracy) -> str:
    rows = [
        [f"{100 * f:.0f} % seen", *(f"{100 * value:.1f} %" for value in (*before.at(f), *after.at(f)))]
        for f in FRACTIONS
    ]
    return text_table(["", "top 1\nbefore", "top 5\nbefore", "top 1\nafter", "top 5\nafter"], rows)
