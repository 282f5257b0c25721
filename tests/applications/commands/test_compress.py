"""The command ``tt-conv compress``: what it reads, what it writes, what it refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from tt_conv.applications.commands.main import main
from tt_conv.applications.compression import load_compressed, load_pretrained
from tt_conv.applications.data.video_file import write_video
from tt_conv.applications.training import load_trained, run_training
from tt_conv.applications.video_prediction.compression_source import built
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings
from tt_conv.layers import FramePredictor

DATA = DataSettings(size=16, digit_size=8, given=3, future=2, sequences=8, validation_sequences=4, test_sequences=4)
MODEL = ModelSettings("conv_lstm", [6], [1], kernel_size=3, patch_size=2)
FILES = {"model.safetensors", "config.json", "report.json", "table.md", "layers.png", "training.json"}
FEW = ["--calibration", "4", "--quality_sequences", "4", "--batch_size", "4"]

FOREIGN = """
from torch import nn
import torch

class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1 + 8, 32, 3, padding=1)

    def forward(self, frames, future):
        h = c = frames.new_zeros(frames.shape[0], 8, *frames.shape[-2:])
        outputs = []
        for t in range(frames.shape[1] + future - 1):
            x = frames[:, t] if t < frames.shape[1] else outputs[-1]
            i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h.mean(1, keepdim=True).sigmoid())
        return torch.stack(outputs, 1)

def build():
    return Cell()

def classifier():
    return nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 10))

def nothing():
    return nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))

