"""The benchmark of error against size trains what its rows say, as the product trains, and its table adds up."""

from pathlib import Path

import pytest
import torch

from benchmarks.video_prediction import frontier, quality
from tt_conv.applications.training import settings_to_dict
from tt_conv.applications.training.recipes import recipe_file
from tt_conv.applications.training.settings import read_settings


def test_tiny_trainings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(quality, "TEST_SEQUENCES", 2)
    threads = torch.get_num_threads()
    try:
        scratch, dense, again = (
            frontier.train(name, 20, 1, steps=4) for name in (frontier.SCRATCH, frontier.DENSE, frontier.DENSE)
        )
    finally:
        torch.set_num_threads(threads)
    assert dense["case"] == "ConvTT-LSTM begun dense, 20 channels, seed 1"
    assert dense["mse"] == again["mse"] != scratch["mse"]
    assert dense["parameters"] == scratch["parameters"]
    assert not capsys.readouterr().out


def test_its_recipe_is_the_small_one_but_for_the_sequences() -> None:
    """Where they differ is in the table of differences, and nowhere else."""
    ours = settings_to_dict(frontier.recipe(frontier.SCRATCH, 32, 0))
    small = settings_to_dict(read_settings(Path(recipe_file("moving_mnist_conv_tt_lstm_small"))))
    differ = {
        f"{part}.{name}"
        for part in ("data", "model", "training")
        for name, value in ours[part].items()
        if value != small[part][name]
    }
    assert differ <= {
        "data.sequences",
        "data.validation_sequences",
        "data.test_sequences",
        "data.fresh",
        "model.order",
        "model.steps",
        "model.rank",
        "training.epochs",
        "training.optimizer",
        "training.pictures_every",
        "training.accelerator",
        "training.dense_start",
    }


def test_the_table_by_hand() -> None:
    def run(model: str, width: int, seed: int, mse: float, seconds: float) -> dict:
        return {
            "model": model,
            "width": width,
            "seed": seed,
            "mse": mse,
            "seconds": seconds,
            "parameters": 1000,
            "macs": 2e6,
            "ssim": 0.5,
        }

    results = [
        run(frontier.CONV_LSTM, 32, 0, 0.010, 2.0),
        run(frontier.DENSE, 42, 0, 0.009, 3.0),
        run(frontier.DENSE, 42, 1, 0.011, 5.0),
    ]
    lines = frontier.table(results).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["ConvLSTM", "32", "1,000", "2.0", "10.00", "10.00", "0.500", "1", "1.00"]
    expected = ["42", "1,000", "2.0", "10.00", "±", "1.41", "11.00", "0.500", "±", "0.000", "2", "2.00"]
    assert lines[2].split() == ["ConvTT-LSTM", "begun", "dense", *expected]
