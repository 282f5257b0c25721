"""Files of weights as an enemy, or a broken disk, would write them: each is refused in one line that names it."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from tests.applications.test_checkpoint import LOAD, contents, model_settings, one_weight, told
from tt_conv.applications.commands.main import main
from tt_conv.applications.compression import compress, load_compressed, save_compressed
from tt_conv.applications.training import load_trained

every_task = pytest.mark.parametrize("task", LOAD)


def with_entry(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(weight: torch.Tensor) -> torch.Tensor:
        changed = weight.clone()
        changed.view(-1)[0] = value
        return changed

    return change


def quantized(weight: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


def renamed(kept: dict[str, Any], name: object) -> None:
    kept["state_dict"][name] = kept["state_dict"].pop(next(iter(kept["state_dict"])))


def endless() -> list:
    """A list that holds itself, which pickles know how to write."""
    value: list = []
    value.append(value)
    return value


WEIGHTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "sparse": lambda kept: one_weight(kept, torch.Tensor.to_sparse),
    "sparse by rows": lambda kept: one_weight(kept, lambda weight: weight.reshape(len(weight), -1).to_sparse_csr()),
    "meta": lambda kept: one_weight(kept, lambda weight: weight.to("meta")),
    "huge on meta": lambda kept: one_weight(kept, lambda weight: torch.empty(1 << 44, device="meta")),
    "quantized": lambda kept: one_weight(kept, quantized),
    "complex": lambda kept: one_weight(kept, lambda weight: weight.to(torch.complex64)),
    "eight bits": lambda kept: one_weight(kept, lambda weight: weight.to(torch.float8_e5m2)),
    "truth values": lambda kept: one_weight(kept, torch.Tensor.bool),
    "a number repeated to 16 TB": lambda kept: one_weight(kept, lambda weight: torch.zeros(1).expand(1 << 42)),
    "a number repeated to the shape": lambda kept: one_weight(kept, lambda weight: torch.zeros(1).expand(weight.shape)),
    "infinity": lambda kept: one_weight(kept, with_entry(float("inf"))),
    "no number": lambda kept: one_weight(kept, with_entry(float("nan"))),
    "a scalar": lambda kept: one_weight(kept, lambda weight: weight.sum()),
    "empty": lambda kept: one_weight(kept, lambda weight: weight[:0]),
    "a name of control characters": lambda kept: renamed(kept, "model.\x1b[2J\n"),
    "a name without end": lambda kept: renamed(kept, "x" * 100_000),
    "a name that is a tuple": lambda kept: renamed(kept, (1, 2)),
    "counted beyond counting": told(sequences_seen=10**40),
    "epochs beyond counting": told(epochs_done=1 << 62),
    "a truth value of epochs": told(epochs_done=True),
    "channels of 64 GB": told(channels=1 << 33),
    "hidden channels of 36 TB": model_settings(hidden_channels=[1 << 20]),
    "a rank of gigabytes": model_settings(rank=1 << 24),
    "itself": lambda kept: kept["tt_conv"].update(settings=endless()),
    "no tensor elsewhere": lambda kept: kept.update(optimizer_states=[{"state": torch.empty(1 << 40, device="meta")}]),
}


@every_task
@pytest.mark.parametrize("damage", WEIGHTS)
@pytest.mark.filterwarnings("ignore")  # PyTorch's own on writing sparse and quantized tensors
def test_odd_checkpoints(task: str, damage: str, tmp_path: Path) -> None:
    kept = contents(task)
    WEIGHTS[damage](kept)
    torch.save(kept, tmp_path / "odd.ckpt")
    for load in (LOAD[task], load_trained):
        with pytest.raises(ValueError, match=r"odd\.ckpt") as refused:
            load(tmp_path / "odd.ckpt")
        assert ": give " in str(refused.value)
        assert len(str(refused.value)) < 600


@every_task
def test_weights_of_mixed_types_are_converted(task: str, tmp_path: Path) -> None:
    kept = contents(task)
    one_weight(kept, torch.Tensor.half)
    torch.save(kept, tmp_path / "mixed.ckpt")
    assert {value.dtype for value in LOAD[task](tmp_path / "mixed.ckpt").model.state_dict().values()} == {torch.float32}


@every_task
def test_flipped_bits(task: str, tmp_path: Path) -> None:
    """A flip is refused, or was in a byte that nothing is read from: then every value is what it was."""
    torch.save(contents(task), tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    weights = LOAD[task](tmp_path / "whole.ckpt").model.state_dict()
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    inside = range(largest.header_offset + 200, largest.header_offset + 200 + largest.file_size // 2)
    random = Random(0)
    refused = 0
    for place in [*random.sample(range(len(whole)), 75), *random.sample(inside, 25)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.randrange(8)
        (tmp_path / "flipped.ckpt").write_bytes(flipped)
        try:
            found = LOAD[task](tmp_path / "flipped.ckpt").model.state_dict()
        except ValueError as error:
            refused += "flipped.ckpt" in str(error)
        else:
            assert place not in inside
            assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert refused >= 40


def test_a_flip_in_a_weight_names_its_record(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1000)}, tmp_path / "whole.ckpt")
    content = bytearray((tmp_path / "whole.ckpt").read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 3] ^= 0x40  # 1 becomes 1.7e38
    (tmp_path / "flipped.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.ckpt is damaged: its record whole/data/0 .*: give another copy"):
        LOAD["video_prediction"](tmp_path / "flipped.ckpt")


def test_archives_that_are_not_from_torch(tmp_path: Path) -> None:
    torch.save(contents("video_prediction"), tmp_path / "whole.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "whole.ckpt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in whole.infolist():
            bomb.writestr(record.filename, whole.read(record))
        bomb.writestr("whole/data/99", bytes(1 << 24))
    for load in (*LOAD.values(), load_trained):
        with pytest.raises(ValueError, match=r"bomb\.ckpt .*compressed or encrypted: give another copy"):
            load(tmp_path / "bomb.ckpt")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    smaller, _ = compress(nn.Sequential(nn.Linear(64, 64)), budget=0.5)
    return save_compressed(smaller, tmp_path_factory.mktemp("once") / "small")


@pytest.fixture
def folder(compressed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compressed, tmp_path / "small"))


def test_flipped_bits_in_a_compressed_folder(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    random = Random(0)
    for place in random.sample(range(len(whole)), 50):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.randrange(8)
        (folder / "model.safetensors").write_bytes(flipped)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load_compressed(nn.Sequential(nn.Linear(64, 64)), folder)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]  # as in folders that were written before
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(whole)
    load_compressed(nn.Sequential(nn.Linear(64, 64)), folder)


CONFIGS: dict[str, str] = {
    "deep": "[" * 5000,
    "deep and closed": "[" * 900 + "]" * 900,
    "deep mappings": '{"kind":' * 900 + "1" + "}" * 900,
    "not finite": '{"kind": Infinity}',
    "too large a number": '{"kind": 1e999}',
    "a number of 5,000 digits": '{"kind": ' + "9" * 5000 + "}",
    "unhashable class": '{"class": [], "arguments": {}}',
    "a class that is a mapping": '{"class": {}, "arguments": {}}',
    "null class": '{"class": null, "arguments": {}}',
    "arguments in a list": '{"class": "ConvLSTM", "arguments": []}',
    "an unknown argument": '{"class": "ConvLSTM", "arguments": {"in_channel": 1}}',
    "sizes of terabytes": '{"class": "ConvLSTM", "arguments": {"in_channels": 99999, "hidden_channels": 99999, '
    '"kernel_size": 9999}}',
}


@pytest.mark.parametrize("damage", CONFIGS)
def test_hostile_descriptions(damage: str, folder: Path) -> None:
    text = CONFIGS[damage]
    if '"class"' in text:
        config = json.loads((folder / "config.json").read_text())
        text = json.dumps(config | {"model": json.loads(text)})
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="small") as refused:
        load_compressed(None, folder)
    assert len(str(refused.value)) < 2000


FORMATS: dict[str, object] = {"format in a list": ["cp"], "format in a mapping": {}, "no format": None}


@pytest.mark.parametrize("damage", FORMATS)
def test_hostile_layers(damage: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["layers"] = {"0": {"format": FORMATS[damage], "rank": [1]}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="small"):
        load_compressed(None, folder)


@pytest.mark.parametrize("command", ["evaluate", "predict", "compress"])
def test_every_command_refuses_in_one_line_and_leaves_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = contents("video_prediction")
    WEIGHTS["a number repeated to 16 TB"](kept)
    torch.save(kept, tmp_path / "odd.ckpt")
    options = ["--budget", "0.5"] if command == "compress" else []
    options += ["--input", str(tmp_path / "odd.ckpt")] if command == "predict" else []
    with pytest.raises(SystemExit) as end:
        main([command, "--checkpoint", str(tmp_path / "odd.ckpt"), "--out", str(tmp_path / "out"), *options])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "odd.ckpt" in said
    assert [path.name for path in tmp_path.iterdir()] == ["odd.ckpt"]
