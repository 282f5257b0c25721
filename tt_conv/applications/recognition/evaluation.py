"""Accuracy of a recognizer over a data set, and what nobody can do better than."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from tt_conv.applications.recognition.data import LabelledClips, best_accuracy
from tt_conv.applications.recognition.data.digit_actions import ACTIONS
from tt_conv.applications.recognition.data.digit_actions import FRAMES as MADE_FRAMES
from tt_conv.applications.recognition.data.sampling import sampled_frames
from tt_conv.applications.recognition.model import Recognizer
from tt_conv.applications.recognition.scores import Accuracy, AccuracyOverTime
from tt_conv.applications.recognition.settings import DataSettings


@torch.inference_mode()
def accuracy_of(
    model: Recognizer,
    clips: LabelledClips,
    fractions: Sequence[float] = (0.25, 0.5, 1.0),
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Accuracy:
    """Score every clip of a data set after every frame.

    Parameters
    ----------
    model : Recognizer
        In evaluation mode, on ``device``.
    clips : LabelledClips
        The data; classes as many as the model's.
    fractions : sequence of float
        Observed fractions at which to count confusions.
    batch_size : int
        Clips at a time.
    device : str
        Such as cpu or cuda.
    workers : int
        Processes that decode clips.

    Returns
    -------
    Accuracy

    Examples
    --------
    >>> from tt_conv.applications.recognition.model import ConvolutionalRecognizer
    >>> class Gray(LabelledClips):
    ...     classes, labels = ("dark", "bright"), (0, 1, 1)
    ...
    ...     def clip(self, number):
    ...         return torch.full((4, 1, 16, 16), float(self.labels[number]))
    >>> accuracy = accuracy_of(ConvolutionalRecognizer(1, 2, (8, 8), (8,)).eval(), Gray(), [0.5, 1.0])
    >>> len(accuracy.top1), list(accuracy.confusion)
    (4, [0.5, 1.0])
    """
    frames = clips[0][0].shape[0]
    gathered = AccuracyOverTime(frames, model.classes, fractions)
    dtype = next(model.parameters()).dtype
    for batch, labels in DataLoader(clips, batch_size, num_workers=workers, generator=torch.Generator()):
        gathered.update(model(batch.to(device, dtype)), labels)
    return gathered.compute()


def ceiling(settings: DataSettings, frames: int, top: int = 1) -> list[float] | None:
    """The best accuracy that anyone could reach after frame 1, 2, ... of ``frames``, where it is known.

    It is known of all classes of digit_actions, where it is computed, not measured. What counts is the last frame of
    the video that a clip has shown so far, and whether it has shown more than one.
    """
    if settings.kind != "digit_actions" or settings.classes is not None:
        return None
    shown = sampled_frames(MADE_FRAMES, frames).tolist()
    seen = [1 if last == shown[0] else last + 1 for last in shown]
    return [best_accuracy(count / MADE_FRAMES, min(top, len(ACTIONS))) for count in seen]


def chance(clips: LabelledClips) -> float:
    """The accuracy of always naming the most frequent class."""
    return max(Counter(clips.labels).values()) / len(clips)