def number():
    return 3
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "out"
    recipe = TrainingSettings(epochs=1, batch_size=4, loss="cross_entropy", pictures_every=0)
    run_training(Settings(DATA, MODEL, recipe), folder)
    return folder / "best.ckpt"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody else's module in it, where the command runs."""
    (tmp_path / "somebody.py").write_text(FOREIGN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebody", raising=False)
    return tmp_path


def run(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        main([str(argument) for argument in arguments])
        status: Any = 0
    except SystemExit as end:
        status = end.code or 0
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_checkpoint_of_ours(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "smaller"
    tuning = ["--finetune", "2", "--distill", "0.5", "--formats", "svd,tucker"]
    status, printed, errors = run(["compress", checkpoint, "--budget", "0.4", *FEW, *tuning, "--out", out], capsys)
    assert (status, errors) == (0, "")
    assert {file.name for file in out.iterdir()} == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["smaller"]
    Image.open(out / "layers.png").verify()
    contents = json.loads((out / "report.json").read_text())
    report = contents["report"]
    original, model = load_trained(checkpoint).model, load_compressed(None, out)
    assert report["parameters_before"] == sum(p.numel() for p in original.parameters())
    assert report["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert report["parameters_after"] <= 0.4 * report["parameters_before"]
    assert report["disk_after"] == (out / "model.safetensors").stat().st_size < report["disk_before"]
    assert contents["milliseconds_per_frame"]["after"] > 0
    assert [steps for steps, _ in contents["tuning"]["validation"]] == [0, 1, 2]
    # The quality, from the parts.
    data = DATA
    test = load_trained(out).settings.data
    assert (test.given, test.future, test.size) == (data.given, data.future, 16)
    assert report["quality_tuned"] == pytest.approx(_mse(model), rel=1e-5)
    assert report["quality_before"] == pytest.approx(_mse(original), rel=1e-5)
    for text in (printed, (out / "table.md").read_text()):
        assert "blocks.0.0.conv" in text
        assert "tuned" in text
        assert "time of a step" in text


def _mse(model: nn.Module) -> float:
    from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST

    data = MovingMNIST("test", 4, frames=5, size=16, digit_size=8)
    frames = torch.stack([data[number] for number in range(4)])
    with torch.no_grad():
        return 1e3 * float((model(frames[:, :3], 2)[:, -2:] - frames[:, 3:]).square().mean())


def test_evaluate_and_predict_read_the_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "smaller"
    assert run(["compress", checkpoint, "--budget", "0.4", "--formats", "svd", *FEW, "--out", out], capsys)[0] == 0
    moved = out.rename(tmp_path / "moved")
    # Evaluate and predict read it.
    status, printed, _ = run(["evaluate", "--checkpoint", moved, "--out", tmp_path / "evaluated"], capsys)
    assert status == 0
    assert "copy the last frame" in printed
    write_video(tmp_path / "clip.mp4", np.zeros((6, 16, 16, 1), np.uint8), rate=5.0)
    given = ["--video", tmp_path / "clip.mp4", "--future", "2", "--out", tmp_path / "predicted"]
    assert run(["predict", "--checkpoint", moved, *given], capsys)[0] == 0
    assert np.load(tmp_path / "predicted" / "prediction.npy").shape == (2, 1, 16, 16)


def test_a_sweep_with_a_step_as_onnx(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "sweep"
    arguments = ["--sweep", "0.6,0.3", "--formats", "svd", *FEW, "--onnx", "true", "--out", out]
    status, printed, _ = run(["compress", checkpoint, *arguments], capsys)
    assert status == 0
    names = {"parameters_0.6", "parameters_0.3"}
    assert {file.name for file in out.iterdir()} == {"sweep.json", "table.md", "curve.png"} | names
    Image.open(out / "curve.png").verify()
    budgets = json.loads((out / "sweep.json").read_text())["budgets"]
    assert set(budgets) == names
    table = (out / "table.md").read_text()
    assert all(f"{one['report']['parameters_after']:,}" in table for one in budgets.values())
    assert "original" in printed
    folder = out / "parameters_0.3"
    assert {file.name for file in folder.iterdir()} == FILES | {"step.onnx"}
    # From the zero state, frame by frame, as the network does it.
    session = onnxruntime.InferenceSession(folder / "step.onnx", providers=["CPUExecutionProvider"])
    model, frames = load_compressed(None, folder), torch.rand(1, 3, 1, 16, 16)
    states = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name != "frame"}
    with torch.no_grad():
        expected = model(frames, 1)
    for t in range(3):
        prediction, *new = session.run(None, {"frame": frames[:, t].numpy(), **states})
        states = dict(zip(states, new, strict=True))
        np.testing.assert_allclose(prediction, expected[:, t].numpy(), atol=1e-5)


def test_weights_under_their_published_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = FramePredictor(1, (4,), (1,), cell="conv_lstm", kernel_size=3, patch_size=2)
    weights = {name.replace("blocks.0.0", "layers.b0l0"): value for name, value in model.state_dict().items()}
    weights = {name.replace("output.", "layers.output."): value for name, value in weights.items()}
    torch.save(weights, tmp_path / "published.pt")
    architecture = {"cell": "conv_lstm", "hidden_channels": [4], "layers_per_block": [1], "kernel_size": 3}
    data = {"given": 2, "future": 2, "size": 16, "digit_size": 8}
    recipe = {"data": data, "model": {**architecture, "patch_size": 2, "sigmoid": False}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["--recipe", tmp_path / "mine.yaml", "--budget", "1", "--keep", "output"]
    arguments += ["--force", "*conv=svd:36", *FEW, "--out", tmp_path / "out"]
    status, _, errors = run(["compress", tmp_path / "published.pt", *arguments], capsys)
    assert status == 2
    assert "can't be met" in errors
    arguments[arguments.index("*conv=svd:36")] = "*conv=svd:8"
    assert run(["compress", tmp_path / "published.pt", *arguments], capsys)[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["report"]
    assert [(layer["name"], layer["format"], layer["rank"]) for layer in report["layers"]] == [
        ("blocks.0.0.conv", "svd", [8])
    ]
    assert "kept" in report["left_out"]["output"]


def test_a_network_of_somebody_else(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import somebody

    torch.manual_seed(0)
    cell, classifier = somebody.build(), somebody.classifier()
    torch.save({"state_dict": {f"module.{k}": v for k, v in cell.state_dict().items()}}, foreign / "cell.pt")
    data = ["--data.size", "16", "--data.digit_size", "8", "--data.given", "3", "--data.future", "2"]
    arguments = ["--model", "somebody:build", "--budget", "0.5", *data, *FEW, "--finetune", "1", "--out", "cell"]
    arguments += ["--formats", "svd"]
    status, _, errors = run(["compress", "cell.pt", *arguments], capsys)
    assert (status, errors) == (0, "")
    loaded = load_compressed(cell, foreign / "cell")
    assert json.loads((foreign / "cell/report.json").read_text())["report"]["quality_tuned"] == pytest.approx(
        _mse(loaded), rel=1e-5
    )
    torch.save(classifier.state_dict(), foreign / "classifier.pt")
    np.save(foreign / "inputs.npy", np.random.default_rng(0).standard_normal((6, 3, 6, 6), np.float32))
    base = ["compress", "classifier.pt", "--model", "somebody:classifier", "--budget", "0.5", "--formats", "svd,tt"]
    assert run([*base, "--budget_of", "macs", "--inputs", "inputs.npy", "--out", "classifier"], capsys)[0] == 0
    report = json.loads((foreign / "classifier/report.json").read_text())["report"]
    assert report["macs_after"] <= 0.5 * report["macs_before"]
    assert load_compressed(classifier, foreign / "classifier")(torch.randn(2, 3, 6, 6)).shape == (2, 10)
    # Without data, on weights alone.
    assert run([*base, "--out", "weights_alone"], capsys)[0] == 0
    assert {file.name for file in (foreign / "weights_alone").iterdir()} == FILES - {"training.json"}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.usefixtures("foreign")
class TestRefused:
    def refuse(self, arguments: list[Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The command fails with one line, and the destination is as it was, whether it was there or not."""
        (Path.cwd() / "empty").mkdir(exist_ok=True)
        before = sorted(str(path) for path in Path.cwd().rglob("*") if "__pycache__" not in str(path))
        for out in ("new", "empty"):
            status, _, errors = run(["compress", *arguments, "--out", out], capsys)
            assert status == 2
            assert message in errors
            assert errors.count("\n") == 1
        assert sorted(str(path) for path in Path.cwd().rglob("*") if "__pycache__" not in str(path)) == before

    def test_a_budget_that_cannot_be_met(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base = [checkpoint, *FEW, "--formats", "svd"]
        self.refuse([*base, "--budget", "0.001"], "can't be met: the smallest that can is 0.", capsys)
        self.refuse([*base, "--sweep", "0.5,0.001"], "can't be met", capsys)

    def test_nothing_to_compress(self, capsys: pytest.CaptureFixture[str]) -> None:
        import somebody

        torch.save(somebody.nothing().state_dict(), "nothing.pt")
        arguments = ["nothing.pt", "--model", "somebody:nothing", "--budget", "0.5"]
        self.refuse(arguments, "nothing in this Sequential can be compressed", capsys)

    def test_calibration_of_the_wrong_shape(self, capsys: pytest.CaptureFixture[str]) -> None:
        import somebody

        torch.save(somebody.classifier().state_dict(), "classifier.pt")
        np.save("inputs.npy", np.zeros((4, 3, 7, 7), np.float32))
        arguments = ["classifier.pt", "--model", "somebody:classifier", "--budget", "0.5", "--inputs", "inputs.npy"]
        self.refuse(arguments, "the layer '3', Linear(in_features=384", capsys)

    def test_checkpoints(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("cut.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
        torch.save({"tt_conv": Evil(), "state_dict": {}}, "evil.ckpt")
        contents = torch.load(checkpoint, weights_only=True)
        for name, value in (("hidden_channels", [10**9]), ("layers_per_block", [10**9]), ("kernel_size", [])):
            contents["tt_conv"]["settings"]["model"] = {**contents["tt_conv"]["settings"]["model"], name: value}
            torch.save(contents, f"{name}.ckpt")
            contents["tt_conv"]["settings"]["model"] = dict(MODEL.__dict__)
            self.refuse([f"{name}.ckpt", "--budget", "0.5"], "give a checkpoint as tt-conv train wrote it", capsys)
        self.refuse(["cut.ckpt", "--budget", "0.5"], "damaged", capsys)
        self.refuse(["evil.ckpt", "--budget", "0.5"], "could run any code and are not loaded", capsys)
        assert not Path("touched").exists()
        self.refuse(["none.ckpt", "--budget", "0.5"], "none.ckpt", capsys)
        for name, message in (("evil.ckpt", "could run any code"), ("cut.ckpt", "damaged")):
            self.refuse([name, "--budget", "0.5", "--model", "somebody:build"], message, capsys)
        assert not Path("touched").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give one budget"),
            (["--budget", "0.5", "--sweep", "0.5,0.2"], "give one budget"),
            (["--sweep", "0.5,x"], "--sweep takes numbers"),
            (["--sweep", "0.5"], "at least two different budgets"),
            (["--budget", "1.5"], "budget must be a fraction"),
            (["--budget", "0.5", "--distill", "0.5"], "distill belongs to fine-tuning"),
            (["--budget", "0.5", "--formats", "svd,qr"], "qr"),
            (["--budget", "0.5", "--keep", "nowhere"], "matches no layer"),
            (["--budget", "0.5", "--force", "output"], "pattern=format"),
            (["--budget", "0.5", "--force", "output=svd:x"], "a rank is a number"),
            (["--budget", "0.5", "--budget_of", "macs", "--calibration", "0"], "needs data"),
            (["--budget", "0.5", "--data.channels", "3"], "moving_mnist is gray"),
            (["--budget", "0.5", "--recipe", "kth_conv_lstm_published"], "leave the recipe out"),
            (["--budget", "0.5", "--model", "somebody"], "module:factory"),
            (["--budget", "0.5", "--model", "nobody_at_all:build"], "there is no module"),
            (["--budget", "0.5", "--model", "somebody:missing"], "has no function"),
            (["--budget", "0.5", "--model", "somebody:number"], "returned a int"),
            (["--budget", "0.5", "--model", "somebody:build"], "does not fit what somebody:build returns"),
        ],
    )
    def test_arguments(
        self, arguments: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.refuse([checkpoint, *arguments], message, capsys)

    def test_an_existing_folder(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mine").mkdir()
        Path("mine/precious.txt").write_text("precious")
        status, _, errors = run(["compress", checkpoint, "--budget", "0.5", *FEW, "--out", "mine"], capsys)
        assert status == 2
        assert "exists and is not empty" in errors
        assert [path.name for path in Path("mine").iterdir()] == ["precious.txt"]


def test_the_network_that_comes_with_the_package() -> None:
    trained = load_trained("pretrained")
    assert sum(p.numel() for p in trained.model.parameters()) * 4 < 1.5e6
    assert (trained.settings.data.given, trained.settings.data.future) == (10, 10)
    for value, other in zip(trained.model.parameters(), load_pretrained().parameters(), strict=True):
        assert torch.equal(value, other)


def test_a_factory_that_takes_arguments_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from torch import nn\ndef build(n): return nn.Linear(n, n)\ndef made(n=3): return nn.Linear(n, n)\n"
    (tmp_path / "factories_with_arguments.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert built("factories_with_arguments:made").in_features == 3
    with pytest.raises(ValueError, match="is called without arguments, and it takes some"):
        built("factories_with_arguments:build")
