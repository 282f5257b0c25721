"""Trainings that begin dense: the conversion, what the optimizer keeps, and that nothing else notices the switch."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from tt_conv.applications.compression import to_conv_tt_lstm
from tt_conv.applications.recognition import settings as recognition
from tt_conv.applications.training import (
    load_trained,
    resume_training,
    run_training,
    settings_from_dict,
    settings_to_dict,
)
from tt_conv.applications.training.by_recipe import TrainedByRecipe
from tt_conv.applications.training.dense_start import WARM_UP_STEPS, carry_over
from tt_conv.applications.training.run import _Prepared
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTMCell, FramePredictor

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.getcwd()}


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(model: dict[str, Any] | None = None, **training: Any) -> Settings:
    """Three epochs of two steps each, the first two of them dense."""
    recipe: dict[str, Any] = {"epochs": 3, "batch_size": 4, "dense_start": 1 / 3, "pictures_every": 0}
    recipe |= {"accelerator": "cpu", "learning_rate": 1e-2}
    network: dict[str, Any] = {"hidden_channels": [3], "layers_per_block": [1], "kernel_size": 3, "patch_size": 2}
    return Settings(
        DataSettings(size=16, digit_size=8, digits=1, given=3, future=2, sequences=9, validation_sequences=3),
        ModelSettings(**(network | {"order": 2, "steps": 3, "rank": 2} | (model or {}))),
        TrainingSettings(**(recipe | training)),
    )


def actions(tmp_path: Path, **training: Any) -> recognition.Settings:
    recipe: dict[str, Any] = {"epochs": 3, "batch_size": 7, "dense_start": 0.5, "accelerator": "cpu"}
    return recognition.Settings(
        recognition.DataSettings(frames=4, size=16, clips=14, validation_clips=14, cache=str(tmp_path / "cache")),
        recognition.ModelSettings(encoder_channels=[4], hidden_channels=[4, 3], rank=2),
        recognition.TrainingSettings(**(recipe | training)),
    )


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


def stops_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let trainings die before a step, without tidying up."""
    original = TrainedByRecipe.training_step

    def dies(module: TrainedByRecipe, batch: Any) -> Any:
        if module.global_step == step:
            raise SystemExit
        return original(module, batch)

    monkeypatch.setattr(TrainedByRecipe, "training_step", dies)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_training(tiny(), folder)
    return folder


