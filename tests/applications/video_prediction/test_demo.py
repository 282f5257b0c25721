import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tt_conv.applications.video_prediction import demo
from tt_conv.applications.video_prediction.demo import build_predictors, run_demo
from tt_conv.applications.video_prediction.metrics import CONVENTIONS
from tt_conv.applications.video_prediction.module import FramePrediction
from tt_conv.applications.video_prediction.settings import DemoSettings

TINY = DemoSettings(
    steps=3,
    size=16,
    digit_size=8,
    given=3,
    future=3,
    hidden_channels=(4,),
    layers_per_block=(1,),
    rank=2,
    patch_size=2,
    batch_size=2,
    test_sequences=6,
    budgets=(),
)
FILES = {"models.pt", "table.json", "curves.png", "strips.png", "animation.gif"}


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "table.json").read_text())


def without_times(table: dict[str, Any]) -> dict[str, Any]:
    return table | {"rows": [row | {"milliseconds_per_frame": None} for row in table["rows"]]}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert run_demo(TINY, folder)
    return folder


def test_what_the_folder_holds(demo_folder: Path) -> None:
    assert {path.name for path in demo_folder.iterdir()} == FILES
    with Image.open(demo_folder / "animation.gif") as gif:
        assert gif.n_frames == 6
    for name in ("curves.png", "strips.png"):
        with Image.open(demo_folder / name) as picture:
            picture.load()


def test_the_table_as_json(demo_folder: Path) -> None:
    table = results(demo_folder)
    assert table["settings"]["seed"] == 0
    assert table["training"] == {"steps_done": 3, "interrupted": False}
    assert [row["name"] for row in table["rows"]] == ["copy the last frame", "mean frame", "ConvLSTM", "ConvTT-LSTM"]
    metrics = {*CONVENTIONS} - {"data_range", "lpips"}
    for row in table["rows"]:
        assert {*row["metrics"]} == {*row["mean"]} == metrics
        assert all(len(values) == 3 for values in row["metrics"].values())
        assert row["mean"]["mse"] == pytest.approx(sum(row["metrics"]["mse"]) / 3)
    # 4 x (2 x 2 patches) = 4 input, 4 hidden channels, 3 x 3 kernels and 16 gates; 1 x 1 output to 4 channels.
    conv_lstm = table["rows"][2]
    assert conv_lstm["parameters"] == 9 * 8 * 16 + 16 + 4 * 4 + 4
    assert conv_lstm["macs_per_frame"] == (9 * 8 * 16 + 4 * 4) * 8 * 8
    for name in ("ConvLSTM", "ConvTT-LSTM"):
        learned = table["learned"][name]
        assert learned["frame"] == 3
        assert learned["limits"] == {"mse_to_best_baseline": 0.5, "mass_error": 0.3, "centre_distance": 3.0}
        assert learned["passed"] in (True, False)


def test_at_the_end_a_trained_network_is_compressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(replace(TINY, steps=1, test_sequences=1, budgets=(0.3, 0.1), compression_sequences=1), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"compression.json", "compression.png"}
    with Image.open(tmp_path / "out" / "compression.png") as picture:
        picture.load()
    contents = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert [*contents] == ["0.3", "0.1"]
    for budget, compressed in contents.items():
        assert compressed["report"]["parameters_after"] <= float(budget) * 359_184
    assert "parameters 0.1" in capsys.readouterr().out


def test_the_same_seed_and_steps_give_the_same_numbers(demo_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    run_demo(TINY, tmp_path / "again")
    assert without_times(results(tmp_path / "again")) == without_times(results(demo_folder))


def test_another_seed_gives_other_numbers(demo_folder: Path, tmp_path: Path) -> None:
    run_demo(replace(TINY, seed=1), tmp_path / "other")
    assert results(tmp_path / "other")["rows"][0]["metrics"] != results(demo_folder)["rows"][0]["metrics"]


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(TINY, tmp_path / "out")
    printed = capsys.readouterr().out
    for expected in ("ConvTT-LSTM", "copy the last frame", "3/3 steps", "at most 30 %", "at most 3 px", str(tmp_path)):
        assert expected in printed


def test_the_global_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run_demo(replace(TINY, steps=1), tmp_path / "out")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("model", ["ConvLSTM", "ConvTT-LSTM"])
def test_macs_per_frame_are_half_of_the_flops_that_pytorch_counts(model: str) -> None:
    predictor = build_predictors(TINY)[model]
    frame, states = torch.rand(1, 1, 16, 16), None
    with torch.no_grad():
        for _ in range(4):  # from then on every frame of a cell's window is one that it saw
            with FlopCounterMode(display=False) as counter:
                _, states = predictor.step(frame, states)
    assert predictor.macs((16, 16)) == counter.get_total_flops() / 2


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not empty"):
        run_demo(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not capsys.readouterr().out


def test_by_default_a_free_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run_demo(replace(TINY, steps=1, test_sequences=1))
    assert {path.name for path in tmp_path.iterdir()} == {"tt-conv-demo", "tt-conv-demo-2"}


def test_ctrl_c_leaves_what_was_learned_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = FramePrediction.loss
    interruptions: list[float] = []

    def interrupted(task: FramePrediction, batch: Tensor, progress: float) -> Tensor:
        if progress == 0.5 and not interruptions:
            interruptions.append(progress)
            os.kill(os.getpid(), signal.SIGINT)
        return loss(task, batch, progress)

    monkeypatch.setattr(FramePrediction, "loss", interrupted)
    assert not run_demo(replace(TINY, steps=8), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert results(tmp_path / "out")["training"] == {"steps_done": 5, "interrupted": True}
    assert "Stopped after 5 of 8 steps" in capsys.readouterr().out


def test_ctrl_c_after_the_training_leaves_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_demo(TINY, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["models.pt"]
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'out'} holds models.pt\n")
    kept = torch.load(tmp_path / "out" / "models.pt", weights_only=True)
    assert (kept["steps_done"], kept["settings"]["seed"]) == (3, 0)
    for name, model in build_predictors(TINY).items():
        start = model.state_dict()["output.weight"].clone()
        model.load_state_dict(kept["models"][name])
        assert not torch.equal(model.state_dict()["output.weight"], start)


def test_an_error_before_the_first_file_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(FramePrediction, "loss", fails)
    with pytest.raises(RuntimeError, match="no such luck"):
        run_demo(TINY, tmp_path / "out")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"size": 18, "patch_size": 4}, r"patch_size=4 must divide every side of a frame, got \(18, 18\)"),
        ({"kernel_size": 4}, "odd"),
        ({"rank": 0}, "rank"),
    ],
)
def test_bad_settings_leave_no_folder(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_demo(replace(TINY, **change), tmp_path / "out")
    assert not [*tmp_path.iterdir()]
