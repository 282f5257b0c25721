"""Scheduled sampling: which frames of the future the model is fed with, instead of its own predictions."""

import numpy as np
import torch
from torch import Tensor

from tt_conv.applications.training.epochs import SAMPLING


def fed_with_truth(numbers: Tensor, frames: int, ratio: float, *, seed: int, epoch: int) -> Tensor:
    """Where scheduled sampling feeds the true frame: one draw for each sample and frame.

    Parameters
    ----------
    numbers : Tensor [B]
        Numbers of the samples in the data set.
    frames : int
        How many frames may be fed.
    ratio : float
        Probability of the true frame.
    seed, epoch : int
        The draws are a function of both and the sample's number.

    Returns
    -------
    Tensor [B, frames], bool

    Examples
    --------
    >>> fed_with_truth(torch.tensor([4, 7]), 3, 1.0, seed=0, epoch=0)
    tensor([[True, True, True],
            [True, True, True]])
    """
    draws = [np.random.default_rng([seed, SAMPLING, epoch, number]).random(frames) for number in numbers.tolist()]
    return torch.from_numpy(np.stack(draws) < ratio).to(numbers.device)
