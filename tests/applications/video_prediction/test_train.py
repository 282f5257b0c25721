"""Training by recipes: what it leaves, that it can be resumed at any moment, and that processes can share it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from tt_conv.applications.training import resume_training, run_training, settings_from_dict, settings_to_dict
from tt_conv.applications.training.recipes import recipe_file, recipe_names
from tt_conv.applications.video_prediction.module import VideoPrediction
from tt_conv.applications.video_prediction.open_data import build_model, open_data
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings

# What the tiny trainings of threads and processes share: one thread each, and quick to import.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.getcwd()}


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**training: Any) -> Settings:
    recipe: dict[str, Any] = {"epochs": 3, "batch_size": 4, "optimizer": "adam", "schedule": "plateau", "patience": 1}
    recipe |= {"sampling_ratio": 0.9, "sampling_decay": 0.2, "accelerator": "cpu", "pictures_every": 0}
    return Settings(
        DataSettings(
            size=16, digit_size=8, digits=1, given=2, future=3, sequences=9, validation_sequences=3, fresh=True
        ),
        ModelSettings(hidden_channels=[3], layers_per_block=[1], kernel_size=3, rank=2, patch_size=2),
        TrainingSettings(**(recipe | training)),
    )


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [*csv.DictReader(file)]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "out"
    assert run_training(tiny(pictures_every=2), folder)
    return folder


def test_what_a_training_leaves(trained: Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/events")}
    assert len(events) == 1
    assert files - events == {
        "settings.yaml",
        "best.ckpt",
        "last.ckpt",
        "history.csv",
        "samples/epoch_0002.png",
        "tensorboard/hparams.yaml",
    }
    rows = history(trained)
    assert [(row["epoch"], row["step"], row["sequences"]) for row in rows] == [
        ("1", "2", "8"),
        ("2", "4", "16"),
        ("3", "6", "24"),
    ]
    kept = torch.load(trained / "last.ckpt", weights_only=True)["tt_conv"]
    assert (kept["epochs_done"], kept["sequences_seen"], kept["channels"]) == (3, 24, 1)
    assert settings_from_dict(kept["settings"]) == settings_from_dict(
        yaml.safe_load((trained / "settings.yaml").read_text())
    )
    best = torch.load(trained / "best.ckpt", weights_only=True)["tt_conv"]
    assert best["validation_loss"] == min(float(row["validation_loss"]) for row in rows)


def test_the_same_settings_give_the_same_weights(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(77)
    run_training(tiny(), tmp_path / "again")
    assert same(weights(trained / "last.ckpt"), weights(tmp_path / "again" / "last.ckpt"))
    run_training(tiny(seed=1), tmp_path / "other")
    assert not same(weights(trained / "last.ckpt"), weights(tmp_path / "other" / "last.ckpt"))


def test_one_step_by_hand(tmp_path: Path) -> None:
    settings = tiny(epochs=1, batch_size=9, sampling_ratio=0.0, clip_norm=None)
    run_training(settings, tmp_path / "out")
    model, data = build_model(settings.model, 1, 0), open_data(settings.data, "train")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = torch.stack([data[number] for number in range(9)])
    predicted = model(batch[:, :2], 3)
    difference = predicted - batch[:, 1:]
    (difference.abs().mean() + difference.square().mean()).backward()
    optimizer.step()
    for name, value in weights(tmp_path / "out" / "last.ckpt").items():
        torch.testing.assert_close(value, model.state_dict()[name.removeprefix("model.")], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", ["state_dict", "optimizer_states", "loops", "tt_conv", "plateau", "settings"])
def test_an_incomplete_checkpoint_is_not_gone_on_from(trained: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    (kept if missing in kept else kept["tt_conv"]).pop(missing)
    torch.save(kept, tmp_path / "run" / "last.ckpt")
    with pytest.raises(ValueError, match=rf"last\.ckpt is incomplete.*no '{missing}'"):
        resume_training(tmp_path / "run")


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_one_cycle_of_few_steps(tmp_path: Path, steps: int) -> None:
    settings = tiny(epochs=1, batch_size=1, schedule="one_cycle")
    assert run_training(replace(settings, data=replace(settings.data, sequences=steps)), tmp_path / "out")
    assert history(tmp_path / "out")[-1]["step"] == str(steps)


@pytest.mark.parametrize("schedule", ["plateau", "one_cycle"])
@pytest.mark.parametrize("place", ["in the first epoch", "in the second epoch", "in its validation"])
def test_resumed_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, place: str
) -> None:
    settings = tiny(schedule=schedule, optimizer="adamw")
    run_training(settings, tmp_path / "whole")

    def dies(task: VideoPrediction, batch: Any) -> Any:
        if (task.current_epoch, task.global_step) == {"in the first epoch": (0, 1)}.get(
            place, (1, 3) if place == "in the second epoch" else (1, 4)
        ):
            raise SystemExit  # Lightning does not tidy up after this one
        return original(task, batch)

    with monkeypatch.context() as patched:
        name = "validation_step" if place == "in its validation" else "training_step"
        original = getattr(VideoPrediction, name)
        patched.setattr(VideoPrediction, name, dies)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "parts")
    assert resume_training(tmp_path / "parts")
    assert same(weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt"))
    assert same(weights(tmp_path / "whole" / "best.ckpt"), weights(tmp_path / "parts" / "best.ckpt"))
    rows = [[row | {"seconds": ""} for row in history(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("schedule", ["plateau", "one_cycle"])
@pytest.mark.parametrize("step", [1, 5, 8])
def test_resumed_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, step: int) -> None:
    """With checkpoints after every step nothing is done twice, and the end is that of a training left alone."""
    settings = tiny(schedule=schedule, checkpoint_minutes=1e-9)
    settings = replace(settings, data=replace(settings.data, sequences=21))  # 5 steps in an epoch
    run_training(replace(settings, training=replace(settings.training, checkpoint_minutes=0.0)), tmp_path / "whole")
    original, done = VideoPrediction.training_step, []

    def dies(task: VideoPrediction, batch: Any) -> Any:
        if task.global_step == step and len(done) == step:
            done.append(-1)
            raise SystemExit
        done.append(task.global_step)
        return original(task, batch)

    monkeypatch.setattr(VideoPrediction, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, tmp_path / "parts")
    kept = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)
    assert (kept["global_step"], kept["tt_conv"]["epochs_done"]) == (step, step // 5)
    assert resume_training(tmp_path / "parts")
    assert done == [*range(step), -1, *range(step, 15)]
    for name in ("last.ckpt", "best.ckpt"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name))
    rows = [[row | {"seconds": ""} for row in history(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    assert all(float(row["seconds"]) < 600 for row in history(tmp_path / "parts"))


def command(settings: Settings, folder: Path) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings_to_dict(settings)))
    return ["-m", "tt_conv", "train", "--config", str(file), "--out", str(folder)]


def test_resumed_after_a_kill(tmp_path: Path) -> None:
    settings = tiny(epochs=60)
    process = subprocess.Popen(
        [sys.executable, *command(settings, tmp_path / "killed")], env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["tt_conv"]["epochs_done"]
    assert 0 < done < 60
    assert resume_training(tmp_path / "killed")
    run_training(settings, tmp_path / "whole")
    assert same(weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "killed" / "last.ckpt"))


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    settings = tiny(epochs=2, precision="64")
    run_training(settings, tmp_path / "one")
    both = replace(settings, training=replace(settings.training, devices="2", strategy="ddp", checkpoint_minutes=1e-9))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [sys.executable, *torchrun, *command(both, tmp_path / "two")],
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
        for name in ("epoch", "step", "sequences", "training_loss", "validation_loss", "sampling_ratio"):
            assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-12)


def test_ctrl_c_keeps_the_epochs_that_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = VideoPrediction.training_step

    def interrupted(task: VideoPrediction, batch: Any) -> Any:
        if task.global_step == 2 and not (tmp_path / "sent").exists():
            (tmp_path / "sent").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return original(task, batch)

    monkeypatch.setattr(VideoPrediction, "training_step", interrupted)
    assert not run_training(tiny(), tmp_path / "out")
    assert "1 of 3 epochs are complete and kept. Go on with: tt-conv train --resume" in capsys.readouterr().out
    assert [row["epoch"] for row in history(tmp_path / "out")] == ["1"]
    assert resume_training(tmp_path / "out")
    run_training(tiny(), tmp_path / "whole")
    assert same(weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "out" / "last.ckpt"))


def test_bfloat16(tmp_path: Path) -> None:
    run_training(tiny(epochs=1, precision="bf16", loss="cross_entropy", start_at_mean=True), tmp_path / "out")
    assert {value.dtype for value in weights(tmp_path / "out" / "last.ckpt").values()} == {torch.float32}


def test_own_arrays_in_workers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 255, (60, 16, 24, 3), np.uint8))
    settings = tiny(epochs=1)
    data = DataSettings("own", str(tmp_path / "a.npy"), given=2, future=2, workers=1, fresh=True)
    settings = replace(settings, data=data)
    run_training(settings, tmp_path / "out")
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["tt_conv"]["channels"] == 3


@pytest.mark.parametrize("name", recipe_names("video_prediction"))
def test_recipes_are_complete_and_build(name: str) -> None:
    settings = settings_from_dict(yaml.safe_load(recipe_file(name).read_text()))
    assert recipe_file(name).read_text().startswith("# ")
    assert settings.model.cell in name
    assert settings.data.kind == name.split("_conv")[0]
    model = build_model(settings.model, 1)
    assert model.in_channels == 1
    published = {"conv_tt_lstm": 2_687_281, "conv_lstm": 3_973_201}
    if name.endswith("published"):
        assert sum(parameter.numel() for parameter in model.parameters()) == published[settings.model.cell]


@pytest.mark.parametrize("data", ["moving_mnist", "kth"])
def test_the_published_commands(data: str) -> None:
    """The values of the READMEs of github.com/NVlabs/conv-tt-lstm for --model convttlstm, optimized code."""
    settings = settings_from_dict(yaml.safe_load(recipe_file(f"{data}_conv_tt_lstm_published").read_text()))
    recipe, model = settings.training, settings.model
    assert (recipe.learning_rate, recipe.batch_size, recipe.clip_norm, recipe.sampling_decay) == (1e-4, 8, 1.0, 2e-3)
    assert (model.kernel_size, model.order, model.steps, model.rank, model.sigmoid) == (5, 3, 3, 8, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"epochs": 0}}, "training.epochs must be at least 1, got 0"),
        ({"training": {"devices": "many"}}, "training.devices must be a number"),
        ({"training": {"sampling_ratio": 2.0}}, "sampling_ratio must be from 0 to 1"),
        ({"training": {"sampling_decay": -1.0}}, "sampling_decay must not be negative"),
        ({"training": {"learning_rate": 0.0}}, "training.learning_rate must be positive"),
        ({"training": {"clip_norm": 0.0}}, "training.clip_norm must be positive and finite, or null"),
        ({"training": {"weight_decay": -1.0}}, "training.weight_decay must not be negative"),
        ({"training": {"lr_decay": 5.0}}, "training.lr_decay is a factor"),
        ({"training": {"accelerator": "bogus"}}, "bogus"),
        ({"training": {"accelerator": "tpu"}}, "cannot train with accelerator=tpu, devices=1"),
        ({"training": {"strategy": "bogus"}}, "bogus"),
        ({"training": {"precision": "fp16"}}, "training.precision=fp16 needs a GPU: take bf16 or 32"),
        ({"training": {"loss": "cross_entropy"}, "model": {"sigmoid": False}}, "need a model that ends with a sigmoid"),
        ({"data": {"workers": -1}}, "data.workers must not be negative"),
        ({"data": {"given": "many"}}, '"data.given": Expected int. Got value: many'),
        ({"model": {"patch_size": 3}}, r"model.patch_size=3 must divide the frames' sides \(16, 16\)"),
        ({"model": {"cell": "conv_lstm"}}, "conv_lstm cells have no option 'rank'"),
        ({"data": {"kind": "own"}}, "say where they are with --data.path"),
        ({"data": {"kind": "kth", "path": "/nowhere"}}, "/nowhere is no folder"),
        ({"data": {"given": 0}}, "given and future must be at least 1 frame"),
        ({"data": {"sequences": 0}}, "number of train sequences must be at least 1"),
        ({"data": {"channels": 3}}, "moving_mnist is gray"),
        ({"model": {"ranks": 3}}, "unknown settings: model.ranks"),
        ({"trainig": {}}, "unknown settings: trainig; .* did you mean training"),
    ],
)
def test_bad_settings_leave_no_folder(tmp_path: Path, change: dict[str, dict[str, Any]], message: str) -> None:
    values = settings_to_dict(tiny())
    for part, changes in change.items():
        values[part] = values.get(part, {}) | changes
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_training(settings_from_dict(values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    wild: dict[str, Any] = {"learning_rate": 1e30, "weight_decay": 1e20, "optimizer": "adamw"}
    with pytest.raises(ValueError, match=r"the training diverged in epoch 1, .*: lower training\.learning_rate"):
        run_training(tiny(**wild), tmp_path / "out")
    with pytest.raises(ValueError, match="outputs are not numbers from 0 to 1: the training diverged"):
        run_training(
            tiny(learning_rate=1e30, weight_decay=1e20, optimizer="adamw", loss="cross_entropy"), tmp_path / "o"
        )


def test_what_cannot_be_resumed(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    settings = yaml.safe_load((folder / "settings.yaml").read_text())

    def refused(message: str, **changes: Any) -> None:
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings | changes))
        with pytest.raises(ValueError, match=message):
            resume_training(folder)

    refused(
        r"settings\.yaml was changed since .*last\.ckpt .*model\.rank \(2 in the checkpoint, 3 now\): put that",
        model=settings["model"] | {"rank": 3},
    )
    refused(r"settings\.yaml: .*model must be named values", model="text")
    (folder / "settings.yaml").write_text("model: [")
    with pytest.raises(ValueError, match=r"settings\.yaml is no YAML file of settings .*expected"):
        resume_training(folder)
    for content in (b"", (folder / "last.ckpt").read_bytes()[:5000]):
        (folder / "last.ckpt").write_bytes(content)
        refused(r"last\.ckpt is no checkpoint, or a damaged one.*put a copy of best\.ckpt in its place")
    shutil.copy(folder / "best.ckpt", folder / "last.ckpt")
    assert resume_training(folder)


def test_float16_with_scaled_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, here on the CPU, where Lightning would take bfloat16; interrupted and resumed."""

    def plugins(recipe: object) -> dict:
        return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}

    monkeypatch.setattr("tt_conv.applications.training.run._precision", plugins)
    settings = tiny(epochs=2, precision="fp16", clip_norm=0.5)
    run_training(settings, tmp_path / "whole")
    kept = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    assert kept["MixedPrecision"]["scale"] > 1
    run_training(tiny(epochs=2, precision="32", clip_norm=0.5), tmp_path / "exact")
    for name, value in weights(tmp_path / "exact" / "last.ckpt").items():
        assert kept["state_dict"][name].dtype == torch.float32
        torch.testing.assert_close(kept["state_dict"][name], value, rtol=0, atol=4e-3)

    def dies(task: VideoPrediction, batch: Any) -> Any:
        if task.global_step == 3:
            raise SystemExit
        return original(task, batch)

    with monkeypatch.context() as patched:
        original = VideoPrediction.training_step
        patched.setattr(VideoPrediction, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "parts")
    assert resume_training(tmp_path / "parts")
    assert same(weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt"))


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no settings\.yaml"):
        resume_training(tmp_path)
