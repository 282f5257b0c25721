"""Choosing benchmarks, and what becomes of their results."""

import importlib
import inspect
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import run
from benchmarks.guarded import fitting, guarded
from benchmarks.recurrence import measure, on_device, precision, speed


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


def test_a_part_that_fails_or_lacks_a_package_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(device: torch.device) -> Iterator[dict]:
        yield guarded("bad", lambda: {"value": 1 / 0})
        yield guarded("good", lambda: {"value": 1})
        raise ValueError("broken\nat length")

    modules = {
        "failing": SimpleNamespace(cases=failing),
        "last": SimpleNamespace(cases=lambda d: iter([{"case": "x"}])),
    }
    monkeypatch.setattr(run, "PARTS", {"failing": "failing", "lacking": "no_such_package_here", "last": "last"})
    imported = importlib.import_module
    monkeypatch.setattr(run.importlib, "import_module", lambda name: modules.get(name) or imported(name))
    out = tmp_path / "results.json"
    assert run.main(["--out", str(out)]) == 1
    results = json.loads(out.read_text())["results"]
    assert [(r["part"], r["case"], r.get("error"), r.get("skipped")) for r in results] == [
        ("failing", "bad", "ZeroDivisionError: division by zero", None),
        ("failing", "good", None, None),
        ("failing", "the rest", "ValueError: broken", None),
        ("lacking", "all", None, "no module named no_such_package_here"),
        ("last", "x", None, None),
    ]
    assert "2 failed: failing/bad, failing/the rest" in capsys.readouterr().out


def test_a_run_ends_in_time_and_names_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> dict:
        while True:
            time.sleep(0.01)

    def cases(device: torch.device) -> Iterator[dict]:
        yield guarded("quick", dict)
        yield guarded("endless", endless)

    monkeypatch.setattr(run, "PARTS", {"a": "a", "b": "b"})
    monkeypatch.setattr(run.importlib, "import_module", lambda name: SimpleNamespace(cases=cases))
    out = tmp_path / "results.json"
    start = time.monotonic()
    assert run.main(["--out", str(out), "--seconds", "0.3"]) == 0
    assert time.monotonic() - start < 10
    results = json.loads(out.read_text())["results"]
    assert [(r["part"], r["case"]) for r in results][:2] == [("a", "quick"), ("a", "the rest")]
    assert results[-1] == {"part": "b", "case": "the rest", "skipped": "out of time"}


def test_a_run_goes_on_where_one_before_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def cases(
        device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
    ) -> Iterator[dict]:
        for case in ("good", "needs a GPU", "bad", "endless", "last"):
            if wanted(case):
                ran.append(case)
                results = {"needs a GPU": {"skipped": "needs CUDA"}, "bad": {"ok": False, "error": "Error: no"}}
                yield {"case": case, "small": small, **results.get(case, {})}
                if case == "endless" and ran.count("endless") == 1:
                    while True:
                        time.sleep(0.01)

    monkeypatch.setattr(run, "PARTS", {"part": "part"})
    monkeypatch.setattr(run, "SERIES", {"all": {"part": 60}})
    imported = importlib.import_module
    module = SimpleNamespace(cases=cases)
    monkeypatch.setattr(run.importlib, "import_module", lambda name: module if name == "part" else imported(name))
    out = tmp_path / "results.json"
    arguments = ["--series", "all", "--out", str(out), "--resume", "--small"]
    assert run.main([*arguments, "--seconds", "0.3"]) == 1
    assert cases_in(out) == ["good", "needs a GPU", "bad", "endless", "the rest"]
    ran.clear()
    ran.append("endless")
    assert run.main(arguments) == 1
    # What ended well is not repeated, what failed is; what is there now is no longer said to be left out.
    assert ran == ["endless", "bad", "last"]
    assert sorted(cases_in(out)) == ["bad", "endless", "good", "last", "needs a GPU"]
    written = json.loads(out.read_text())
    assert written["machine"]["size"] == "small"
    assert all(result["small"] for result in written["results"])


