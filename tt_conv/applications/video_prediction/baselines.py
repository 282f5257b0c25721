"""Predictions that need no learning: what every model must beat."""

from collections.abc import Callable, Mapping

from torch import Tensor


def copy_last(frames: Tensor, future: int) -> Tensor:
    """Predict that nothing changes after the last given frame.

    Parameters
    ----------
    frames : Tensor ``[B, T, C, *S]``
        The given frames, oldest first.
    future : int
        Number of frames to predict.

    Returns
    -------
    Tensor ``[B, future, C, *S]``

    Raises
    ------
    ValueError
        If ``future`` is below 1.

    Examples
    --------
    >>> import torch
    >>> copy_last(torch.tensor([1.0, 5.0]).reshape(1, 2, 1, 1, 1), 3).flatten()
    tensor([5., 5., 5.])
    """
    return _repeated(frames[:, -1:], future)


def mean_frame(frames: Tensor, future: int) -> Tensor:
    """Predict the mean of the given frames.

    Parameters
    ----------
    frames : Tensor ``[B, T, C, *S]``
        The given frames, oldest first.
    future : int
        Number of frames to predict.

    Returns
    -------
    Tensor ``[B, future, C, *S]``

    Raises
    ------
    ValueError
        If ``future`` is below 1.

    Examples
    --------
    >>> import torch
    >>> mean_frame(torch.tensor([1.0, 5.0]).reshape(1, 2, 1, 1, 1), 3).flatten()
    tensor([3., 3., 3.])
    """
    return _repeated(frames.mean(dim=1, keepdim=True), future)


def _repeated(frame: Tensor, future: int) -> Tensor:
    if future < 1:
        raise ValueError(f"future must be at least 1, got {future}")
    return frame.expand(-1, future, *frame.shape[2:])


BASELINES: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "copy the last frame": copy_last,
    "mean frame": mean_frame,
}
