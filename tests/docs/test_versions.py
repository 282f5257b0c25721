"""The table of versions, made of what pytest wrote."""

import importlib.util
import json
from pathlib import Path

from benchmarks.report import write_versions
from tt_conv.runtime.versions import LOWEST

ROOT = Path(__file__).parents[2]
SUITE = '<testsuites><testsuite timestamp="2026-11-0{day}T01:02:03+00:00">{cases}</testsuite></testsuites>'
CASE = '<testcase classname="tests.test_a" name="{name}" time="0.1">{what}</testcase>'


def test_runs_are_counted_and_the_last_one_of_a_test_counts(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("test_versions_tool", ROOT / "tools" / "test_versions.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    skipped = '<skipped type="pytest.skip" message="needs\nCUDA" />'
    whole = {"a": "", "b": '<failure message="no" />', "c": skipped, "d": '<error message="no" />', "e": skipped}
    for day, run in ((1, whole), (2, {"b": ""})):
        cases = "".join(CASE.format(name=name, what=what) for name, what in run.items())
        (tmp_path / f"{day}.xml").write_text(SUITE.format(day=day, cases=cases))
    assert tool.summary([tmp_path / "1.xml", tmp_path / "2.xml"]) == {
        "date": "2026-11-02",
        "passed": 2,
        "failed": ["tests.test_a::d"],
        "skipped": {"needs CUDA": 2},
    }
    assert tool.lowest_torch() == ".".join(map(str, LOWEST)) + ".0"


def test_the_table_names_versions_failures_and_reasons(tmp_path: Path) -> None:
    row = {"python": "3.12.1", "packages": {"torch": "2.6.0", "numpy": "2.0.0"}, "date": "2026-11-02", "passed": 7}
    rows = [{**row, "failed": ["tests.test_a::d"], "skipped": {"needs CUDA": 2}}, {**row, "failed": [], "skipped": {}}]
    (tmp_path / "versions.json").write_text(json.dumps(rows))
    write_versions(tmp_path / "versions.json", tmp_path / "versions.inc")
    lines = (tmp_path / "versions.inc").read_text().splitlines()
    first = ["2.6.0", "3.12.1", "7", "1, ``tests.test_a::d``", "2: needs CUDA", "numpy 2.0.0", "2026-11-02"]
    assert [line[7:] for line in lines[10:17]] == first
    assert [line[7:] for line in lines[17:22]] == ["2.6.0", "3.12.1", "7", "0", "none"]
