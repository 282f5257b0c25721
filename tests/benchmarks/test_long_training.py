"""The training that goes on where a run before it stopped."""

from pathlib import Path

import pytest
import torch

from benchmarks.video_prediction import long_training
from benchmarks.video_prediction.long_training import SMALL, Training, cases, one_cycle, plot, table

CPU = torch.device("cpu")


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_training, "PART", 5000)
    pieces, whole = tmp_path / "pieces", tmp_path / "whole"
    for folder in (pieces, whole):
        folder.mkdir()
    first = Training("ConvTT-LSTM", SMALL, CPU, pieces).go_on(2, 2)
    files = sorted(path.name for path in pieces.iterdir())
    assert len(files) > 1
    assert all(path.stat().st_size <= 5000 for path in pieces.iterdir())
    assert f"conv_tt_lstm-000002-1of{len(files)}.pt" in files
    again = Training("ConvTT-LSTM", SMALL, CPU, pieces)
    assert again.go_on(2, 2) == first
    resumed = again.go_on(6, 2)
    uninterrupted = Training("ConvTT-LSTM", SMALL, CPU, whole).go_on(6, 2)
    assert resumed["loss"] == pytest.approx(uninterrupted["loss"], rel=1e-2)
    assert {int(path.name.split("-")[1]) for path in pieces.iterdir()} == {6}
    # A file that is missing: the checkpoint does not count.
    next(pieces.iterdir()).unlink()
    lost = Training("ConvTT-LSTM", SMALL, CPU, pieces)
    lost.go_on(2, 2)
    assert lost.step == 2


def test_every_model_takes_the_same_steps_and_is_shown(tmp_path: Path) -> None:
    results = list(cases(CPU, small=True, folder=tmp_path))
    assert [result["case"] for result in results] == [
        "copy the last frame",
        *(f"{name}, step {step}" for step in (2, 4, 6) for name in ("ConvLSTM", "ConvTT-LSTM")),
    ]
    assert [len(result["mse"]) for result in results if "mse" in result] == [30, 30, 30]
    lines = table(results).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["copy", "ConvLSTM", "ConvTT-LSTM"]
    assert lines[2].split()[1:2] == ["6"]
    assert len(plot(results).axes[1].get_lines()) == 3
    assert list(cases(CPU, lambda case: case.endswith("LSTM, step 6"), small=True, folder=tmp_path)) == results[-2:]


def test_the_future_grows_in_stages(tmp_path: Path) -> None:
    training = Training("ConvLSTM", long_training.Plan(steps=100), CPU, tmp_path)
    futures = []
    for training.step in (0, 9, 10, 19, 20, 99):
        futures.append(training.future())
    assert futures == [1, 1, 4, 4, 10, 10]
    rates = [one_cycle(progress) for progress in (0.0, 0.05, 0.525, 1.0)]
    assert rates == pytest.approx([0.02, 1, 0.5, 0], abs=1e-3)


def test_too_little_memory_halves_the_batch_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Training._train

    def limited(self: Training, model: torch.nn.Module) -> torch.Tensor:
        if self._batch > 1:
            raise torch.OutOfMemoryError("out of memory")
        return train(self, model)

    monkeypatch.setattr(Training, "_train", limited)
    results = list(cases(CPU, lambda case: case.endswith("step 2"), small=True, folder=tmp_path))
    assert [result["batch"] for result in results] == [1, 1]
    assert "a batch of 2 does not fit" in results[0]["note"]
    assert "a batch of 2 does not fit" in table(results)
