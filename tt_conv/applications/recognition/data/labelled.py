"""The interface of every data set of labelled clips."""

from collections.abc import Sequence
from typing import SupportsIndex

from torch import Tensor
from torch.utils.data import Dataset

from tt_conv.applications.data.sequences import checked_index


class LabelledClips(Dataset[tuple[Tensor, int]]):
    """Clips ``[T, C, H, W]`` of float32 values from 0 to 1, oldest frame first, each with the number of its class.

    Subclasses define :meth:`clip`, and :meth:`draw` if an epoch of training sees other clips than the one before.

    Attributes
    ----------
    classes : sequence of str
        The name of every class; a label is an index into it.
    labels : sequence of int
        The label of every clip.
    notes : sequence of str
        What was found and decided while the data were opened: files left out, classes without clips.

    Examples
    --------
    >>> import torch
    >>> class Gray(LabelledClips):
    ...     classes, labels = ("dark", "bright"), (0, 1, 1)
    ...
    ...     def clip(self, number):
    ...         return torch.full((4, 1, 8, 8), float(self.labels[number]))
    >>> clip, label = Gray()[2]
    >>> clip.shape, label
    (torch.Size([4, 1, 8, 8]), 1)
    """

    classes: Sequence[str] = ()
    labels: Sequence[int] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, int]:
        """Clip number ``index`` [T, C, H, W], float32 from 0 to 1, and its label."""
        number = self.checked_index(index)
        return self.clip(number), self.labels[number]

    def clip(self, number: int) -> Tensor:
        """The clip of a number that was checked."""
        raise NotImplementedError

    def draw(self, index: SupportsIndex, epoch: int) -> tuple[Tensor, int]:
        """What number ``index`` stands for in an epoch of training: a function of both (and a seed) alone."""
        return self[index]

    def name(self, index: SupportsIndex) -> str:
        """Which file a clip is from."""
        raise NotImplementedError

    def checked_index(self, index: SupportsIndex) -> int:
        """``index`` as an int from 0 to one less than the number of clips, or an error."""
        return checked_index(index, len(self), "clip")
