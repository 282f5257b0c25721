"""The quality benchmark trains what its rows say, and its table adds up."""

import pytest
import torch

from benchmarks.video_prediction import gap, quality
from tt_conv import ConvTT


def test_one_tiny_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "TEST_SEQUENCES", 2)
    threads = torch.get_num_threads()
    try:
        first, again = (quality.train("  input_rank 8", 1, steps=4) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert first["mse"] == again["mse"]
    assert first["case"] == "  input_rank 8, 4 steps, seed 1"


@pytest.mark.parametrize("name", quality.MODELS)
def test_every_row_is_a_network(name: str) -> None:
    settings = quality.model_settings(quality.MODELS[name])
    assert (settings.cell == "conv_lstm") == (name == quality.BASELINE)


def test_the_table_by_hand() -> None:
    common = {"steps": 600, "macs": 2e6, "ssim": 0.5}
    runs = [
        ("ConvLSTM", 0, 0.010, 2.0),
        ("ConvLSTM", 1, 0.012, 4.0),
        ("ConvTT-LSTM", 0, 0.011, 1.5),
        ("ConvTT-LSTM", 1, 0.012, 1.5),
    ]
    results = [
        {"model": model, "seed": seed, "mse": mse, "seconds": seconds, "parameters": 1000, **common}
        for model, seed, mse, seconds in runs
    ]
    lines = quality.table([{"model": quality.COPY, "mse": 0.05, "ssim": 0.4}, *results]).splitlines()
    assert lines[0] == "600 steps of 4 sequences each"
    assert lines[2].split() == ["copy", "the", "last", "frame", "-", "-", "50.00", "0.400"]
    assert lines[4].split() == [
        "ConvTT-LSTM",
        "1,000",
        "2.0",
        "11.50",
        "±",
        "0.71",
        "0.500",
        "±",
        "0.000",
        "1",
        "of",
        "2",
        "0.50",
    ]


def test_one_tiny_training_of_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "TEST_SEQUENCES", 2)
    threads = torch.get_num_threads()
    try:
        slow, usual, again = (gap.train(f"  full rank{words}", 1, steps=4) for words in (", half as fast", "", ""))
        quality_row = quality.train("ConvTT-LSTM", 1, steps=4)
        same_row = gap.train("ConvTT-LSTM", 1, steps=4)
    finally:
        torch.set_num_threads(threads)
    assert usual["mse"] == again["mse"] != slow["mse"]
    assert same_row["mse"] == quality_row["mse"]


def test_a_centred_start_is_as_wide_as_the_last_core() -> None:
    conv = ConvTT(4, 8, 3, order=3, rank=4)
    gap.start(conv, "centred")
    dense = conv.to_dense()[0].detach()
    assert dense.shape[-2:] == (9, 9)
    assert dense[..., 3:6, 3:6].abs().sum() == pytest.approx(float(dense.abs().sum()))
    before = dense.clone()
    gap.start(conv, "smaller")
    torch.testing.assert_close(conv.to_dense()[0].detach(), before / 2)


def test_the_table_of_the_gap_by_hand() -> None:
    runs = [("ConvLSTM", 0, 0.010), ("ConvLSTM", 1, 0.012), ("ConvTT-LSTM", 0, 0.011), ("ConvTT-LSTM", 1, 0.012)]
    results = [{"model": model, "seed": seed, "mse": mse, "ssim": 0.5, "parameters": 1000} for model, seed, mse in runs]
    last = gap.table(results).splitlines()[-1]
    assert last.split() == ["ConvTT-LSTM", "1,000", "11.50", "±", "0.71", "+0.50", "0.500", "±", "0.000"]
