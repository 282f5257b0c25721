"""Run the tests with several versions of PyTorch, and keep what came of it for the documentation.

python tools/test_versions.py                     # the oldest that is supported, 2.11.0 and the newest there is
python tools/test_versions.py 2.8.0               # others
python tools/test_versions.py --with PYTHON       # in an environment that is there already
python tools/test_versions.py --with PYTHON --junit FILE...  # of tests that were run in it, the last run of each counts

Each version gets an environment of its own under build/versions, of several GB: most builds of PyTorch on the package
index are for CUDA, and run on a CPU as well. An environment that passed is removed. The results go to
docs/contributing/versions.json, where they replace those of the same versions.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "contributing" / "versions.json"
BUILD = ROOT / "build" / "versions"
ON_GPU_MACHINES = "2.11.0"
NEWEST = "newest"
SHOWN = ("torch", "numpy", "tensorly", "tensorly-torch", "lightning", "torchmetrics", "jsonargparse", "av", "onnx")

_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps({"python": sys.version.split()[0], "packages": found}))
"""


def lowest_torch() -> str:
    """Return the lower bound of torch in pyproject.toml, as a version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = (re.fullmatch(r"torch>=([\d.]+)", each) for each in project["dependencies"] if each.startswith("torch>"))
    assert bound is not None
    return bound[1] + ".0" * (2 - bound[1].count("."))


def install(version: str) -> Path:
    """Make an environment with a version of torch and return its Python."""
    folder = BUILD / f"torch-{version}"
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    # What torch itself asks for in other versions than the usual ones is left to it.
    usual = (ROOT / "constraints.txt").read_text().splitlines()
    theirs = re.compile(r"(torch|sympy|setuptools|networkx|fsspec|filelock|jinja2|mpmath|typing_extensions)==", re.I)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(line for line in usual if not theirs.match(line)) + "\n")
    torch = "torch" if version == NEWEST else f"torch=={version}"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--no-cache-dir"]
    subprocess.run([*pip, "-c", constraints, torch, ".[applications,test]"], check=True, cwd=ROOT)
    return python


def run_tests(python: Path, junit: Path, rest: Sequence[str]) -> None:
    """Run the tests of this tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", *rest]
    subprocess.run(command, cwd=ROOT, env=environment, check=False)


def summary(junits: Sequence[Path]) -> dict:
    """Return the date of runs, how many tests passed, the names of those that failed, and why others were skipped.

    Of a test that is in several files the last result counts.
    """
    tests: dict[tuple[str | None, str | None], ElementTree.Element] = {}
    date = ""
    for junit in junits:
        (suite,) = ElementTree.parse(junit).getroot().iter("testsuite")
        date = max(date, suite.get("timestamp", "")[:10])
        tests |= {(case.get("classname"), case.get("name")): case for case in suite.iter("testcase")}
    cases = list(tests.values())
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = Counter(
        re.sub(r"\s+", " ", reason.get("message", "")) for case in cases for reason in case.findall("skipped")
    )
    return {
        "date": date,
        "passed": len(cases) - len(failed) - skipped.total(),
        "failed": sorted(f"{case.get('classname')}::{case.get('name')}" for case in failed),
        "skipped": dict(skipped.most_common()),
    }


def record(python: Path, junits: Sequence[Path]) -> dict:
    """Write the results of a run to the documentation's, and return them."""
    answer = subprocess.run([python, "-c", _ASK, *SHOWN], check=True, capture_output=True, text=True)
    row = {**json.loads(answer.stdout), **summary(junits), "machine": f"{platform.system()}, {platform.machine()}"}
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [other for other in rows if other["packages"] != row["packages"] or other["python"] != row["python"]]
    rows = sorted([*rows, row], key=lambda each: [int(n) for n in re.findall(r"\d+", each["packages"]["torch"])[:3]])
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests with each version; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", help="of torch; 'newest' is the newest that pip finds")
    parser.add_argument("--with", dest="python", type=Path, help="the Python of an environment that is there")
    parser.add_argument("--junit", type=Path, nargs="+", help="the results of tests that were run in it")
    parser.add_argument("--pytest", nargs="*", default=[], help="what else pytest is told")
    options = parser.parse_args(arguments)
    if options.junit and not options.python:
        parser.error("--junit needs --with: which environment were these tests run in?")
    BUILD.mkdir(parents=True, exist_ok=True)
    versions = options.versions or [lowest_torch(), ON_GPU_MACHINES, NEWEST]
    wrong = []
    for version in ["present"] if options.python else versions:
        python = options.python or install(version)
        junit = BUILD / f"{version}.xml"
        if not options.junit:
            run_tests(python, junit, options.pytest)
        row = record(python, options.junit or [junit])
        print(f"torch {row['packages']['torch']}: {row['passed']} passed, {len(row['failed'])} failed")
        if row["failed"]:
            wrong.append(version)
        elif not options.python:
            shutil.rmtree(BUILD / f"torch-{version}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
