"""The interface of every data set of sequences."""

from collections.abc import Sequence
from typing import SupportsIndex

from torch import Tensor
from torch.utils.data import Dataset


class SequenceDataset(Dataset[Tensor]):
    """Sequences ``[T, C, H, W]`` of float32 values from 0 to 1, oldest frame first.

    Subclasses define ``__len__``, :meth:`sequence`, and :meth:`draw` if an epoch of training sees other sequences
    than the one before. What was found and decided while the data were opened (sizes, the order of axes, the
    range of values, files left out) stands in ``notes``.

    Examples
    --------
    >>> import torch
    >>> class Fading(SequenceDataset):
    ...     def __len__(self):
    ...         return 2
    ...
    ...     def sequence(self, number):
    ...         return torch.linspace(1, 0, 5).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    >>> Fading()[1].shape
    torch.Size([5, 1, 8, 8])
    """

    notes: Sequence[str] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: SupportsIndex) -> Tensor:
        """Sequence number ``index``: [T, C, H, W], float32 from 0 to 1."""
        return self.sequence(self.checked_index(index))

    def sequence(self, number: int) -> Tensor:
        """Sequence of a number that was checked; parameters and result as of indexing."""
        raise NotImplementedError

    def draw(self, index: SupportsIndex, epoch: int) -> Tensor:
        """The sequence that number ``index`` stands for in an epoch of training: a function of both alone."""
        return self[index]

    def checked_index(self, index: SupportsIndex) -> int:
        """``index`` as an int from 0 to one less than the number of sequences, or an error."""
        return checked_index(index, len(self), "sequence")


def checked_index(index: SupportsIndex, length: int, what: str) -> int:
    """``index`` as an int from 0 to ``length - 1``, or an error; ``what`` names what is counted."""
    if not hasattr(index, "__index__"):
        raise TypeError(f"{what}s are taken one at a time, by their number, got {index!r}")
    number = index.__index__()
    if not 0 <= number < length:
        raise IndexError(f"{what} {number} of a data set of {length} {what}s (0 to {length - 1})")
    return number
