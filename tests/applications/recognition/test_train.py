"""Recognition by the commands: train, resume, several processes, evaluate, predict; all on a few made clips."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tt_conv.applications.commands.main import main
from tt_conv.applications.recognition import demo
from tt_conv.applications.recognition.application import APPLICATION
from tt_conv.applications.recognition.data import ACTIONS, write_digit_actions
from tt_conv.applications.recognition.evaluate_trained import run_evaluation
from tt_conv.applications.recognition.module import Recognition
from tt_conv.applications.recognition.open_data import build_model, open_data
from tt_conv.applications.recognition.predict import run_prediction
from tt_conv.applications.recognition.settings import (
    DataSettings,
    DemoSettings,
    EvaluationSettings,
    ModelSettings,
    PredictionSettings,
    Settings,
    TrainingSettings,
)
from tt_conv.applications.training import (
    load_trained,
    resume_training,
    run_training,
    settings_from_dict,
    settings_to_dict,
)
from tt_conv.applications.training.recipes import recipe_file, recipe_names
from tt_conv.applications.video_prediction.checkpoint import load_predictor

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.getcwd()}
CLIPS = {"train": 28, "validation": 14, "test": 14}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few clips, in the form of Something-Something, read as such."""
    return write_digit_actions(tmp_path_factory.mktemp("clips") / "digits", clips=CLIPS)