def test_it_is_a_conv_lstm_first_then_what_it_is_converted_to(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, at_switch = tiny(), {}
    original = TrainedByRecipe.training_step

    def keeps(module: TrainedByRecipe, batch: Any) -> Any:
        if module.global_step == 2:
            optimizer = module.trainer.optimizers[0]
            at_switch.update({name: value.clone() for name, value in module.model.state_dict().items()})
            names = {id(value): name for name, value in module.model.named_parameters()}
            moments = {names[id(value)]: state["exp_avg"].clone() for value, state in optimizer.state.items()}
            at_switch["moments"] = moments
            at_switch["groups"] = [[names[id(value)] for value in g["params"]] for g in optimizer.param_groups]
            raise SystemExit
        return original(module, batch)

    monkeypatch.setattr(TrainedByRecipe, "training_step", keeps)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, tmp_path / "run")
    monkeypatch.setattr(TrainedByRecipe, "training_step", original)

    # The first epoch is that of a ConvLSTM with the same recipe.
    dense = replace(
        settings,
        model=ModelSettings("conv_lstm", [3], [1], kernel_size=3, patch_size=2),
        training=replace(settings.training, dense_start=0.0),
    )
    stops_before(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run_training(dense, tmp_path / "dense")
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    expected = torch.load(tmp_path / "dense" / "last.ckpt", weights_only=True)
    assert same(kept["state_dict"], expected["state_dict"])

    # Its checkpoint is one of a ConvLSTM, and converts by hand to what the training goes on with.
    trained = load_trained(tmp_path / "run" / "last.ckpt")
    assert trained.settings.model == dense.model

    model = trained.model.train()
    by_hand, _ = to_conv_tt_lstm(
        model,
        order=2,
        steps=3,
        rank=2,
        kernel_size=3,
        boundary="stagewise",
        data=_Prepared(settings)._calibration(),
    )
    moments, groups = at_switch.pop("moments"), at_switch.pop("groups")
    assert same(at_switch, by_hand.state_dict())

    # The optimizer keeps what it knows of what was there before.
    names = [name for name, _ in model.named_parameters()]
    before = {names[place]: state["exp_avg"] for place, state in kept["optimizer_states"][0]["state"].items()}
    assert groups[0] == [*moments]
    assert all("projection" in name or "core" in name for name in groups[1])
    assert same(
        moments,
        {
            "blocks.0.0.input_conv.weight": before["blocks.0.0.conv.weight"][:, :4],
            "blocks.0.0.recurrent.bias": before["blocks.0.0.conv.bias"],
            "output.weight": before["output.weight"],
            "output.bias": before["output.bias"],
        },
    )


def test_what_it_leaves_is_an_ordinary_conv_tt_lstm(whole: Path) -> None:
    settings = tiny()
    for name in ("best.ckpt", "last.ckpt"):
        trained = load_trained(whole / name)
        assert trained.settings == settings
        assert isinstance(trained.model.cells()[0], ConvTTLSTMCell)
    assert [row["step"] for row in history(whole)] == ["2", "4", "6"]
    best = torch.load(whole / "best.ckpt", weights_only=True)["tt_conv"]["validation_loss"]
    assert best == min(float(row["validation_loss"]) for row in history(whole)[1:])


@pytest.mark.parametrize(
    ("schedule", "dense_start", "step"),
    [
        ("one_cycle", 0.5, 2),
        ("one_cycle", 0.5, 3),
        ("one_cycle", 0.5, 4),
        ("one_cycle", 1 / 3, 2),
        ("plateau", 1 / 3, 2),
        ("plateau", 1 / 6, 5),
    ],
)
@pytest.mark.parametrize("minutes", [0.0, 1e-9])  # checkpoints after epochs, or after every step
def test_resumed_before_at_and_after_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, dense_start: float, step: int, minutes: float
) -> None:
    settings = tiny(schedule=schedule, dense_start=dense_start, patience=1, checkpoint_minutes=minutes)
    run_training(settings, tmp_path / "whole")
    with monkeypatch.context() as patched:
        stops_before(patched, step)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "parts")
    assert resume_training(tmp_path / "parts")
    for name in ("last.ckpt", "best.ckpt"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name))
    assert history(tmp_path / "whole") == history(tmp_path / "parts")


def command(settings: Any, folder: Path) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings_to_dict(settings)))
    return ["-m", "tt_conv", "train", "--config", str(file), "--out", str(folder)]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    settings = tiny(precision="64", dense_start=0.5)
    run_training(settings, tmp_path / "one")
    both = replace(settings, training=replace(settings.training, devices="2", strategy="ddp"))
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
    assert finished.stdout.count("goes on as ConvTT-LSTM") == 1
    expected = weights(tmp_path / "one" / "last.ckpt")
    for name, value in weights(tmp_path / "two" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-10)


def test_bfloat16(tmp_path: Path) -> None:
    run_training(tiny(precision="bf16"), tmp_path / "run")
    assert {value.dtype for value in weights(tmp_path / "run" / "last.ckpt").values()} == {torch.float32}


@pytest.mark.parametrize(
    "model",
    [
        {"kernel_size": 5, "input_rank": 2},
        {"boundary": "zeros", "window": "fixed"},
        {"order": None, "steps": None, "rank": None},
        {"hidden_channels": [2, 3], "layers_per_block": [1, 2], "skip_stride": 1},
    ],
)
def test_whatever_the_recipe_says(tmp_path: Path, model: dict[str, Any]) -> None:
    assert run_training(tiny(model, epochs=2, dense_start=0.5), tmp_path / "run")
    assert isinstance(load_trained(tmp_path / "run" / "last.ckpt").model.cells()[0], ConvTTLSTMCell)


