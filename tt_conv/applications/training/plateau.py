"""The published schedule: what changes once the validation loss has stalled."""

from dataclasses import asdict, dataclass


@dataclass
class PlateauSchedule:
    """Scheduled sampling fades after the validation loss stalls; after a second stall the learning rate decays.

    As long as the validation loss improves within every ``patience`` epochs nothing changes. After the first
    stall ``ratio`` falls by ``sampling_decay`` in every epoch, down to zero. After the next stall, counted from
    the first, ``lr_factor`` is multiplied by ``lr_decay`` every ``lr_decay_every`` epochs. A training without
    scheduled sampling starts with the latter.

    Parameters
    ----------
    ratio : float
        Of scheduled sampling, at the start.
    sampling_decay, lr_decay : float
    patience, lr_decay_every : int
        In epochs.

    Examples
    --------
    >>> schedule = PlateauSchedule(ratio=1.0, sampling_decay=0.25, patience=2)
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
    ...     schedule.update(loss)
    >>> schedule.ratio
    0.5
    """

    ratio: float = 1.0
    sampling_decay: float = 2e-3
    patience: int = 20
    lr_decay: float = 0.98
    lr_decay_every: int = 5
    lr_factor: float = 1.0
    best: float = float("inf")
    stalled: int = 0
    fading: bool = False
    decaying: int = -1

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"sampling_ratio must be from 0 to 1, got {self.ratio}")
        if self.patience < 1 or self.lr_decay_every < 1:
            raise ValueError(
                f"patience and lr_decay_every must be at least 1, got {self.patience} and {self.lr_decay_every}"
            )
        self.fading = self.fading or self.ratio == 0

    def update(self, loss: float) -> None:
        """Take the validation loss of an epoch."""
        if loss < self.best:
            self.best, self.stalled = loss, 0
        else:
            self.stalled += 1
        if self.stalled >= self.patience:
            if not self.fading:
                self.fading, self.stalled = True, 0
            elif self.decaying < 0:
                self.decaying = 0
        if self.fading:
            self.ratio = max(0.0, self.ratio - self.sampling_decay)
        if self.decaying >= 0:
            self.decaying += 1
            if self.decaying % self.lr_decay_every == 0:
                self.lr_factor *= self.lr_decay

    def state_dict(self) -> dict[str, float]:
        """All of it, for a checkpoint."""
        return asdict(self)
