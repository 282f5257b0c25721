"""Evaluating and predicting with trained networks, inspecting data: what is written, and what is refused."""

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tt_conv.applications.commands.main import main
from tt_conv.applications.training import load_trained, resume_training, run_training
from tt_conv.applications.video_prediction import MovingMNIST, copy_last
from tt_conv.applications.video_prediction.application import APPLICATION
from tt_conv.applications.video_prediction.data import OwnVideos, read_video, write_video
from tt_conv.applications.video_prediction.evaluation import evaluate
from tt_conv.applications.video_prediction.inspect_data import inspect_data
from tt_conv.applications.video_prediction.metrics import MASS_MEASURES
from tt_conv.applications.video_prediction.settings import (
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    PredictionSettings,
    Settings,
    TrainingSettings,
)

DATA = DataSettings(
    size=16, digit_size=8, digits=2, given=10, future=10, sequences=4, validation_sequences=2, test_sequences=3
)
MODEL = ModelSettings(hidden_channels=[3], layers_per_block=[1], kernel_size=3, rank=2, patch_size=2)


def run_evaluation(checkpoint: Path, out: Path, settings: Any = None, **source: Any) -> dict[str, Any]:
    return APPLICATION.evaluate(checkpoint, out, settings or EvaluationSettings(), **source)


def run_prediction(checkpoint: Path, video: Path, out: Path, **options: Any) -> torch.Tensor:
    predicted: torch.Tensor = APPLICATION.predict(checkpoint, video, out, PredictionSettings(**options))
    return predicted


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "out"
    run_training(Settings(DATA, MODEL, TrainingSettings(epochs=1, batch_size=4, pictures_every=0)), folder)
    return folder / "best.ckpt"


def test_an_evaluation(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_evaluation(checkpoint, tmp_path / "out", EvaluationSettings(future=[10, 12]))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {
        f"{kind}_{future}.{ending}"
        for kind, ending in (("curves", "png"), ("strips", "png"), ("animation", "gif"))
        for future in (10, 12)
    }
    assert names == pictures | {"results.json", "table.md"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    first, second = results["horizons"]
    assert [len(second["rows"]["model"]["per_frame"][name]) for name in ("mse", "ssim")] == [12, 12]
    # The figures, from the parts.
    model, data = load_trained(checkpoint).model, MovingMNIST("test", 3, frames=20, size=16, digit_size=8)
    sequences = torch.stack([data[number] for number in range(3)])
    for name, predictor in (("model", model), ("copy the last frame", copy_last)):
        with torch.no_grad():
            predicted = predictor(sequences[:, :10], 10)[:, -10:]
        assert {*first["rows"][name]["per_frame"]} == {"mse", "mse_sum", "mae", "mae_sum", "psnr", "ssim"}
        # By the way of tt-conv demo: it shows the same figures of the same predictions.
        shown = evaluate({"this": lambda *_, predicted=predicted: predicted}, [sequences], given=10)["this"]
        for metric, values in shown.items():
            if metric not in MASS_MEASURES and np.isfinite(values).all():
                np.testing.assert_allclose(first["rows"][name]["per_frame"][metric], values, rtol=1e-6)
                assert first["rows"][name]["mean"][metric] == pytest.approx(np.mean(values))
    assert first["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert first["macs_per_frame"] == model.macs((16, 16))
    assert results["sequences_seen"] == 4
    table = (tmp_path / "out" / "table.md").read_text()
    for expected in ("| model |", "ConvTT-LSTM, original | 12.96", "0.00% of the 5,000,000", "OpenSTL", "MSE sum"):
        assert expected in table
    assert "copy the last frame" in capsys.readouterr().out


def test_published_weights(tmp_path: Path) -> None:
    weights = {}
    for kernel, name, shape in (("conv.weight", "layers.b0l0", (12, 7, 3, 3)), ("conv.bias", "layers.b0l0", (12,))):
        weights[f"module.{name}.{kernel}"] = torch.randn(shape)
    weights |= {"module.layers.output.weight": torch.randn(4, 3, 1, 1), "module.layers.output.bias": torch.zeros(4)}
    torch.save({"epoch": 3, "model_state_dict": weights}, tmp_path / "published.pt")
    recipe = tmp_path / "mine.yaml"
    architecture = {"cell": "conv_lstm", "hidden_channels": [3], "layers_per_block": [1], "kernel_size": 3}
    data = {"given": 2, "future": 2, "size": 16, "digit_size": 8, "test_sequences": 2}
    recipe.write_text(yaml.safe_dump({"data": data, "model": {**architecture, "patch_size": 2}}))
    trained = load_trained(tmp_path / "published.pt", str(recipe))
    assert torch.equal(trained.model.cells()[0].conv.weight, weights["module.layers.b0l0.conv.weight"])
    results = run_evaluation(tmp_path / "published.pt", tmp_path / "out", recipe=str(recipe))
    assert results["sequences_seen"] is None
    with pytest.raises(ValueError, match=r"published\.pt does not tell its architecture: name it with --recipe"):
        load_trained(tmp_path / "published.pt")
    with pytest.raises(ValueError, match=r"published\.pt and the architecture of kth_conv_tt_lstm_published: "):
        load_trained(tmp_path / "published.pt", "kth_conv_tt_lstm_published")


@pytest.mark.parametrize("kind", ["mp4", "avi", "webm", "gif", "frames", "npy"])
def test_a_prediction(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    frames = (255 * MovingMNIST("test", frames=14, size=16, digit_size=8)[0]).byte().squeeze(1).numpy()
    video = tmp_path / f"video.{kind}"
    if kind == "gif":
        pictures = [Image.fromarray(frame) for frame in frames]
        pictures[0].save(video, save_all=True, append_images=pictures[1:], duration=100)
    elif kind == "frames":
        video.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(video / f"{number}.png")
    elif kind == "npy":
        np.save(video, frames)
    else:
        write_video(video, frames)
    predicted = run_prediction(checkpoint, video, tmp_path / "out", future=25)
    assert predicted.shape == (25, 1, 16, 16)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"prediction.{ending}" for ending in ("mp4", "gif", "png", "npy")}
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "prediction.npy"), predicted.numpy())
    assert read_video(tmp_path / "out" / "prediction.mp4").shape == (35, 256, 256, 3)
    assert read_video(tmp_path / "out" / "prediction.gif").shape[0] in range(2, 36)  # equal frames are joined
    if kind in ("frames", "npy"):
        shown = torch.from_numpy(frames[4:]).float().div(255)[None, :, None]
        with torch.no_grad():
            expected = load_trained(checkpoint).model(shown, 25)[0, -25:]
        torch.testing.assert_close(predicted, expected)


def test_predictions_elsewhere_in_colour_and_of_another_size(checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 9, 11, 3)))
    predicted = run_prediction(
        checkpoint, tmp_path / "a.npy", tmp_path / "out", future=2, given=3, start=5, size=(10, 12), rate=5
    )
    assert predicted.shape == (2, 1, 10, 12)
    with pytest.raises(ValueError, match=r"start must be from 0 to 27 for 3 frames given, got 28"):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "other", given=3, start=28)
    with pytest.raises(ValueError, match=r"a\.npy has 30 frames, 31 are to be shown: .* fewer with --given"):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "other", given=31)
    with pytest.raises(ValueError, match=r"sides 2 divides, got 9 x 11: choose others with --size, such as \[8,12\]"):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "other", size=(9, 11))
    with pytest.raises(ValueError, match="given, future and step must be at least 1"):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "other", future=0)
    assert not (tmp_path / "other").exists()


