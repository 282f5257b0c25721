"""The figures by which predictions are compared with those of others, in float64, frame by frame."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CONVENTIONS: Mapping[str, str] = {
    "data_range": "1, frames from 0 to 1; predictions are clamped to it",
    "mse": "mean over the pixels and channels of a frame",
    "mse_sum": "sum over the pixels and channels of a frame",
    "mae": "mean absolute error over the pixels and channels of a frame",
    "mae_sum": "sum of absolute errors over the pixels and channels of a frame",
    "psnr": "dB, of each frame, then the mean; infinite as soon as one frame is exact",
    "ssim": "Gaussian window of 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03, population variances (divided by the "
    "weights' sum, not by n - 1), mean over the windows that lie in the frame, then over channels: "
    "scikit-image's structural_similarity with gaussian_weights=True, use_sample_covariance=False, data_range=1",
    "lpips": "AlexNet, version 0.1, frames scaled to -1 .. 1, gray repeated to three channels",
}
_SSIM_WINDOW = 11

Perceptual = Callable[[Tensor, Tensor], Tensor]


class Scores:
    """Metrics of every predicted frame of every sequence; :data:`CONVENTIONS` says what each one is.

    Parameters
    ----------
    lpips : callable, optional
        ``lpips(predicted, truth)`` of frames [B, C, H, W] from 0 to 1, gives [B].

    Examples
    --------
    >>> scores = Scores()
    >>> truth = torch.full((2, 3, 1, 16, 16), 0.5)
    >>> scores.update(truth + 0.1, truth)
    >>> values = scores.per_frame()
    >>> [round(db, 4) for db in values["psnr"]], round(values["mse_sum"][0], 4)
    ([20.0, 20.0, 20.0], 2.56)
    """

    def __init__(self, lpips: Perceptual | None = None) -> None:
        self._lpips = lpips
        self._values: dict[str, list[Tensor]] = {}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add a batch: predicted and true frames [B, future, C, H, W]."""
        if predicted.shape != truth.shape or predicted.dim() != 5:
            raise ValueError(
                "expected predicted and true frames of the same shape [B, future, C, H, W], "
                f"got {list(predicted.shape)} and {list(truth.shape)}"
            )
        predicted, truth = predicted.detach().double().clamp(0, 1), truth.double()
        difference = predicted - truth
        squared, absolute = difference.square().flatten(2), difference.abs().flatten(2)
        measured = {
            "mse": squared.mean(-1),
            "mse_sum": squared.sum(-1),
            "mae": absolute.mean(-1),
            "mae_sum": absolute.sum(-1),
            "psnr": -10 * squared.mean(-1).log10(),
            "ssim": ssim(predicted.flatten(0, 1), truth.flatten(0, 1)).view(predicted.shape[:2]),
        }
        if self._lpips is not None:
            distance = self._lpips(predicted.flatten(0, 1).float(), truth.flatten(0, 1).float())
            measured["lpips"] = distance.double().view(predicted.shape[:2])
        for name, values in measured.items():
            self._values.setdefault(name, []).append(values.cpu())

    @property
    def sequences(self) -> int:
        """How many were added."""
        return sum(len(values) for values in self._values.get("mse", []))

    def per_frame(self) -> dict[str, list[float]]:
        """By metric: the mean over the sequences for each predicted frame, the first one first."""
        if not self._values:
            raise ValueError("no sequences were added")
        return {name: torch.cat(parts).mean(dim=0).tolist() for name, parts in self._values.items()}


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of frames from 0 to 1, by the conventions of :data:`CONVENTIONS`.

    (torchmetrics continues the frames beyond their borders and averages over all pixels, which gives other values.)

    Parameters
    ----------
    predicted, truth : Tensor [B, C, H, W]

    Returns
    -------
    Tensor [B]
        Not a number for frames below 11 x 11 pixels.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli: Image quality assessment: from error visibility to
    structural similarity. IEEE Transactions on Image Processing 13 (4), 2004.
    """
    if min(predicted.shape[-2:]) < _SSIM_WINDOW:
        return torch.full((len(predicted),), torch.nan, dtype=predicted.dtype, device=predicted.device)
    half = _SSIM_WINDOW // 2
    offsets = torch.arange(-half, half + 1, dtype=predicted.dtype, device=predicted.device)
    weights = torch.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def mean(frames: Tensor) -> Tensor:
        frames = F.conv2d(frames.flatten(0, 1).unsqueeze(1), weights.view(1, 1, -1, 1))
        return F.conv2d(frames, weights.view(1, 1, 1, -1))

    x, y = mean(predicted), mean(truth)
    variances = mean(predicted.square()) - x * x, mean(truth.square()) - y * y
    covariance = mean(predicted * truth) - x * y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * x * y + c1) * (2 * covariance + c2) / ((x * x + y * y + c1) * (sum(variances) + c2))
    return similarity.flatten(1).mean(dim=1).view(predicted.shape[:2]).mean(dim=1)