def test_a_batch_that_does_not_fit_is_halved_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    def run_with(batch: int) -> dict:
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"value": batch}

    note = "a batch of 16 does not fit into the memory of this device: 4 instead"
    assert fitting(16, run_with) == {"value": 4, "batch": 4, "note": note}
    assert note in capsys.readouterr().out
    assert fitting(3, run_with) == {"value": 3}
    with pytest.raises(torch.OutOfMemoryError):
        fitting(8, lambda batch: run_with(8))


@pytest.mark.parametrize("part", sorted({part for series in run.SERIES.values() for part in series}))
def test_cases_for_a_gpu_can_be_left_out_when_they_are_there(part: str) -> None:
    module = importlib.import_module(run.PARTS[part])
    assert "wanted" in inspect.signature(module.cases).parameters
    if part != "recurrence_checks":
        assert list(module.cases(torch.device("cpu"), wanted=lambda case: False)) == []


@pytest.mark.parametrize(
    ("wheel", "here"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0-py2.py3-none-any.whl", True),
        ("a-1.0-py2-none-any.whl", False),
        ("a-1.0-{cp}-{cp}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1.0-{cp}-{cp}-manylinux_2_17_aarch64.whl", False),
        ("a-1.0-{cp}-{cp}-musllinux_1_2_x86_64.whl", False),
        ("a-1.0-{cp}-{cp}-win_amd64.whl", False),
        ("a-1.0-1-cp310-cp310-manylinux_2_17_x86_64.whl", False),
        ("a-1.0-cp39-abi3-manylinux_2_28_x86_64.whl", True),
        ("a-1.0-cp399-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1.0-cp27-cp27m-win32.whl", False),
    ],
)
def test_a_wheel_is_known_by_its_name(wheel: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_PLATFORM", ("linux", "x86_64"))
    assert run.runs_here(wheel.format(cp=f"cp{sys.version_info.major}{sys.version_info.minor}")) is here


def test_what_is_missing_comes_from_a_folder_of_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "from_a_wheel-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("from_a_wheel.py", "def cases(device):\n    yield {'case': 'here'}\n")
        archive.writestr("json.py", "raise ImportError('the installed one comes first')\n")
    (wheels / "other-1.0-cp27-cp27m-win32.whl").write_text("no zip file; for another Python")
    monkeypatch.setattr(run, "PARTS", {"part": "from_a_wheel"})
    out, path = tmp_path / "results.json", list(sys.path)
    assert run.main(["--out", str(out), "--wheels", str(wheels), str(tmp_path / "none")]) == 0
    assert cases_in(out) == ["here"]
    assert "left out other-1.0-cp27-cp27m-win32.whl: it is not for Python 3." in capsys.readouterr().out
    assert sys.path == path
    assert json.__file__ != "json.py"


def test_launches_on_a_gpu_are_what_the_host_starts() -> None:
    names = [
        ("cudaLaunchKernel", DeviceType.CPU),
        ("cuLaunchKernelEx", DeviceType.CPU),
        ("cudaGraphLaunch", DeviceType.CPU),
        ("cudaDeviceSynchronize", DeviceType.CPU),
        ("void cudnn::a_kernel", DeviceType.CUDA),
    ]
    events = [SimpleNamespace(name=name, device_type=device_type) for name, device_type in names]
    assert [measure._launches(event) for event in events] == [True, True, True, False, False]


def test_a_contender_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "interleaved", lambda runs, device, **_: dict.fromkeys(runs, 0.5))
    setting = speed.Setting(
        "1 layer", False, 1, 2, 1, ("baseline fp32", "ConvTT-LSTM graphs fp32", "ConvLSTM fp32"), side=8
    )
    result = speed.case(setting, torch.device("cpu"), dict.fromkeys(speed.DTYPES, 1e12))
    assert list(result["contenders"]) == ["baseline fp32", "ConvLSTM fp32"]
    assert "CUDA graphs need a CUDA device" in result["failed"]["ConvTT-LSTM graphs fp32"]
    assert result["ok"] is False
    assert "failed: RuntimeError" in speed.table([{"case": setting.name, **result}])


