"""Accuracy after every frame, and who is taken for whom."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from tt_conv.applications.recognition.data import observed_frames

TOP = 5


@dataclass(frozen=True)
class Accuracy:
    """What a network got right.

    Parameters
    ----------
    top1, top5 : list of float
        After frame 1, 2, ...: the share of clips whose class has the highest score, and one of the five highest.
    confusion : dict of float to list
        By observed fraction: how many clips of the class of a row were taken for the class of a column.
    """

    top1: list[float]
    top5: list[float]
    confusion: dict[float, list[list[int]]]

    def at(self, fraction: float) -> tuple[float, float]:
        """Top-1 and top-5 accuracy when the front fraction of the frames has been seen."""
        last = observed_frames(len(self.top1), fraction) - 1
        return self.top1[last], self.top5[last]


class AccuracyOverTime:
    """Gathers the scores of clips, batch by batch.

    Parameters
    ----------
    frames, classes : int
        Of the clips.
    fractions : sequence of float
        Observed fractions at which to count confusions.

    Examples
    --------
    >>> gathered = AccuracyOverTime(frames=2, classes=2, fractions=[1.0])
    >>> scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    >>> gathered.update(scores, torch.tensor([1, 0]))
    >>> accuracy = gathered.compute()
    >>> accuracy.top1, accuracy.confusion
    ([0.5, 1.0], {1.0: [[1, 0], [0, 1]]})
    """

    def __init__(self, frames: int, classes: int, fractions: Sequence[float]) -> None:
        kinds = {"top1": 1, "top5": min(TOP, classes)}
        self._accuracy = {
            name: [MulticlassAccuracy(classes, top_k=top, average="micro") for _ in range(frames)]
            for name, top in kinds.items()
        }
        self._confusion = {fraction: MulticlassConfusionMatrix(classes) for fraction in fractions}
        self._last = {fraction: observed_frames(frames, fraction) - 1 for fraction in fractions}

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take the scores ``[B, T, K]`` of clips whose labels are ``[B]``."""
        scores, labels = scores.float().cpu(), labels.cpu()
        for metrics in self._accuracy.values():
            for metric, after in zip(metrics, scores.unbind(1), strict=True):
                metric.update(after, labels)
        for fraction, counts in self._confusion.items():
            counts.update(scores[:, self._last[fraction]].argmax(-1), labels)

    def compute(self) -> Accuracy:
        """What was gathered."""
        top1, top5 = ([float(metric.compute()) for metric in self._accuracy[name]] for name in ("top1", "top5"))
        confusion = {fraction: metric.compute().int().tolist() for fraction, metric in self._confusion.items()}
        return Accuracy(top1, top5, confusion)


@torch.inference_mode()
def ranked(scores: Tensor, classes: Sequence[str], top: int = TOP) -> list[tuple[str, float]]:
    """The likeliest classes and their probabilities.

    Parameters
    ----------
    scores : Tensor ``[K]``
        Logits.
    classes : sequence of str
        The names of the K classes.
    top : int
        How many classes, at most.

    Returns
    -------
    list of (str, float)
        Name and probability, the likeliest first.

    Examples
    --------
    >>> [name for name, probability in ranked(torch.tensor([0.0, 2.0, 1.0]), ["a", "b", "c"], top=2)]
    ['b', 'c']
    """
    likeliest = scores.float().softmax(-1).cpu().topk(min(top, len(classes)))
    return [(classes[number], value) for value, number in zip(*map(Tensor.tolist, likeliest), strict=True)]
