"""Choosing benchmarks, and what becomes of their results."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import run
from benchmarks.recurrence import measure, speed


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
        yield from ({"case": case, "value": case.upper()} for case in ("ab", "ac", "b") if wanted(case))

    modules = {
        "many": SimpleNamespace(cases=cases),
        "one": SimpleNamespace(cases=lambda device: iter([{"case": "x", "ok": False}])),
    }
    monkeypatch.setattr(run, "PARTS", {name: name for name in modules})
    monkeypatch.setattr(run.importlib, "import_module", modules.__getitem__)


def cases_in(path: Path) -> list[str]:
    return [result["case"] for result in json.loads(path.read_text())["results"]]


@pytest.mark.usefixtures("parts")
def test_cases_of_a_part_are_selected_and_earlier_ones_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    assert run.main(["--only", "many/a*", "--out", str(out)]) == 0
    assert cases_in(out) == ["ab", "ac"]
    assert run.main(["--only", "many/ac", "many/b", "--out", str(out), "--keep"]) == 0
    assert cases_in(out) == ["ab", "ac", "b"]
    assert run.main(["--only", "one", "--out", str(out)]) == 1
    assert cases_in(out) == ["x"]


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("selection", "message"), [("none", "no part 'none'; there are many, one"), ("one/x", "can't be selected")]
)
def test_a_selection_that_is_not_there_is_refused(
    selection: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.main(["--only", selection])
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("parts")
def test_results_of_two_machines_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    run.write_json(out, {"machine": {"device": "another"}, "results": []})
    with pytest.raises(SystemExit):
        run.main(["--only", "many", "--out", str(out), "--keep"])
    assert "another machine" in capsys.readouterr().err


def test_peak_memory_and_launches_are_those_of_the_call() -> None:
    x, cpu = torch.randn(1000), torch.device("cpu")

    def call() -> None:
        y = x + 1
        z = y * 2
        del y
        z.sum()

    assert 8000 <= measure.peak_memory(call, cpu) < 8100
    assert measure.launches(call, cpu) == 3


def test_the_recurrence_benchmark_measures_every_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIDE", 8)
    monkeypatch.setattr(speed, "interleaved", lambda runs, device, **_: dict.fromkeys(runs, 0.5))
    peaks = dict.fromkeys(speed.DTYPES, 1e12)
    contenders = [name for name in (*speed.ALL, speed.NAIVE) if "compiled" not in name]
    setting = speed.Setting("1 layer", True, 1, 2, 1, contenders)
    result = speed.case(setting, torch.device("cpu"), peaks)
    assert list(result["contenders"]) == list(setting.contenders)
    assert result["contenders"]["baseline bf16"]["time"] == 1
    lines = speed.table([result]).splitlines()
    assert lines[0] == "training 1 layer batch 1, 2 frames given and 1 predicted"
    assert all(name in line for name, line in zip(setting.contenders, lines[2:], strict=False))