def test_every_contender_on_a_gpu_is_one_that_can_be_built() -> None:
    for setting in speed.settings(torch.device("cuda")):
        for name in setting.contenders:
            kind, precision = name.rsplit(" ", 1)
            assert precision in speed.DTYPES
            assert kind.split()[0] in ("baseline", "naive", "ConvTT-LSTM", "ConvLSTM", "input_rank")


def test_the_checks_of_the_engine_hold_on_the_cpu() -> None:
    device = torch.device("cpu")
    results = list(on_device.cases(device, wanted=lambda case: "lags" in case))
    assert [result.get("ok", result.get("skipped")) for result in results] == [True, True, True, "needs CUDA"]


def test_a_training_in_half_precision_follows_full_precision() -> None:
    exact, half = (precision.train(name, 0, 3e-3, torch.device("cpu"), steps=20) for name in ("fp32", "bf16"))
    torch.testing.assert_close(half["losses"], exact["losses"], rtol=0.01, atol=0)
    assert exact["losses"][-1] < exact["losses"][0]
    lines = precision.table([exact, half]).splitlines()
    assert lines[1].startswith("rate 0.003   seed 0, fp32")
    assert precision.plot([exact, half]).axes[0].get_title() == "learning rate 0.003, seed 0"


def test_the_precisions_are_shown_without_those_that_failed_or_were_left_out() -> None:
    half = {"precision": "bf16", "seed": 1, "rate": 1e-3, "losses": [0.5, 0.25], "held-out": 0.2, "skipped steps": 0}
    failed = {"case": "fp32, seed 1, rate 0.001", "ok": False, "error": "RuntimeError: out of memory"}
    results = [failed, {"case": "x", **half, "seconds": 3.0}, {"case": "the rest", "skipped": "out of time"}]
    lines = precision.table(results).splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["rate", "0.001", "seed", "1,", "bf16", "0.5000", "0.2500", "0.2500", "0.2000", "0"],
        ["fp32,", "seed", "1,", "rate", "0.001", "failed:", "RuntimeError:", "out", "of", "memory"],
    ]
    (panel,) = precision.plot(results).axes
    assert [line.get_label() for line in panel.get_lines()] == ["bf16"]


def test_the_machine_is_named_by_the_model_of_its_cpu(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A CPU: @ 2.0 GHz\n\nprocessor\t: 1\nmodel name\t: A CPU\n"
    )
    assert run.cpu_model(cpuinfo) == "A CPU: @ 2.0 GHz"
    assert run.cpu_model(tmp_path / "missing")
    named = run.machine(torch.device("cpu"))
    assert named["device"].startswith(run.cpu_model())
    assert f" {len(os.sched_getaffinity(0))} cores" in named["device"]


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
    monkeypatch.setattr(speed, "interleaved", lambda runs, device, **_: dict.fromkeys(runs, 0.5))
    peaks = dict.fromkeys(speed.DTYPES, 1e12)
    contenders = [name for name in (*speed.ALL, speed.NAIVE) if "compiled" not in name]
    setting = speed.Setting("1 layer", True, 1, 2, 1, contenders, side=8)
    result = {"case": setting.name, **speed.case(setting, torch.device("cpu"), peaks)}
    assert list(result["contenders"]) == list(setting.contenders)
    assert result["contenders"]["baseline bf16"]["time"] == 1
    lines = speed.table([result]).splitlines()
    assert lines[0] == "training 1 layer batch 1, 2 frames given and 1 predicted"
    assert all(name in line for name, line in zip(setting.contenders, lines[2:], strict=False))
