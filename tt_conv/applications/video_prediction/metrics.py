"""How far predicted frames are from the true ones: every figure is stated here once, for all that show one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

Measure = Callable[[Tensor, Tensor], Tensor]
"""From predicted and true frames ``[B, C, H, W]``, from 0 to 1, to one figure per frame, ``[B]``."""

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
    "mass_ratio": "predicted over true sum of the pixels of a frame; infinite where the truth has none",
    "mass_error": "how far mass_ratio is from 1",
    "centre_distance": "pixels between the centres of mass of a frame; infinite where either has no mass",
}
_SSIM_WINDOW = 11


def mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each frame."""
    return (predicted - truth).square().flatten(1).mean(dim=1)


def mse_sum(predicted: Tensor, truth: Tensor) -> Tensor:
    """Sum of squared errors of each frame."""
    return (predicted - truth).square().flatten(1).sum(dim=1)


def mae(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of each frame."""
    return (predicted - truth).abs().flatten(1).mean(dim=1)


def mae_sum(predicted: Tensor, truth: Tensor) -> Tensor:
    """Sum of absolute errors of each frame."""
    return (predicted - truth).abs().flatten(1).sum(dim=1)


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame, in dB."""
    # torchmetrics' own (1.9) takes logarithms in float32, whatever the frames are in.
    return -10 * mse(predicted, truth).log10()


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of frames from 0 to 1, by the conventions of ``CONVENTIONS``.

    Parameters
    ----------
    predicted, truth : Tensor [B, C, H, W]

    Returns
    -------
    Tensor [B]
        Not a number for frames below 11 x 11 pixels.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.applications.video_prediction.metrics import ssim
    >>> frames = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> ssim(frames, frames)
    tensor([1., 1.])

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli: Image quality assessment: from error visibility to
    structural similarity. IEEE Transactions on Image Processing 13 (4), 2004.
    """
    if min(predicted.shape[-2:]) < _SSIM_WINDOW:
        return torch.full((len(predicted),), torch.nan, dtype=predicted.dtype, device=predicted.device)
    _, similarity = structural_similarity_index_measure(
        predicted, truth, data_range=1.0, reduction="none", return_full_image=True
    )
    # torchmetrics mirrors the frames at their borders and averages over all pixels, which gives other values.
    half = _SSIM_WINDOW // 2
    return similarity[..., half:-half, half:-half].flatten(1).mean(dim=1)


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
    rows, columns = (torch.arange(size, dtype=torch.float64, device=ink.device) for size in ink.shape[-2:])
    moments = torch.stack([(ink.sum(dim=-1) * rows).sum(dim=-1), (ink.sum(dim=-2) * columns).sum(dim=-1)], dim=-1)
    return moments / mass(frames).unsqueeze(-1)


def mass_ratio(predicted: Tensor, truth: Tensor) -> Tensor:
    """Predicted over true mass of each frame."""
    return _or_infinite(mass(predicted) / mass(truth), predicted)


def mass_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """How far the ratio of the masses of each frame is from 1."""
    return (mass_ratio(predicted, truth) - 1).abs()


def centre_distance(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pixels between the centres of mass of each frame."""
    return _or_infinite((centre_of_mass(predicted) - centre_of_mass(truth)).norm(dim=-1), predicted)


def _or_infinite(values: Tensor, predicted: Tensor) -> Tensor:
    """Replace 0 / 0 by infinity, but leave predictions that are not numbers what they are."""
    return values.masked_fill(values.isnan() & ~mass(predicted).isnan(), torch.inf)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"mse": mse, "mse_sum": mse_sum, "mae": mae, "mae_sum": mae_sum, "psnr": psnr, "ssim": ssim}
)
"""The figures that predictions are compared by with those of others."""
MASS_MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"mass_ratio": mass_ratio, "mass_error": mass_error, "centre_distance": centre_distance}
)
"""Whether what moves is there and in the right place, where frames are black but for what moves."""


class FrameMetrics:
    """Metrics of each predicted frame, as means over sequences; ``CONVENTIONS`` says what each one is.

    They are computed in float64, of predictions clamped to the range from 0 to 1.

    Parameters
    ----------
    more : mapping of str to callable, optional
        Further metrics by name, such as :data:`MASS_MEASURES`: of predicted and true frames ``[B, C, H, W]`` each
        returns one figure per frame, ``[B]``.

    Examples
    --------
    >>> metrics = FrameMetrics(MASS_MEASURES)
    >>> truth = torch.full((4, 2, 1, 16, 16), 0.5)
    >>> metrics.update(truth + 0.1, truth)
    >>> values = metrics.compute()
    >>> [round(db, 3) for db in values["psnr"]], [round(ratio, 3) for ratio in values["mass_ratio"]]
    ([20.0, 20.0], [1.2, 1.2])
    """

    def __init__(self, more: Mapping[str, Measure] | None = None) -> None:
        self._measures = {**MEASURES, **(more or {})}
        self._values: dict[str, list[Tensor]] = {name: [] for name in self._measures}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add a batch: predicted and true frames [B, future, C, H, W], as many frames as in the batches before.

        Raises
        ------
        ValueError
            If the shapes are others.
        """
        before = self._values["mse"]
        future = before[0].shape[1] if before else "future"
        if predicted.shape != truth.shape or predicted.dim() != 5 or (before and predicted.shape[1] != future):
            raise ValueError(
                f"expected predicted and true frames of the same shape [B, {future}, C, H, W], "
                f"got {list(predicted.shape)} and {list(truth.shape)}"
            )
        batch = predicted.shape[:2]
        predicted, truth = (frames.detach().double().flatten(0, 1) for frames in (predicted, truth))
        predicted = predicted.clamp(0, 1)
        for name, measure in self._measures.items():
            self._values[name].append(measure(predicted, truth).double().cpu().view(batch))

    @property
    def sequences(self) -> int:
        """How many were added."""
        return sum(map(len, self._values["mse"]))

    def compute(self) -> dict[str, list[float]]:
        """By metric: the mean over the sequences for each predicted frame, the first one first.

        Raises
        ------
        ValueError
            If no sequences were added.
        """
        if not self.sequences:
            raise ValueError("no sequences were added")
        return {name: torch.cat(parts).mean(dim=0).tolist() for name, parts in self._values.items()}
