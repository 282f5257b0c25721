"""The figures that others compare with, against NumPy and scikit-image, and the published ones."""

import sys

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from tt_conv.applications.video_prediction.perceptual import lpips_distance
from tt_conv.applications.video_prediction.published_figures import differences, published_tables, tables_for
from tt_conv.applications.video_prediction.scores import CONVENTIONS, Scores, ssim
from tt_conv.applications.video_prediction.settings import DataSettings


def frames(seed: int, channels: int = 1) -> torch.Tensor:
    """Smooth pictures with some noise: [2, 3, channels, 24, 31]."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :31]
    waves = [np.sin(rows / a + columns / b) for a, b in random.uniform(2, 9, (6 * channels, 2))]
    picture = 0.5 + 0.35 * np.stack(waves).reshape(2, 3, channels, 24, 31) + 0.05 * random.standard_normal(31)
    return torch.from_numpy(picture.clip(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_figure_agrees_with_scikit_image(channels: int) -> None:
    truth, predicted = frames(0, channels), frames(0, channels).lerp(frames(1, channels), 0.3)
    scores = Scores()
    for number in range(2):  # in batches
        scores.update(predicted[number : number + 1], truth[number : number + 1])
    values = scores.per_frame()
    assert scores.sequences == 2
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
            assert values[name][t] == pytest.approx(np.mean(each), abs=1e-6, rel=1e-9), name


def test_predictions_are_clamped_and_single_precision_is_enough() -> None:
    truth = frames(0)
    scores, same = Scores(), Scores()
    scores.update(truth + 3, truth)
    same.update(torch.ones_like(truth).float(), truth.float())
    for name, values in scores.per_frame().items():
        np.testing.assert_allclose(values, same.per_frame()[name], rtol=1e-5)


def test_a_metric_of_ones_own_and_tiny_frames() -> None:
    scores = Scores(lpips=lambda a, b: (a - b).abs().amax(dim=(1, 2, 3)))
    scores.update(torch.zeros(2, 1, 1, 8, 8), torch.full((2, 1, 1, 8, 8), 0.25))
    assert scores.per_frame()["lpips"] == [0.25]
    assert np.isnan(scores.per_frame()["ssim"][0])
    assert {*scores.per_frame()} == {*CONVENTIONS} - {"data_range"}


def test_what_scores_refuse() -> None:
    with pytest.raises(ValueError, match="no sequences were added"):
        Scores().per_frame()
    with pytest.raises(ValueError, match=r"same shape \[B, future, C, H, W\]"):
        Scores().update(torch.zeros(1, 2, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8))
    assert ssim(torch.ones(2, 1, 11, 11), torch.ones(2, 1, 11, 11)).tolist() == pytest.approx([1, 1])


def test_lpips_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r"pip install 'tt-conv\[lpips\]', or leave --lpips out"):
        lpips_distance()


def test_lpips_without_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setitem(sys.modules, "lpips", sys)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"alexnet-owt-7be5be79\.pth there, or leave --lpips out"):
        lpips_distance()


def test_the_published_tables() -> None:
    tables = {(table.data, table.future, table.source.split(",")[0]): table for table in published_tables()}
    assert len(tables) == 6
    original = tables["moving_mnist", 10, "github.com/NVlabs/conv-tt-lstm"].rows[2]
    assert [*original] == ["ConvTT-LSTM, original", "12.96", "0.915", "40.54", "2.69M", "10.76G"]
    assert all(len(row) == 1 + len(table.columns) for table in tables.values() for row in table.rows)
    assert "| TAU | 45.32 | 0.9086 | 27.10 | 0.229 |" in tables["kth", 20, "OpenSTL"].markdown()


@pytest.mark.parametrize(
    ("data", "future", "count"),
    [
        (DataSettings("moving_mnist"), 10, 2),
        (DataSettings("fixed_moving_mnist"), 30, 1),
        (DataSettings("kth"), 20, 2),
        (DataSettings("kth"), 10, 0),
        (DataSettings("moving_mnist", given=5), 10, 0),
        (DataSettings("moving_mnist", digits=1), 10, 0),
        (DataSettings("own"), 10, 0),
    ],
)
def test_only_tables_of_the_same_task_are_shown(data: DataSettings, future: int, count: int) -> None:
    assert len(tables_for(data, future)) == count


def test_the_share_of_the_training_is_said() -> None:
    said = differences(DataSettings(), 5_000, (64, 64), 50_000)
    assert said[0].startswith("Trained on 50,000 sequences: 1.00% of the 5,000,000 ")
    assert "not known" in differences(DataSettings("kth"), 10, (120, 120), None)[0]
