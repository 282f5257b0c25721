"""Compressed networks written and read back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tt_conv.applications.compression import compress, load_compressed, save_compressed
from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor

safetensors = pytest.importorskip("safetensors.torch")
WRITTEN = sorted(path for path in (Path(__file__).parent / "compressed").iterdir() if path.is_dir())

FRESH = """
import sys, torch
from tt_conv.applications.compression import load_compressed
x, expected = torch.load(sys.argv[2], weights_only=True)
with torch.inference_mode():
    assert torch.equal(load_compressed(None, sys.argv[1])(x, 2), expected)
    other, expected = torch.load(sys.argv[4], weights_only=True)
    instance = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5), torch.nn.Flatten(), torch.nn.Linear(64, 30))
    assert torch.equal(load_compressed(instance, sys.argv[3])(other), expected)
"""


def predictor(cell: str = "conv_lstm", **options: object) -> FramePredictor:
    return FramePredictor(1, (6, 4), (1, 2), cell=cell, kernel_size=3, skip_stride=1, patch_size=2, **options)


def test_networks_load_bit_for_bit_in_a_fresh_process(tmp_path: Path) -> None:
    smaller, _ = compress(predictor(sigmoid=True), budget=0.5)
    smaller.eval()
    save_compressed(smaller, tmp_path / "smaller")
    x = torch.rand(1, 3, 1, 8, 8)
    with torch.inference_mode():
        torch.save((x, smaller(x, 2)), tmp_path / "expected.pt")
    foreign = nn.Sequential(nn.Conv2d(3, 16, 5), nn.Flatten(), nn.Linear(64, 30))
    foreign, _ = compress(foreign, budget=0.5, formats=("svd", "tucker"))
    save_compressed(foreign, tmp_path / "foreign")
    other = torch.randn(2, 3, 6, 6)
    with torch.inference_mode():
        torch.save((other, foreign(other)), tmp_path / "other.pt")
    files = [tmp_path / name for name in ("smaller", "expected.pt", "foreign", "other.pt")]
    arguments = [sys.executable, "-c", FRESH, *map(str, files)]
    subprocess.run(arguments, check=True)


@pytest.mark.parametrize(
    "model",
    [
        ConvLSTM(2, 6, 5, bias=False),
        ConvTTLSTM(2, 4, 3, order=2, steps=3, rank=(2, 3), window="fixed", boundary="zeros"),
        predictor("conv_tt_lstm", order=2, rank=3, input_rank=2),
    ],
    ids=["ConvLSTM", "ConvTTLSTM", "FramePredictor"],
)
def test_our_networks_are_described_completely(model: nn.Module, tmp_path: Path) -> None:
    if not isinstance(model, ConvTTLSTM):
        model, _ = compress(model, budget=1.0, force={"*conv" if isinstance(model, ConvLSTM) else "output": "svd"})
    loaded = load_compressed(None, save_compressed(model, tmp_path / "model"))
    x = torch.rand(1, 3, 2 if not isinstance(model, FramePredictor) else 1, 8, 8)
    arguments = (x, 2) if isinstance(model, FramePredictor) else (x,)
    for got, expected in zip(loaded(*arguments), model.eval()(*arguments), strict=True):
        if isinstance(got, torch.Tensor):
            assert torch.equal(got, expected)


def test_foreign_networks_load_into_an_instance(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 16, 5), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, 30))

    smaller, _ = compress(build(), budget=0.6, force={"0": ("conv_tt", 2), "3": "svd"})
    folder = save_compressed(smaller, tmp_path / "smaller")
    instance = build()
    loaded = load_compressed(instance, folder)
    assert isinstance(instance[0], nn.Conv2d)
    x = torch.randn(4, 3, 6, 6)
    assert torch.equal(loaded.eval()(x), smaller.eval()(x))
    with pytest.raises(ValueError, match="give an instance"):
        load_compressed(None, folder)
    with pytest.raises(ValueError, match="does not have"):
        load_compressed(nn.Sequential(nn.Conv2d(3, 16, 5)), folder)


@pytest.mark.parametrize("folder", WRITTEN, ids=lambda folder: folder.name)
def test_a_folder_of_an_older_version_loads_and_gives_the_outputs_of_its_time(folder: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 5, padding=2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.Conv2d(6, 6, 3, bias=False),
        nn.Conv2d(6, 4, 3, padding="same", padding_mode="circular"),
        nn.Conv2d(4, 4, 5, padding=2, padding_mode="circular", bias=False),
        nn.Flatten(),
        nn.Linear(36, 8),
    ).double()
    x, expected = torch.load(folder / "outputs.pt", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(load_compressed(model, folder).eval()(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stored", [torch.float64, torch.float16])
def test_an_instance_keeps_its_dtype(stored: torch.dtype, tmp_path: Path) -> None:
    smaller, _ = compress(nn.Sequential(nn.Linear(30, 30)), budget=0.5)
    folder = save_compressed(smaller.to(stored), tmp_path / "foreign")
    loaded = load_compressed(nn.Sequential(nn.Linear(30, 30)), folder)
    for got, written in zip(loaded.parameters(), smaller.parameters(), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, written.float())
    ours = save_compressed(ConvLSTM(2, 3, 3).to(stored), tmp_path / "ours")
    assert all(p.dtype == stored for p in load_compressed(None, ours).parameters())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed folder, to be copied."""
    torch.manual_seed(0)
    return save_compressed(compress(predictor(), budget=0.5)[0], tmp_path_factory.mktemp("written") / "smaller")


