"""What Lightning trains: a model with its loss and its optimizer, or several of them side by side."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


def one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float | list[float], steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule whose rate rises over the first tenth of the steps, then falls to zero along a cosine.

    Parameters
    ----------
    optimizer : Optimizer
    learning_rate : float or list of float
        The largest one; a list has one per parameter group.
    steps : int
        Optimizer steps of the training, at least 1.

    Returns
    -------
    OneCycleLR
        Its ``step`` is called after every step of the optimizer.

    Examples
    --------
    >>> optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters())
    >>> schedule = one_cycle(optimizer, 0.1, steps=10)
    >>> [round(rate, 6) for rate in schedule.get_last_lr()]
    [0.004]
    """
    # OneCycleLR (PyTorch 2.13) divides by the steps of the rise less one: a tenth of 10 steps is a single one. It also
    # counts the rate after the last step, so that it needs two steps.
    rise = 0.2 if steps == 10 else 0.1
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(steps, 2), pct_start=rise)


def xavier_start(model: nn.Module) -> None:
    """Give a model the start of the published training: Xavier-uniform weights, zero biases."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)


class TrainingModule(pl.LightningModule):
    """A model, its loss and the recipe by which it is trained: Adam, one-cycle, clipped gradients.

    Subclasses define :meth:`loss`.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    steps : int
        Optimizer steps of the training.
    learning_rate : float
        The largest one: it rises over the first tenth of the steps, then falls to zero along a cosine.
    clip_norm : float
        Largest norm of the gradient.

    Examples
    --------
    >>> class Mean(TrainingModule):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> Mean(nn.Linear(2, 1), steps=5).loss(torch.ones(3, 2)).shape
    torch.Size([])
    """

    def __init__(self, model: nn.Module, *, steps: int, learning_rate: float = 1e-3, clip_norm: float = 1.0) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not learning_rate > 0 or not clip_norm > 0:
            raise ValueError(f"learning_rate and clip_norm must be positive, got {learning_rate} and {clip_norm}")
        self.model = model
        self.steps = steps
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm

    def loss(self, batch: Any, progress: float = 1.0) -> Tensor:
        """Loss of the model on a batch; ``progress`` is the share of the training that is done, 0 to 1."""
        raise NotImplementedError

    def training_step(self, batch: Any) -> Tensor:
        loss = self.loss(batch, self.global_step / self.steps)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        return [optimizer], [{"scheduler": one_cycle(optimizer, self.learning_rate, self.steps), "interval": "step"}]

    def configure_gradient_clipping(self, *_: object, **__: object) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)


class SideBySide(pl.LightningModule):
    """Trains several modules on the same batches, each as if it were alone, in a thread of its own.

    Small models keep one core busy, not several: two of them side by side use two. Unlike the threads of one
    operation, theirs meet once per step only, so another program on a core costs its share and no more.

    Parameters
    ----------
    members : mapping of str to TrainingModule
        By name.

    Examples
    --------
    >>> class Mean(TrainingModule):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> both = SideBySide({"one": Mean(nn.Linear(2, 1), steps=5), "other": Mean(nn.Linear(2, 1), steps=5)})
    >>> list(both.members)
    ['one', 'other']
    """

    def __init__(self, members: Mapping[str, TrainingModule]) -> None:
        super().__init__()
        if not members:
            raise ValueError("expected at least one module to train, got none")
        self.automatic_optimization = False
        self.members = nn.ModuleDict(members)

    def configure_optimizers(self) -> Any:
        recipes = [member.configure_optimizers() for member in self._members().values()]
        return [recipe[0][0] for recipe in recipes], [recipe[1][0] for recipe in recipes]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        def backward(member: TrainingModule) -> Tensor:
            loss = member.loss(batch, batch_idx / member.steps)
            self.manual_backward(loss)
            member.configure_gradient_clipping()
            return loss.detach()

        members = self._members()
        with ThreadPoolExecutor(len(members)) as threads:
            losses = list(threads.map(backward, members.values()))
        for optimizer, schedule in zip(
            self._listed(self.optimizers()), self._listed(self.lr_schedulers()), strict=True
        ):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.log_dict(dict(zip(members, losses, strict=True)), prog_bar=True)

    def _members(self) -> dict[str, TrainingModule]:
        return {name: member for name, member in self.members.items() if isinstance(member, TrainingModule)}

    @staticmethod
    def _listed(one_or_several: Any) -> list[Any]:
        return one_or_several if isinstance(one_or_several, list) else [one_or_several]