def tiny(folder: Path, model: dict[str, Any] | None = None, **training: Any) -> Settings:
    data: dict[str, Any] = {"kind": "something_something", "path": str(folder), "cache": str(folder.parent / "cache")}
    recipe = {"epochs": 3, "batch_size": 14, "accelerator": "cpu", "prediction_weight": 1.0}
    network: dict[str, Any] = {"encoder_channels": [4, 4], "hidden_channels": [4], "rank": 2, "ahead": 1}
    return Settings(
        DataSettings(**data, frames=4, size=16, short_side=20, fresh=True, keep_decoded=True),
        ModelSettings(**(network if model is None else model)),
        TrainingSettings(**(recipe | training)),
    )


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [*csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    assert run_training(tiny(folder), out)
    return out


def test_what_a_training_leaves(trained: Path, folder: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"settings.yaml", "best.ckpt", "last.ckpt", "history.csv", "tensorboard"}
    assert yaml.safe_load((trained / "settings.yaml").read_text())["task"] == "recognition"
    kept = torch.load(trained / "last.ckpt", weights_only=True)["tt_conv"]
    assert (kept["task"], kept["channels"], kept["epochs_done"], kept["sequences_seen"]) == ("recognition", 1, 3, 84)
    assert sorted(kept["classes"]) == sorted(action.name for action in ACTIONS)
    assert settings_from_dict(kept["settings"]) == tiny(folder)
    row = history(trained)[-1]
    assert {"cross_entropy", "prediction", "accuracy_25", "accuracy_50", "accuracy_100"} <= row.keys()
    total = float(row["cross_entropy"]) + float(row["prediction"])
    assert float(row["validation_loss"]) == pytest.approx(total, rel=1e-5)


def test_loading_by_the_task(trained: Path) -> None:
    loaded = load_trained(trained / "last.ckpt")
    assert same(
        loaded.model.state_dict(), {n.removeprefix("model."): v for n, v in weights(trained / "last.ckpt").items()}
    )
    with pytest.raises(ValueError, match="is a checkpoint of the task recognition"):
        load_predictor(trained / "last.ckpt")


def test_resumed_after_an_interruption(
    trained: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Recognition.step_loss

    def dies(task: Recognition, numbers: Tensor, samples: Any) -> Tensor:
        if task.global_step == 3:
            raise SystemExit  # in the second epoch; Lightning does not tidy up after this one
        return original(task, numbers, samples)

    with monkeypatch.context() as patched:
        patched.setattr(Recognition, "step_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            run_training(tiny(folder), tmp_path / "parts")
    assert resume_training(tmp_path / "parts")
    assert same(weights(trained / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt"))
    rows = [[row | {"seconds": ""} for row in history(place)] for place in (trained, tmp_path / "parts")]
    assert rows[0] == rows[1]


def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    settings = tiny(folder, epochs=1, precision="64")
    run_training(settings, tmp_path / "one")
    both = replace(settings, training=replace(settings.training, devices="2", strategy="ddp"))
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(settings_to_dict(both)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tt_conv", "train"]
    finished = subprocess.run(
        [sys.executable, *torchrun, "--config", str(file), "--out", str(tmp_path / "two")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    expected = weights(tmp_path / "one" / "last.ckpt")
    for name, value in weights(tmp_path / "two" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)
    for one, two in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        for name in one.keys() - {"seconds"}:
            assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-12)


@pytest.mark.parametrize("kind", ["conv_lstm", "conv_3d"])
def test_bfloat16_without_prediction(folder: Path, tmp_path: Path, kind: str) -> None:
    network = {"kind": kind, "encoder_channels": [4, 4], "hidden_channels": [4]}
    run_training(tiny(folder, network, epochs=1, precision="bf16", prediction_weight=0.0), tmp_path / "out")
    assert {value.dtype for value in weights(tmp_path / "out" / "last.ckpt").values()} == {torch.float32}
    assert "prediction" not in history(tmp_path / "out")[0]


def test_a_decoder_with_weight_0_draws_nothing(folder: Path, tmp_path: Path) -> None:
    network = {"kind": "conv_3d", "encoder_channels": [4, 4], "hidden_channels": [4], "ahead": 1}
    run_training(tiny(folder, network, epochs=1, prediction_weight=0.0), tmp_path / "run")
    row = history(tmp_path / "run")[0]
    assert float(row["validation_loss"]) == pytest.approx(float(row["cross_entropy"]), rel=1e-6)
    run_prediction(tmp_path / "run" / "last.ckpt", next(folder.rglob("*.webm")), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"labels.json", "labels.csv", "labels.png"}


def test_an_evaluation(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_evaluation(
        trained / "best.ckpt", tmp_path / "out", EvaluationSettings(observed=[0.5, 0.501, 1.0], batch_size=5)
    )
    assert "50 % seen" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "results.json",
        "table.md",
        "accuracy.png",
        "confusion.png",
        "confusion_50.csv",
        "confusion_50.1.csv",
        "confusion_100.csv",
    }
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    network = load_trained(trained / "best.ckpt")
    test = open_data(network.settings.data, "test")
    with torch.inference_mode():
        right = [bool(network.model(clip[None])[0, -1].argmax() == label) for clip, label in test]
    assert results["observed"][2]["top1"] == pytest.approx(sum(right) / 14)
    assert sum(map(sum, results["confusion"]["1.0"])) == 14
    assert results["chance"] == pytest.approx(1 / 14)


def test_a_prediction(trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = sorted(folder.rglob("*.webm"))[0]
    main(["predict", "--checkpoint", str(trained / "best.ckpt"), "--video", str(video), "--out", str(tmp_path / "out")])
    assert "likeliest" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"labels.json", "labels.csv", "labels.png", "future.png"}
    after = json.loads((tmp_path / "out" / "labels.json").read_text())["after_frame"]
    assert [row["observed"] for row in after] == [0.25, 0.5, 0.75, 1.0]
    for row in after:
        chances = [entry["probability"] for entry in row["labels"]]
        assert chances == sorted(chances, reverse=True)
        assert len(chances) == 5
    every = run_prediction(trained / "best.ckpt", video, tmp_path / "all", PredictionSettings(top=99))
    assert sum(entry["probability"] for entry in every[0]["labels"]) == pytest.approx(1, abs=1e-5)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        main(arguments)
        status: Any = 0
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err


def test_what_the_commands_refuse(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ["--checkpoint", str(trained / "best.ckpt")]
    cases = [
        (["evaluate", *checkpoint, "--future", "[3]"], "is of the task recognition, which has no --future"),
        (["predict", *checkpoint, "--video", "x", "--given", "3"], "which has no --given"),
        (["compress", *checkpoint, "--budget", "0.5", "--finetune", "3"], "which has no --finetune"),
        (["compress", *checkpoint], "give one budget, such as --budget 0.25"),
        (["predict", *checkpoint, "--video", "/nowhere.webm"], "/nowhere.webm is no file"),
        (["predict", *checkpoint, "--video", "x", "--device", "gpu"], "device 'gpu'"),
        (["evaluate", *checkpoint, "--device", "gpu"], "device 'gpu'"),
        (["evaluate", *checkpoint, "--observed", "1.5"], "more than 0 and at most 1, got 1.5"),
        (["evaluate", *checkpoint, "--data.size", "18"], "don't allow: choose others with data.size"),
        (["evaluate", *checkpoint, "--data.channels", "3"], "was trained on frames of 1 channels"),
        (["train", "--task", "dancing"], "there is no task 'dancing'"),
        (["train", "--task", "recognition", "--data.frames", "1"], "data.frames must be at least 2"),
        (["train", "--task", "recognition", "--data.kind", "class_folders"], "say where they are with --data.path"),
        (["train", "--task", "recognition", "--data.kind", "class_folders", "--data.clips", "3"], "number of clips"),
        (["train", "--task", "recognition", "--data.path", "x"], "digit_actions are made, not read"),
    ]
    for arguments, message in cases:
        status, errors = run([*arguments, "--out", str(tmp_path / "out")], capsys)
        assert status == 2
        assert message in errors
        assert not (tmp_path / "out").exists()
    some = tmp_path / "some.txt"
    some.write_text("Moving something and something up\n")
    status, errors = run(["evaluate", *checkpoint, "--data.classes", str(some)], capsys)
    assert (status, "name the same ones in the same order" in errors) == (2, True)


def test_a_training_of_made_clips_by_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--data.size 16 --data.short_side 16 --data.clips 28 --data.validation_clips 14 --data.test_clips 14"
    small += " --training.epochs 1 --training.accelerator cpu"
    arguments = ["train", "--config", "actions_conv_tt_lstm_small", *small.split(), "--out", str(tmp_path / "run")]
    main(arguments)
    assert "28 training and 14 validation clips of 14 classes" in capsys.readouterr().out
    main(["evaluate", "--checkpoint", str(tmp_path / "run" / "best.ckpt"), "--out", str(tmp_path / "results")])
    assert "best possible" in capsys.readouterr().out


@pytest.mark.parametrize("name", recipe_names("recognition"))
def test_recipes_are_complete_and_build(name: str) -> None:
    settings = settings_from_dict(yaml.safe_load(recipe_file(name).read_text()))
    assert isinstance(settings, Settings)
    assert settings.model.kind in name
    APPLICATION.check(settings)
    model = build_model(settings.model, settings.data.channels, 14)
    side = settings.data.size
    assert isinstance(side, int)
    model.check_size((side, side))
    assert (model.ahead > 0) == (settings.training.prediction_weight > 0)


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy: dict[str, Any] = {"size": 16, "short_side": 18, "clips": 28, "test_clips": 14, "hidden_channels": (4,)}
    settings = DemoSettings(2, 3, **toy, encoder_channels=(4, 4), batch_size=4, rank=2)
    assert demo.run_demo(settings, tmp_path / "first")
    printed = capsys.readouterr().out
    assert "of the way from chance to the best possible" in printed
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert names == {"models.pt", "table.json", "accuracy.png", "confusion.png", "labels.png"}
    assert demo.run_demo(settings, tmp_path / "again")
    first, again = (json.loads((tmp_path / name / "table.json").read_text()) for name in ("first", "again"))
    assert first["models"] == again["models"]
    with pytest.raises(ValueError, match="steps must be at least 1"):
        demo.run_demo(DemoSettings(0), tmp_path / "none")


def test_compressed_with_accuracy_in_the_report(folder: Path, tmp_path: Path) -> None:
    network: dict[str, Any] = {"kind": "conv_lstm", "encoder_channels": [8, 8], "hidden_channels": [8], "ahead": 1}
    run_training(tiny(folder, network, epochs=1), tmp_path / "run")
    options = ["--budget", "0.6", "--calibration", "14", "--formats", "svd", "--out", str(tmp_path / "smaller")]
    main(["compress", "--checkpoint", str(tmp_path / "run" / "last.ckpt"), *options])
    report = json.loads((tmp_path / "smaller" / "report.json").read_text())
    assert report["report"]["parameters_after"] <= 0.6 * report["report"]["parameters_before"]
    assert {path.name for path in (tmp_path / "smaller").iterdir()} == {
        "model.safetensors",
        "config.json",
        "training.json",
        "report.json",
        "table.md",
        "layers.png",
    }
    assert "100 % seen" in (tmp_path / "smaller" / "table.md").read_text()
    figures = report["report"]
    assert (figures["quality_before"], figures["quality_after"]) == tuple(
        report["accuracy"][when]["observed"]["1.0"]["top1"] for when in ("before", "after")
    )
    assert figures["disk_after"] == (tmp_path / "smaller" / "model.safetensors").stat().st_size
    sweep = ["--sweep", "0.8,0.6", *options[2:-1], str(tmp_path / "sweep")]
    main(["compress", "--checkpoint", str(tmp_path / "run" / "last.ckpt"), *sweep])
    found = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["budgets"]
    assert [one["report"]["budget"] for one in found.values()] == [0.8, 0.6]
    assert found["parameters_0.6"]["accuracy"] == report["accuracy"]
    assert "top-1 accuracy" in (tmp_path / "sweep" / "table.md").read_text()
    main(["evaluate", "--checkpoint", str(tmp_path / "smaller"), "--out", str(tmp_path / "results")])
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["after_frame"] == report["accuracy"]["after"]["after_frame"]
    assert results["parameters"] == report["report"]["parameters_after"]