class TestRefused:
    @pytest.fixture
    def folder(self, written: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(written, tmp_path / "smaller"))

    def test_truncated_weights(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50])
        with pytest.raises(ValueError, match="truncated or damaged"):
            load_compressed(None, folder)

    def test_pickles(self, folder: Path) -> None:
        torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
        with pytest.raises(ValueError, match="truncated or damaged"):
            load_compressed(None, folder)

    def test_weights_of_another_kind(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        weights = safetensors.load_file(file)
        safetensors.save_file({name: value.int() for name, value in weights.items()}, file)
        with pytest.raises(ValueError, match=r"its content is not what config\.json says"):
            load_compressed(None, folder)
        config = json.loads((folder / "config.json").read_text())
        del config["sha256"]  # as written before there were checksums
        (folder / "config.json").write_text(json.dumps(config))
        for instance in (None, predictor()):
            with pytest.raises(ValueError, match=r"expected torch\.float32, got torch\.int32"):
                load_compressed(instance, folder)

    def test_descriptions_without_an_end(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        arguments = {"in_channels": 1, "hidden_channels": [1], "cell": "conv_tt_lstm", "rank": 1, "kernel_size": 3}
        many = {**arguments, "layers_per_block": [4096], "order": 4096}
        config["model"] = {"class": "FramePredictor", "arguments": many}
        deep = json.dumps(config).replace("4096]", "[" * 900 + "]" * 900 + "]")
        for text, message in (
            (json.dumps(config), "sizes of the model are out of range"),
            (deep, "nested more than 64"),
        ):
            (folder / "config.json").write_text(text)
            with pytest.raises(ValueError, match=message):
                load_compressed(None, folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "else"}, "does not describe"),
            ({"layers": {"output": {"format": "os.system", "rank": [1]}}}, "need a format"),
            ({"layers": {"output": {"format": ["svd"], "rank": [1]}}}, "need a format"),
            ({"layers": {"output": {"format": "svd", "rank": [10**9]}}}, "need a format"),
            ({"layers": {"output": {"format": "svd", "rank": [4]}}}, "do not fit|fewer weights"),
            ({"layers": {"__class__": {"format": "svd", "rank": [4]}}}, "does not have"),
            ({"model": {"class": "os.system", "arguments": {}}}, "must be one of"),
            ({"model": {"class": "FramePredictor", "arguments": {"in_channels": 10**9}}}, "out of range"),
            ({"model": {"class": "FramePredictor", "arguments": {"in_channels": 1, "x": 1}}}, "no option"),
        ],
    )
    def test_hostile_descriptions(self, folder: Path, change: dict[str, object], message: str) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            load_compressed(None, folder)

    def test_existing_destination_is_left_alone(self, folder: Path) -> None:
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(FileExistsError, match="exists already"):
            save_compressed(predictor(), folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
