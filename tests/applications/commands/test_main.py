import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tt_conv import __version__
from tt_conv.applications.commands.main import main
from tt_conv.applications.video_prediction import demo, settings


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make what the command trains a toy."""
    defaults = settings.DemoSettings

    def toys(seed: int, steps: int = 2) -> settings.DemoSettings:
        toy: dict[str, Any] = {"size": 16, "digit_size": 8, "given": 2, "future": 2, "test_sequences": 2}
        toy["budgets"] = ()
        return defaults(steps=steps, seed=seed, hidden_channels=(4,), rank=2, batch_size=2, **toy)

    monkeypatch.setattr(settings, "DemoSettings", toys)


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    try:
        main(arguments)
        status: Any = 0
    except SystemExit as end:
        status = end.code or 0
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.mark.usefixtures("tiny")
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    status, printed, errors = run(["demo", "--steps", "2", "--seed", "3", "--out", str(out)], capsys)
    assert (status, errors) == (0, "")
    assert "2/2 steps" in printed
    assert '"seed": 3' in (out / "table.json").read_text()


@pytest.mark.usefixtures("tiny")
def test_an_existing_folder_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    status, printed, errors = run(["demo", "--out", str(tmp_path)], capsys)
    assert (status, printed) == (2, "")
    assert errors == (
        f"tt-conv: error: the output folder '{tmp_path}' exists and is not empty: "
        "choose another folder with --out, or move this one away\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--steps", "0"], "tt-conv: error: steps must be at least 1, got 0\n"),
        (["demo", "--seed", "-1"], "tt-conv: error: seed must be 0 or more, got -1\n"),
        (["demo", "--steps", "many"], "Given value: many"),
        (["demo", "--stesp", "2"], "did you mean --steps?"),
        (["predict", "--checkpoint", "x", "--video", "y", "--futrue", "2"], "did you mean --future?"),
        (["train", "--resume", "run", "--training.epochs", "9"], "--training.epochs would not count: leave that out"),
        (["train", "--out=x", "--resume=run"], "--out would not count"),
        (["dance"], "dance"),
        ([], "subcommand"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(arguments, capsys)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def raising(error: BaseException) -> Any:
    def command(*_: object, **__: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch"),
            "this needs lightning, which is not installed: pip install 'tt-conv[applications]'",
        ),
        (PermissionError(13, "Permission denied", "/somewhere/out"), "/somewhere/out: Permission denied"),
        (ValueError("two\n  lines"), "two lines"),
    ],
)
def test_known_errors_in_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_demo", raising(error))
    status, _, errors = run(["demo"], capsys)
    assert status == 2
    assert errors.startswith("tt-conv: error: ")
    assert errors.count("\n") == 1
    assert message in errors


def test_the_trace_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TT_CONV_TRACEBACK", "1")
    monkeypatch.setattr(demo, "run_demo", raising(ValueError("wrong")))
    with pytest.raises(ValueError, match="wrong"):
        main(["demo"])


@pytest.mark.parametrize("ending", [raising(KeyboardInterrupt()), lambda *_: False])
def test_ctrl_c_is_the_usual_exit_status(
    ending: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_demo", ending)
    assert run(["demo"], capsys) == (130, "", "tt-conv: interrupted\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], capsys) == (0, f"tt-conv {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["demo", "--help"],
        ["train", "--help"],
        ["train", "--task", "recognition", "--help"],
        ["evaluate", "--help"],
        ["predict", "--help"],
        ["data", "inspect", "--help"],
    ],
)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom tt_conv.applications.commands.main import main\n"
        f"try:\n    main({arguments})\nfinally:\n    print('torch' in sys.modules, 'lightning' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "--help" in finished.stdout
    assert finished.stdout.endswith("False False\n")


def test_the_module_is_the_command() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tt_conv", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert finished.stdout == f"tt-conv {__version__}\n"


def test_recipes_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run(["recipes"], capsys)
    assert status == 0
    assert "kth_conv_lstm_published" in printed
    status, printed, _ = run(["recipes", "--name", "kth_conv_lstm_published"], capsys)
    assert "kind: kth" in printed
    status, _, errors = run(["train", "--config", "no_such_recipe"], capsys)
    assert status == 2
    assert "there is no file and no recipe 'no_such_recipe'; the recipes are " in errors


def test_train_by_a_recipe_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--data.size 16 --data.digit_size 8 --data.sequences 4 --data.validation_sequences 2 --training.epochs 2"
    arguments = [
        "train",
        "--config",
        "moving_mnist_conv_tt_lstm_small",
        *small.split(),
        "--model.hidden_channels",
        "[4]",
    ]
    status, printed, errors = run([*arguments, "--out", str(tmp_path / "run")], capsys)
    assert (status, errors) == (0, "")
    assert "2/2 steps" in printed
    assert (tmp_path / "run" / "best.ckpt").exists()
    status, _, errors = run([*arguments, "--out", str(tmp_path / "run")], capsys)
    assert status == 2
    assert "exists and is not empty" in errors


def test_the_help_says_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    _, printed, _ = run(["--help"], capsys)
    described = re.split(r"\n    (?=\w+  )", printed.split("Available subcommands:")[1])[1:]
    assert len(described) == 8
    assert all(text.rstrip().endswith(".") for text in described), described
