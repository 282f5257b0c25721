import json
import math

import numpy as np
import pytest
import torch

from tt_conv.applications.video_prediction import FrameMetrics
from tt_conv.applications.video_prediction.metrics import centre_of_mass, mass
from tt_conv.applications.video_prediction.report import finite


def frames(seed: int, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 2, 1, 20, 24, generator=torch.Generator().manual_seed(seed))


def computed(*pairs: tuple[torch.Tensor, torch.Tensor], data_range: float = 1.0) -> dict[str, list[float]]:
    metrics = FrameMetrics(pairs[0][0].shape[1], data_range)
    for predicted, truth in pairs:
        metrics.update(predicted, truth)
    return metrics.compute()


def test_error_and_psnr_against_numpy_over_batches() -> None:
    first, second = (frames(0), frames(1)), (frames(2, 5), frames(3, 5))
    predicted, truth = (np.concatenate([a.numpy(), b.numpy()]) for a, b in zip(first, second, strict=True))
    values = computed(first, second)
    mse = ((predicted - truth) ** 2).mean(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(values["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(values["psnr"], 10 * np.log10(1 / mse), rtol=1e-5)


def test_the_data_range_counts() -> None:
    at_one, at_two = (computed((frames(0), frames(1)), data_range=value)["psnr"][0] for value in (1.0, 2.0))
    assert at_two - at_one == pytest.approx(20 * math.log10(2), abs=1e-4)


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
    for name in ("mse", "psnr", "ssim", "mass_ratio", "mass_error", "centre_distance"):
        assert [math.isnan(value) for value in values[name]] == [True, False], name


def test_mass_and_centre_of_colour_frames() -> None:
    frame = torch.zeros(3, 4, 5)
    frame[0, 0, 0], frame[2, 3, 4] = 1.0, 3.0
    assert mass(frame) == 4
    assert centre_of_mass(frame).tolist() == [9 / 4, 12 / 4]


@pytest.mark.parametrize("shape", [(3, 3, 1, 20, 24), (3, 2, 1, 20, 20), (2, 1, 20, 24)])
def test_frames_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"same shape \[B, 2, C, H, W\], got \[3, 2, 1, 20, 24\] and"):
        FrameMetrics(2).update(frames(0), torch.rand(shape))
