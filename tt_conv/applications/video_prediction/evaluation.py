"""Evaluate models and baselines on the same held-out sequences."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tt_conv.applications.video_prediction.metrics import MASS_MEASURES, FrameMetrics

# (given frames [B, T, C, H, W], future) -> frames of which the last `future` are the predicted ones
Predictor = Callable[[Tensor, int], Tensor]


@torch.inference_mode()
def evaluate(
    predictors: Mapping[str, Predictor], batches: Iterable[Tensor], given: int
) -> dict[str, dict[str, list[float]]]:
    """Compare what each predictor makes of the first frames of sequences with the frames that follow.

    Parameters
    ----------
    predictors : mapping
        By name: a :class:`~tt_conv.layers.FramePredictor`, a baseline, or any ``predictor(frames, future)``
        that ends with the predicted frames. They are clamped to [0, 1].
    batches : iterable of Tensor [B, T, C, H, W]
        Sequences with values from 0 to 1, each longer than ``given``.
    given : int
        Number of frames that a predictor is shown.

    Returns
    -------
    dict
        By predictor and metric (see :class:`FrameMetrics`): one value per predicted frame.

    Raises
    ------
    ValueError
        If there is no sequence, or none of its frames is left to predict.

    Examples
    --------
    >>> from tt_conv.applications.video_prediction import MovingMNIST, copy_last
    >>> sequence = MovingMNIST("test", frames=5, digits=1)[0]
    >>> result = evaluate({"copy": copy_last}, [sequence.unsqueeze(0)], given=3)
    >>> len(result["copy"]["mse"])
    2
    """
    metrics: dict[str, FrameMetrics] = {}
    for sequences in batches:
        future = sequences.shape[1] - given
        if given < 1 or future < 1:
            raise ValueError(
                f"sequences of {sequences.shape[1]} frames with {given} given leave nothing to predict: "
                "give at least 1 frame and fewer than all"
            )
        for name, predictor in predictors.items():
            predicted = predictor(sequences[:, :given], future)[:, -future:]
            metrics.setdefault(name, FrameMetrics(MASS_MEASURES)).update(predicted, sequences[:, given:])
    if not metrics:
        raise ValueError("no predictors or no sequences to evaluate")
    return {name: gathered.compute() for name, gathered in metrics.items()}


@torch.inference_mode()
def milliseconds_per_frame(
    models: Mapping[str, Predictor], frames: Tensor, future: int, repeats: int = 5
) -> dict[str, float]:
    """Median time in which each model works through one frame of one sequence of a batch.

    The models take turns, so that a busy machine slows all of them alike; a first round is not counted.

    Parameters
    ----------
    models : mapping
        Models by name.
    frames : Tensor ``[B, T, C, *S]``
        The given frames; the time is per frame of one of the B sequences.
    future : int
        Number of predicted frames.
    repeats : int
        Number of rounds.

    Returns
    -------
    dict
        Milliseconds by name.

    Examples
    --------
    >>> from tt_conv.applications.video_prediction import copy_last, mean_frame
    >>> times = milliseconds_per_frame({"copy": copy_last, "mean": mean_frame}, torch.zeros(2, 5, 1, 8, 8), future=3)
    >>> sorted(times)
    ['copy', 'mean']
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model(frames, future)
            seconds[name].append(time.perf_counter() - start)
    steps = frames.shape[0] * (frames.shape[1] + future - 1)
    return {name: 1e3 * statistics.median(taken[1:]) / steps for name, taken in seconds.items()}


def mean_over_frames(values: Sequence[float]) -> float:
    """Mean of a metric over the predicted frames."""
    return statistics.fmean(values)