def test_recognition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = actions(tmp_path)
    run_training(settings, tmp_path / "whole")
    words = capsys.readouterr().out
    assert "begun as conv_lstm of" in words
    assert "Step 3: the ConvLSTM goes on as ConvTT-LSTM" in words
    with monkeypatch.context() as patched:
        stops_before(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "parts")
    first = load_trained(tmp_path / "parts" / "last.ckpt")
    assert first.settings.model.kind == "conv_lstm"
    assert isinstance(first.model.cells[1], ConvLSTMCell)
    assert resume_training(tmp_path / "parts")
    assert same(weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt"))
    last = load_trained(tmp_path / "parts" / "last.ckpt")
    assert last.settings == settings
    assert isinstance(last.model.cells[1], ConvTTLSTMCell)


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({}, {"dense_start": 1.0}, r"training.dense_start is a share of the steps, from 0 to below 1, got 1.0"),
        ({}, {"dense_start": -0.1}, "from 0 to below 1, got -0.1"),
        ({}, {"dense_start": float("nan")}, "from 0 to below 1, got nan"),
        (
            {"cell": "conv_lstm", "order": None, "steps": None, "rank": None},
            {},
            r"dense_start=0.3.* begins a conv_tt_lstm as a conv_lstm: leave it at 0 for model.cell=conv_lstm",
        ),
        ({"boundary": "circular"}, {}, "take model.boundary=zeros or stagewise, or leave it at 0"),
        ({}, {"epochs": 1, "batch_size": 9}, "dense_start needs a training of at least 2 steps, got 1"),
        ({}, {"strategy": "fsdp", "accelerator": "cpu"}, "fsdp"),
    ],
)
def test_refused_before_anything_is_written(
    tmp_path: Path, model: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_training(tiny(model, **training), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_3d_network_does_not_begin_dense(tmp_path: Path) -> None:
    settings = replace(actions(tmp_path), model=recognition.ModelSettings("conv_3d"))
    with pytest.raises(ValueError, match=r"leave it at 0 for model\.kind=conv_3d"):
        run_training(settings, tmp_path / "out")


def test_another_share_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    for kept, now in ((0.25, 0.5), (0.0, 0.25)):
        folder = tmp_path / str(now)
        run_training(tiny(dense_start=kept, epochs=1, batch_size=2), folder)
        settings = settings_to_dict(tiny(dense_start=now, epochs=1, batch_size=2))
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        with pytest.raises(ValueError, match=rf"training\.dense_start \({kept} in the checkpoint, {now} now\)"):
            resume_training(folder)


def test_a_checkpoint_of_before_there_was_a_share_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_training(tiny(dense_start=0.0, epochs=1), folder)
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    del kept["tt_conv"]["settings"]["training"]["dense_start"]
    torch.save(kept, folder / "last.ckpt")
    settings = settings_from_dict(kept["tt_conv"]["settings"])
    assert settings.training.dense_start == 0
    assert resume_training(folder)


def test_an_optimizer_without_a_state_and_one_with() -> None:
    torch.manual_seed(0)
    model = FramePredictor(1, (3, 2), (1, 1), cell="conv_lstm", kernel_size=3, skip_stride=None)
    converted, _ = to_conv_tt_lstm(model, rank=2)
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    carry_over(plain, model, converted)
    assert not plain.state
    assert {id(p) for group in plain.param_groups for p in group["params"]} == {id(p) for p in converted.parameters()}
    assert [group["momentum"] for group in plain.param_groups] == [0.9, 0.9]


def test_new_parameters_take_small_steps_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, float]] = []
    original = torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        if len(optimizer.param_groups) == 2:
            rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"]))
        return original(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run_training(tiny(epochs=30, dense_start=0.25, batch_size=9, schedule="plateau", patience=99), tmp_path / "run")
    assert [fresh / kept for kept, fresh in rates] == pytest.approx(
        [min(1.0, (n + 1) / WARM_UP_STEPS) for n in range(22)]
    )
    assert {kept for kept, _ in rates} == {1e-2}


def test_the_frame_kernel_of_a_layer_survives() -> None:
    model = ConvLSTM(2, 3, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 3, 2, 6, 6))[0].square().mean().backward()
    optimizer.step()
    moments = optimizer.state[model.cell.conv.weight]["exp_avg_sq"].clone()
    converted, _ = to_conv_tt_lstm(model, rank=2)
    carry_over(optimizer, model, converted)
    assert torch.equal(optimizer.state[converted.cell.input_conv.weight]["exp_avg_sq"], moments[:, :2])
    assert isinstance(converted.cell.input_conv, nn.Conv2d)
