"""Checkpoints of every task that are damaged, incomplete or of something else: refused by the file's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tt_conv.applications.compression import save_compressed
from tt_conv.applications.recognition import settings as recognition
from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.open_data import build_model as build_recognizer
from tt_conv.applications.training import load_trained, settings_to_dict
from tt_conv.applications.video_prediction import settings as video_prediction
from tt_conv.applications.video_prediction.checkpoint import load_predictor
from tt_conv.applications.video_prediction.open_data import build_model as build_predictor

LOAD: dict[str, Callable[[Path], Any]] = {"video_prediction": load_predictor, "recognition": load_recognizer}
every_task = pytest.mark.parametrize("task", LOAD)


def contents(task: str) -> dict[str, Any]:
    """What a checkpoint of an untrained network holds."""
    told: dict[str, Any] = {"task": task, "channels": 1, "sequences_seen": 8, "epochs_done": 2}
    settings: Any
    if task == "recognition":
        sizes = {"encoder_channels": [3], "hidden_channels": [3], "rank": 2, "ahead": 1}
        settings = recognition.Settings(model=recognition.ModelSettings(**sizes))
        told["classes"] = ["up", "down"]
        model: torch.nn.Module = build_recognizer(settings.model, 1, 2)
    else:
        sizes = {"hidden_channels": [3], "layers_per_block": [1], "rank": 2}
        settings = video_prediction.Settings(model=video_prediction.ModelSettings(**sizes))
        model = build_predictor(settings.model, 1)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    return {"state_dict": weights, "tt_conv": {**told, "settings": settings_to_dict(settings)}}


def one_weight(kept: dict[str, Any], change: Callable[[torch.Tensor], Any]) -> None:
    name = next(iter(kept["state_dict"]))
    kept["state_dict"][name] = change(kept["state_dict"][name])


def told(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda kept: kept["tt_conv"].update(changes)


def model_settings(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda kept: kept["tt_conv"]["settings"]["model"].update(changes)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no weights": lambda kept: kept.pop("state_dict"),
    "weights of text": lambda kept: kept.update(state_dict="text"),
    "weights in a list": lambda kept: kept.update(state_dict=[*kept["state_dict"].values()]),
    "weights by number": lambda kept: kept.update(state_dict=dict(enumerate(kept["state_dict"].values()))),
    "a weight missing": lambda kept: kept["state_dict"].pop(next(iter(kept["state_dict"]))),
    "a weight too many": lambda kept: kept["state_dict"].update({"model.more": torch.zeros(1)}),
    "a weight of another shape": lambda kept: one_weight(kept, lambda value: value[:1]),
    "a weight of integers": lambda kept: one_weight(kept, torch.Tensor.long),
    "a weight of text": lambda kept: one_weight(kept, str),
    "nothing told": lambda kept: kept.update(tt_conv={}),
    "text told": lambda kept: kept.update(tt_conv="text"),
    "a list told": lambda kept: kept.update(tt_conv=["settings"]),
    "no settings": lambda kept: kept["tt_conv"].pop("settings"),
    "settings of text": told(settings="text"),
    "settings in a list": told(settings=[]),
    "an unknown setting": model_settings(unknown=1),
    "a setting of another type": model_settings(kernel_size="large"),
    "an even kernel": model_settings(kernel_size=4),
    "another width": model_settings(hidden_channels=[4]),
    "a width beyond all memory": model_settings(hidden_channels=[1 << 40]),
    "layers without end": model_settings(order=1 << 20),
    "no channels": lambda kept: kept["tt_conv"].pop("channels"),
    "channels of text": told(channels="three"),
    "channels in a list": told(channels=[1]),
    "zero channels": told(channels=0),
    "half a channel": told(channels=1.5),
    "other channels": told(channels=2),
    "no count of sequences": lambda kept: kept["tt_conv"].pop("sequences_seen"),
    "no count of epochs": lambda kept: kept["tt_conv"].pop("epochs_done"),
    "a count of text": told(sequences_seen="many"),
    "a negative count": told(epochs_done=-1),
    "an unknown task": told(task="dancing"),
    "a task of no name": told(task=["recognition"]),
}
CLASSES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no classes": lambda kept: kept["tt_conv"].pop("classes"),
    "classes of text": told(classes="up"),
    "a number of classes": told(classes=2),
    "classes without names": told(classes=[0, 1]),
    "no class": told(classes=[]),
    "a class too many": told(classes=["up", "down", "left"]),
    "settings of another task": told(settings=contents("video_prediction")["tt_conv"]["settings"]),
}


@every_task
def test_a_whole_checkpoint_is_loaded(task: str, tmp_path: Path) -> None:
    kept = contents(task)
    torch.save(kept, tmp_path / "whole.ckpt")
    for load in (LOAD[task], load_trained):
        trained: Any = load(tmp_path / "whole.ckpt")
        assert (trained.sequences_seen, trained.epochs_done) == (8, 2)
        assert settings_to_dict(trained.settings) == kept["tt_conv"]["settings"]
        assert not trained.model.training
        assert all(parameter.requires_grad for parameter in trained.model.parameters())
        loaded = trained.model.state_dict()
        assert {f"model.{name}" for name in loaded} == {*kept["state_dict"]}
        assert all(torch.equal(value, kept["state_dict"][f"model.{name}"]) for name, value in loaded.items())


@every_task
def test_weights_of_a_training_in_double_precision_serve_frames_in_single(task: str, tmp_path: Path) -> None:
    kept = contents(task)
    kept["state_dict"] = {name: value.double() for name, value in kept["state_dict"].items()}
    torch.save(kept, tmp_path / "double.ckpt")
    model = LOAD[task](tmp_path / "double.ckpt").model
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("task", "damage"),
    [*((task, name) for task in LOAD for name in DAMAGE), *(("recognition", name) for name in CLASSES)],
)
def test_a_damaged_checkpoint_is_refused_by_its_name(task: str, damage: str, tmp_path: Path) -> None:
    kept = contents(task)
    (DAMAGE | CLASSES)[damage](kept)
    torch.save(kept, tmp_path / "bad.ckpt")
    for load in (LOAD[task], load_trained):
        with pytest.raises(ValueError, match=r"bad\.ckpt") as refused:
            load(tmp_path / "bad.ckpt")
        assert ": give " in str(refused.value)


@every_task
def test_files_that_are_no_checkpoint(task: str, tmp_path: Path) -> None:
    torch.save(contents(task), tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    for name, some in {"half": whole[: len(whole) // 2], "short": whole[:-30], "empty": b"", "text": b"text"}.items():
        (tmp_path / f"{name}.ckpt").write_bytes(some)
    for name, value in {"list": [1, 2], "number": 3.0, "tensor": torch.zeros(2), "without": {"epoch": 1}}.items():
        torch.save(value, tmp_path / f"{name}.ckpt")
    for name in ("half", "short", "empty", "text", "list", "number", "tensor", "without"):
        for load in (LOAD[task], load_trained):
            with pytest.raises(ValueError, match=rf"{name}\.ckpt"):
                load(tmp_path / f"{name}.ckpt")
    with pytest.raises(ValueError, match="is a folder: give a checkpoint"):
        LOAD[task](tmp_path)
    with pytest.raises(FileNotFoundError):
        LOAD[task](tmp_path / "nowhere.ckpt")


def test_a_checkpoint_of_another_task(tmp_path: Path) -> None:
    for task, other in (("video_prediction", "recognition"), ("recognition", "video_prediction")):
        torch.save(contents(task), tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=rf"other\.ckpt is a checkpoint of the task {task}: give one of {other}"):
            LOAD[other](tmp_path / "other.ckpt")


@every_task
@pytest.mark.parametrize("damage", ["no settings", "settings of text", "a negative count", "a setting of another type"])
def test_a_compressed_network_with_a_damaged_account(task: str, damage: str, tmp_path: Path) -> None:
    torch.save(contents(task), tmp_path / "whole.ckpt")
    save_compressed(LOAD[task](tmp_path / "whole.ckpt").model, tmp_path / "small")
    kept = contents(task)
    file = tmp_path / "small" / "training.json"
    file.write_text(json.dumps(kept["tt_conv"]))
    assert LOAD[task](tmp_path / "small").epochs_done == 2
    DAMAGE[damage](kept)
    for text in (json.dumps(kept["tt_conv"]), "[1, 2]", "not JSON", json.dumps(kept["tt_conv"])[:40]):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"training\.json.*: give another folder"):
            LOAD[task](tmp_path / "small")