def test_what_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:3000])
    torch.save({"a": 1}, tmp_path / "other.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    for name, message in [
        ("text.ckpt", r"text\.ckpt is no checkpoint, or a damaged one"),
        ("cut.ckpt", r"cut\.ckpt is no checkpoint, or a damaged one"),
        ("other.ckpt", r"other\.ckpt holds no weights"),
        ("list.ckpt", r"list\.ckpt holds a list"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_trained(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_trained(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match=r"is a folder: give a checkpoint, such as .*best\.ckpt"):
        load_trained(checkpoint.parent)
    with pytest.raises(ValueError, match="tells its architecture itself"):
        load_trained(checkpoint, "kth_conv_lstm_published")
    contents = torch.load(checkpoint, weights_only=True)
    contents["tt_conv"]["settings"]["model"]["hidden_channels"] = [5]
    torch.save(contents, tmp_path / "changed.ckpt")
    with pytest.raises(ValueError, match=r"changed\.ckpt: its weights are not of the architecture that it names"):
        load_trained(tmp_path / "changed.ckpt")


def test_data_that_do_not_fit_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((300, 16, 16, 3), np.uint8))
    own: dict[str, Any] = {"kind": "own", "path": str(tmp_path / "a.npy"), "test_sequences": None, "size": None}
    with pytest.raises(ValueError, match=r"frames of 1 channels, the data have 3: .* --data\.channels 1"):
        run_evaluation(checkpoint, tmp_path / "out", data=own)
    with pytest.raises(ValueError, match=r"sides 2 divides, got \[15, 15\]"):
        run_evaluation(checkpoint, tmp_path / "out", data={**own, "channels": 1, "size": 15})
    with pytest.raises(ValueError, match="there is no data setting colour"):
        run_evaluation(checkpoint, tmp_path / "out", data={"colour": 1})
    assert not (tmp_path / "out").exists()
    results = run_evaluation(checkpoint, tmp_path / "out", data={**own, "channels": 1})
    assert results["horizons"][0]["sequences"] == 1


def test_an_inspection(tmp_path: Path) -> None:
    said = inspect_data(DATA, tmp_path / "sheets")
    assert "train: 4 sequences [T, C, H, W] = 20 x 1 x 16 x 16" in said
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == {"train.png", "validation.png", "test.png"}
    np.save(tmp_path / "a.npy", np.zeros((60, 4, 4), np.uint8))
    said = inspect_data(DataSettings("own", str(tmp_path / "a.npy"), given=5, future=5))
    assert "train: 4 sequences" in said
    assert "validation: 1 of 1 clips are shorter" in said
    assert "axes THW" in said
    with pytest.raises(FileNotFoundError, match="does not exist"):
        inspect_data(DataSettings("own", str(tmp_path / "nowhere")))


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        main(arguments)
        status: Any = 0
    except SystemExit as end:
        status = end.code or 0
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_the_commands(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = str(tmp_path / "fixed")
    sizes = ["--train", "2", "--validation", "2", "--test", "2", "--frames", "8", "--test_frames", "8"]
    assert run(["data", "moving_mnist", "--out", fixed, *sizes], capsys)[0] == 0
    flags = ["--data.kind", "fixed_moving_mnist", "--data.path", fixed, "--data.given", "4", "--data.future", "4"]
    status, said = run(["data", "inspect", *flags], capsys)
    assert (status, "test: 2 sequences [T, C, H, W] = 8 x 1 x 64 x 64" in said) == (0, True)
    evaluated = ["evaluate", "--checkpoint", str(checkpoint), *flags, "--data.test_sequences", "1", "--future", "[2,3]"]
    status, said = run([*evaluated, "--out", str(tmp_path / "results")], capsys)
    assert (status, "4 frames given, 3 predicted, 1 sequences" in said) == (0, True)
    video = ["--video", f"{fixed}/test.npy", "--future", "3", "--given", "4", "--start", "0"]
    status, said = run(["predict", "--checkpoint", str(checkpoint), *video, "--out", str(tmp_path / "p")], capsys)
    assert (status, "Predicted: 3 frames" in said) == (0, True)
    status, said = run(["predict", "--checkpoint", "nowhere.ckpt", *video], capsys)
    assert (status, said) == (2, "tt-conv: error: nowhere.ckpt: No such file or directory\n")
    status, said = run([*evaluated, "--lpips", "true", "--out", str(tmp_path / "other")], capsys)
    assert status == 2
    assert "LPIPS needs the packages lpips and torchvision" in said
    assert not (tmp_path / "other").exists()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do anything: be somebody else where that is possible."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission(checkpoint: Path) -> None:
    with TemporaryDirectory() as place:
        folder, videos = Path(place), Path(place, "videos")
        (folder / "best.ckpt").write_bytes(checkpoint.read_bytes())
        videos.mkdir()
        np.save(videos / "a.npy", np.zeros((9, 8, 8), np.uint8))
        (videos / "a.npy").chmod(0)
        folder.chmod(0o555)
        with as_nobody():
            with pytest.raises(PermissionError, match=r"cannot write to the output folder .*: choose another folder"):
                run_evaluation(folder / "best.ckpt", folder / "out")
            with pytest.raises(ValueError, match=r"a\.npy: it may not be read: change its permissions"):
                OwnVideos(videos, frames=3)
        assert {path.name for path in folder.iterdir()} == {"best.ckpt", "videos"}
        folder.chmod(0o755)
        (folder / "best.ckpt").chmod(0)
        with as_nobody(), pytest.raises(PermissionError, match=r"best\.ckpt"):
            load_trained(folder / "best.ckpt")


def test_a_prediction_takes_steps_and_values_as_in_training(tmp_path: Path) -> None:
    """A network that was trained on every second frame of measurements sees every second frame, in the same units."""
    rain = np.random.default_rng(0).random((80, 8, 8)) * 50
    np.save(tmp_path / "rain.npy", rain)
    np.save(tmp_path / "drizzle.npy", rain[:12] / 100)
    data = DataSettings("own", str(tmp_path / "rain.npy"), given=3, future=1, step=2, value_range=(0, 50))
    recipe = TrainingSettings(epochs=1, accelerator="cpu", pictures_every=0)
    model = ModelSettings(hidden_channels=[2], layers_per_block=[1], kernel_size=3, rank=2)
    run_training(Settings(data, model, recipe), tmp_path / "run")
    predicted = run_prediction(tmp_path / "run" / "last.ckpt", tmp_path / "drizzle.npy", tmp_path / "out", future=2)
    shown = torch.from_numpy(rain[7:12:2] / 100 / 50).float()[None, :, None]
    with torch.no_grad():
        expected = load_trained(tmp_path / "run" / "last.ckpt").model(shown, 2)[0, -2:]
    torch.testing.assert_close(predicted, expected)


def test_a_detected_range_holds_ever_after(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.linspace(0, 200, 80 * 64).reshape(80, 8, 8))
    data = DataSettings("own", str(tmp_path / "a.npy"), given=2, future=1)
    model = ModelSettings(hidden_channels=[2], layers_per_block=[1], kernel_size=3, rank=2)
    settings = Settings(data, model, TrainingSettings(epochs=1, accelerator="cpu", pictures_every=0))
    run_training(settings, tmp_path / "run")
    assert load_trained(tmp_path / "run" / "best.ckpt").settings.data.value_range == (0, 255)
    assert resume_training(tmp_path / "run")
    np.save(tmp_path / "bright.npy", np.full((5, 8, 8), 256.0))
    with pytest.raises(ValueError, match="outside the training's 0 to 255"):
        run_prediction(tmp_path / "run" / "best.ckpt", tmp_path / "bright.npy", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be from 0.1 to 100 frames per second, got 0"),
        ({"rate": -3.0}, "rate must be from 0.1 to 100"),
        ({"rate": 1e-4}, "rate must be from 0.1 to 100"),
        ({"device": "bogus"}, "device 'bogus' cannot be used here .*: there are cpu"),
        ({"step": 0}, "given, future and step must be at least 1"),
        ({"step": 9}, "has 40 frames, 10 are to be shown, every 9. one"),
    ],
)
def test_a_prediction_that_cannot_be(checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=message):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_one_video_at_a_time(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    for name in "ab":
        np.save(tmp_path / "videos" / f"{name}.npy", np.zeros((2, 12, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"videos holds 2 videos, such as a\.npy.*: name one of them"):
        run_prediction(checkpoint, tmp_path / "videos", tmp_path / "out")
    run_prediction(checkpoint, tmp_path / "videos" / "a.npy", tmp_path / "out", future=1)
    assert "the first of its 2 sequences is taken" in capsys.readouterr().out
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.mp4: no video, or a damaged one .*: give another one"):
        run_prediction(checkpoint, tmp_path / "b.mp4", tmp_path / "other")


def test_a_failed_prediction_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    np.save(tmp_path / "a.npy", np.zeros((12, 16, 16), np.uint8))
    monkeypatch.setattr("tt_conv.applications.video_prediction.predict.draw_strips", full)
    with pytest.raises(OSError, match="No space left"):
        run_prediction(checkpoint, tmp_path / "a.npy", tmp_path / "out", future=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"future": []}, "future must be numbers of frames, each at least 1"),
        ({"future": [3, 0]}, "future must be numbers of frames, each at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"device": "bogus"}, "device 'bogus' cannot be used here"),
    ],
)
def test_an_evaluation_that_cannot_be(checkpoint: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_evaluation(checkpoint, tmp_path / "out", EvaluationSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_a_horizon_named_twice_counts_once(checkpoint: Path, tmp_path: Path) -> None:
    results = run_evaluation(checkpoint, tmp_path / "out", EvaluationSettings(future=[2, 2]))
    assert [horizon["future"] for horizon in results["horizons"]] == [2]


def test_checkpoints_that_are_incomplete(checkpoint: Path, tmp_path: Path) -> None:
    for name, damage in {
        "no state": lambda contents: contents.pop("state_dict"),
        "no settings": lambda contents: contents["tt_conv"].pop("settings"),
        "no account": lambda contents: contents["tt_conv"].pop("sequences_seen"),
        "settings of text": lambda contents: contents["tt_conv"].update(settings="text"),
        "unknown settings": lambda contents: contents["tt_conv"]["settings"]["model"].update(unknown=1),
        "unknown cell": lambda contents: contents["tt_conv"]["settings"]["model"].update(cell="gru"),
        "text": lambda contents: contents.update(tt_conv="text"),
    }.items():
        contents = torch.load(checkpoint, weights_only=True)
        damage(contents)
        torch.save(contents, tmp_path / f"{name}.ckpt")
        with pytest.raises(ValueError, match=rf"{name}\.ckpt.*: give a checkpoint as tt-conv train wrote it"):
            load_trained(tmp_path / f"{name}.ckpt")


def test_no_advice_to_run_what_a_checkpoint_holds(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("a")}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Path("a")))
    for name, message in (("a", "holds Python objects .* not loaded"), ("b", "is no checkpoint, or a damaged one")):
        with pytest.raises(ValueError, match=rf"{name}\.ckpt {message}") as error:
            load_trained(tmp_path / f"{name}.ckpt")
        assert "weights_only" not in str(error.value)


def test_a_prediction_leaves_nothing_in_the_cache(checkpoint: Path, tmp_path: Path, own_cache: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((12, 16, 16), np.uint8))
    run_prediction(checkpoint, tmp_path / "a.mp4", tmp_path / "out", future=1)
    assert not [*own_cache.iterdir()]
