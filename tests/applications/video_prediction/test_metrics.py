"""The figures that others compare with, against NumPy and scikit-image; those of the mass, by hand."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from tt_conv.applications.output import finite
from tt_conv.applications.video_prediction import FrameMetrics
from tt_conv.applications.video_prediction.metrics import CONVENTIONS, MASS_MEASURES, centre_of_mass, mass, ssim
from tt_conv.applications.video_prediction.perceptual import lpips_distance


def frames(seed: int, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 2, 1, 20, 24, generator=torch.Generator().manual_seed(seed))


def computed(*pairs: tuple[torch.Tensor, torch.Tensor]) -> dict[str, list[float]]:
    metrics = FrameMetrics(MASS_MEASURES)
    for predicted, truth in pairs:
        metrics.update(predicted, truth)
    return metrics.compute()


def pictures(seed: int, channels: int = 1) -> torch.Tensor:
    """Smooth pictures with some noise: [2, 3, channels, 24, 31]."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :31]
    waves = [np.sin(rows / a + columns / b) for a, b in random.uniform(2, 9, (6 * channels, 2))]
    picture = 0.5 + 0.35 * np.stack(waves).reshape(2, 3, channels, 24, 31) + 0.05 * random.standard_normal(31)
    return torch.from_numpy(picture.clip(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_figure_agrees_with_scikit_image(channels: int) -> None:
    truth, predicted = pictures(0, channels), pictures(0, channels).lerp(pictures(1, channels), 0.3)
    metrics = FrameMetrics()
    for number in range(2):  # in batches
        metrics.update(predicted[number : number + 1], truth[number : number + 1])
    values = metrics.compute()
    assert metrics.sequences == 2
    for t in range(3):
        pairs = [
            tuple(frame.numpy().transpose(1, 2, 0) for frame in pair)
            for pair in zip(predicted[:, t], truth[:, t], strict=True)
        ]
        expected = {
            "mse": [mean_squared_error(q, p) for p, q in pairs],
            "mse_sum": [((p - q) ** 2).sum() for p, q in pairs],
            "mae": [abs(p - q).mean() for p, q in pairs],
            "mae_sum": [abs(p - q).sum() for p, q in pairs],
            "psnr": [peak_signal_noise_ratio(q, p, data_range=1) for p, q in pairs],
            "ssim": [
                structural_similarity(
                    q, p, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
                for p, q in pairs
            ],
        }
        assert {*expected} == {*values}
        for name, each in expected.items():
            assert values[name][t] == pytest.approx(np.mean(each), abs=1e-9, rel=1e-9), name


def test_predictions_are_clamped_and_single_precision_is_enough() -> None:
    truth = pictures(0)
    metrics, same = FrameMetrics(), FrameMetrics()
    metrics.update(truth + 3, truth)
    same.update(torch.ones_like(truth).float(), truth.float())
    for name, values in metrics.compute().items():
        np.testing.assert_allclose(values, same.compute()[name], rtol=1e-5)


def test_a_metric_of_ones_own_and_tiny_frames() -> None:
    metrics = FrameMetrics({"lpips": lambda a, b: (a - b).abs().amax(dim=(1, 2, 3)), **MASS_MEASURES})
    metrics.update(torch.zeros(2, 1, 1, 8, 8), torch.full((2, 1, 1, 8, 8), 0.25))
    assert metrics.compute()["lpips"] == [0.25]
    assert np.isnan(metrics.compute()["ssim"][0])
    assert {*metrics.compute()} == {*CONVENTIONS} - {"data_range"}


def test_what_metrics_refuse() -> None:
    with pytest.raises(ValueError, match="no sequences were added"):
        FrameMetrics().compute()
    with pytest.raises(ValueError, match=r"same shape \[B, future, C, H, W\]"):
        FrameMetrics().update(torch.zeros(1, 2, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8))
    assert ssim(torch.ones(2, 1, 11, 11), torch.ones(2, 1, 11, 11)).tolist() == pytest.approx([1, 1])


def test_error_and_psnr_against_numpy_over_batches() -> None:
    first, second = (frames(0), frames(1)), (frames(2, 5), frames(3, 5))
    predicted, truth = (np.concatenate([a.numpy(), b.numpy()]) for a, b in zip(first, second, strict=True))
    values = computed(first, second)
    mse = ((predicted.astype(float) - truth) ** 2).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(values["mse"], mse.mean(axis=0))
    np.testing.assert_allclose(values["psnr"], (10 * np.log10(1 / mse)).mean(axis=0))


def test_ssim_of_constant_frames_by_its_formula() -> None:
    # Without variance only the luminance term is left: (2ab + C1) / (a^2 + b^2 + C1), C1 = 0.01^2.
    predicted, truth = torch.full((2, 2, 1, 16, 16), 0.2), torch.full((2, 2, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert computed((predicted, truth))["ssim"] == pytest.approx([expected] * 2, abs=1e-4)


def test_an_exact_prediction() -> None:
    truth = frames(0)
    values = computed((truth, truth))
    assert values["mse"] == values["mass_error"] == values["centre_distance"] == [0, 0]
    assert values["ssim"] == pytest.approx([1, 1])
    assert values["psnr"] == [math.inf] * 2


def test_mass_and_centre_by_hand() -> None:
    truth, predicted = torch.zeros(2, 1, 1, 12, 12), torch.zeros(2, 1, 1, 12, 12)
    truth[:, 0, 0, 2, 2] = 1.0
    predicted[0, 0, 0, 5, 6] = 0.5  # half the mass, 3 rows and 4 columns away
    predicted[1, 0, 0, 2, 2:4] = 0.8  # 1.6 times the mass, half a column away
    values = computed((predicted, truth))
    assert values["mass_ratio"] == pytest.approx([(0.5 + 1.6) / 2])
    assert values["mass_error"] == pytest.approx([(0.5 + 0.6) / 2])
    assert values["centre_distance"] == pytest.approx([(5 + 0.5) / 2])


def test_a_black_prediction_has_no_centre() -> None:
    values = computed((torch.zeros(1, 1, 1, 16, 16), torch.ones(1, 1, 1, 16, 16)))
    assert values["centre_distance"] == [math.inf]
    assert values["mass_error"] == [1.0]


@pytest.mark.parametrize("ink", [0.0, 0.5])
def test_a_black_truth_makes_the_masses_incomparable(ink: float) -> None:
    values = computed((torch.full((1, 1, 1, 16, 16), ink), torch.zeros(1, 1, 1, 16, 16)))
    for name in ("mass_ratio", "mass_error", "centre_distance"):
        assert values[name] == [math.inf]
        assert json.dumps(finite(values[name]), allow_nan=False) == "[null]"


def test_predictions_that_are_not_numbers() -> None:
    predicted = frames(0)
    predicted[0, 0] = math.nan
    values = computed((predicted, frames(1)))
    for name in {*CONVENTIONS} - {"data_range", "lpips"}:
        assert [math.isnan(value) for value in values[name]] == [True, False], name


def test_mass_and_centre_of_colour_frames() -> None:
    frame = torch.zeros(3, 4, 5)
    frame[0, 0, 0], frame[2, 3, 4] = 1.0, 3.0
    assert mass(frame) == 4
    assert centre_of_mass(frame).tolist() == [9 / 4, 12 / 4]


@pytest.mark.parametrize("shape", [(3, 3, 1, 20, 24), (3, 2, 1, 20, 20), (2, 1, 20, 24)])
def test_frames_that_do_not_fit(shape: tuple[int, ...]) -> None:
    metrics = FrameMetrics()
    with pytest.raises(ValueError, match=r"same shape \[B, future, C, H, W\], got \[3, 2, 1, 20, 24\] and"):
        metrics.update(frames(0), torch.rand(shape))
    metrics.update(frames(0), frames(1))
    with pytest.raises(ValueError, match=r"same shape \[B, 2, C, H, W\], got \[1, 4, 1, 20, 24\] and"):
        metrics.update(torch.rand(1, 4, 1, 20, 24), torch.rand(1, 4, 1, 20, 24))


def test_lpips_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r"pip install 'tt-conv\[lpips\]', or leave --lpips out"):
        lpips_distance()


def test_lpips_without_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setitem(sys.modules, "lpips", sys)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"alexnet-owt-7be5be79\.pth there, or leave --lpips out"):
        lpips_distance()
