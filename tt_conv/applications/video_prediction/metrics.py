"""How far predicted frames are from the true ones, frame by frame into the future."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure


class FrameMetrics:
    """Mean metrics of each predicted frame, gathered over batches of sequences.

    ``mse`` is the mean squared error per pixel over all sequences, ``psnr`` (dB) that of this error: a mean of
    the sequences' own PSNR would be infinite as soon as one prediction is exact, as a copied frame can be.
    ``ssim`` (Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03) is the mean over the sequences.
    ``mass_ratio`` is the predicted over the true sum of pixels, ``mass_error`` how far that ratio is from 1,
    and ``centre_distance`` how far apart the two centres of mass are, in pixels: each the mean over the
    sequences. A prediction without any mass has no centre; its distance is infinite. Where the truth has no
    mass all three are infinite. Predictions that are not numbers (NaN) have metrics that are none.

    Parameters
    ----------
    future : int
        Number of predicted frames.
    data_range : float
        The difference between the largest and the smallest possible pixel value.

    Examples
    --------
    >>> metrics = FrameMetrics(future=2)
    >>> truth = torch.full((4, 2, 1, 16, 16), 0.5)
    >>> metrics.update(truth + 0.1, truth)
    >>> values = metrics.compute()
    >>> [round(db, 3) for db in values["psnr"]], [round(ratio, 3) for ratio in values["mass_ratio"]]
    ([20.0, 20.0], [1.2, 1.2])
    """

    def __init__(self, future: int, data_range: float = 1.0) -> None:
        makers: dict[str, Callable[[], Metric]] = {
            "mse": MeanSquaredError,
            "psnr": lambda: PeakSignalNoiseRatio(data_range=data_range),
            "ssim": lambda: StructuralSimilarityIndexMeasure(data_range=data_range),
        }
        self._metrics = {name: [make() for _ in range(future)] for name, make in makers.items()}
        self._ink: dict[str, list[Tensor]] = {"mass_ratio": [], "mass_error": [], "centre_distance": []}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add a batch: predicted and true frames [B, future, C, H, W]."""
        frames = len(self._metrics["mse"])
        if predicted.shape != truth.shape or predicted.dim() != 5 or predicted.shape[1] != frames:
            raise ValueError(
                f"expected predicted and true frames of the same shape [B, {frames}, C, H, W], "
                f"got {list(predicted.shape)} and {list(truth.shape)}"
            )
        predicted, truth = predicted.detach().cpu(), truth.cpu()
        for metrics in self._metrics.values():
            for frame, metric in enumerate(metrics):
                metric.update(predicted[:, frame].contiguous(), truth[:, frame].contiguous())
        ratio = mass(predicted) / mass(truth)
        distance = (centre_of_mass(predicted) - centre_of_mass(truth)).norm(dim=-1)
        for name, value in [("mass_ratio", ratio), ("mass_error", (ratio - 1).abs()), ("centre_distance", distance)]:
            undefined = value.isnan() & ~mass(predicted).isnan()
            self._ink[name].append(value.masked_fill(undefined, torch.inf))

    def compute(self) -> dict[str, list[float]]:
        """The value of every metric for each predicted frame, the first one first."""
        values = {name: [float(metric.compute()) for metric in metrics] for name, metrics in self._metrics.items()}
        means = {name: torch.cat(parts).mean(dim=0) for name, parts in self._ink.items()}
        return values | {name: mean.tolist() for name, mean in means.items()}


def mass(frames: Tensor) -> Tensor:
    """Sum of the pixels of each frame: [..., C, H, W] to [...], in float64."""
    return frames.double().sum(dim=(-3, -2, -1))


def centre_of_mass(frames: Tensor) -> Tensor:
    """Centre of mass of each frame, in pixels from the centre of the first one.

    Parameters
    ----------
    frames : Tensor [..., C, H, W]
        Frames whose pixels are not negative.

    Returns
    -------
    Tensor [..., 2], float64
        Row and column; not a number for a frame without mass.

    Examples
    --------
    >>> frame = torch.zeros(1, 4, 6)
    >>> frame[0, 1, 2:4] = 1.0
    >>> centre_of_mass(frame)
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    ink = frames.double().sum(dim=-3)
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in ink.shape[-2:])
    moments = torch.stack([(ink.sum(dim=-1) * rows).sum(dim=-1), (ink.sum(dim=-2) * columns).sum(dim=-1)], dim=-1)
    return moments / mass(frames).unsqueeze(-1)
