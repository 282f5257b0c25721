"""The order of training, with all its randomness a function of (seed, epoch, step, sample).

So a training that was killed and resumed, or that ran in several processes, sees what an undisturbed one sees.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset, Sampler

# What the random numbers are for: streams of one seed do not meet.
ORDER, SAMPLING, CALIBRATION = 1, 2, 3


class Samples(Protocol):
    """The data of a training: samples by number, and those that the numbers stand for in an epoch."""

    notes: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def draw(self, index: int, epoch: int, /) -> Any:
        """The sample that number ``index`` stands for in an epoch of training: a function of both alone."""


class EpochOfSamples(Dataset[tuple[int, Any]]):
    """The samples that an epoch of training sees, each with its number.

    Parameters
    ----------
    samples : Samples
        The whole data set.
    epoch : int
        Which epoch; ``None`` means the samples as indexing gives them.
    """

    def __init__(self, samples: Samples, epoch: int | None) -> None:
        self.samples = samples
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        if self.epoch is None:
            return index, self.samples[index]
        return index, self.samples.draw(index, self.epoch)


class EpochBatches(Sampler[list[int]]):
    """Batches of shuffled numbers for one process of several; together they are those of a single process.

    Numbers that do not fill a last batch are left out, unless there is no other batch.

    Parameters
    ----------
    length : int
        How many samples there are.
    batch_size : int
        Of all processes together.
    seed, epoch : int
        The order is a function of both.
    rank, world_size : int
        Which process this is, and how many there are; their number divides ``batch_size``.
    done : int
        Batches at the start of the epoch that are passed over; they still count in the length.

    Examples
    --------
    >>> alone = list(EpochBatches(8, 4, seed=0, epoch=3))
    >>> first, second = (list(EpochBatches(8, 4, seed=0, epoch=3, rank=r, world_size=2)) for r in range(2))
    >>> [a + b for a, b in zip(first, second)] == alone
    True
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1, done: int = 0
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of the number of processes ({world_size})")
        self.batch_size = min(batch_size, length - length % world_size)
        if not self.batch_size:
            raise ValueError(f"{length} samples are too few for {world_size} processes")
        self.order = np.random.default_rng([seed, ORDER, epoch]).permutation(length).tolist()
        self.rank, self.world_size, self.done = rank, world_size, done

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        for batch in range(self.done, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield self.order[start : start + share]
