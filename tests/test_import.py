"""``import tt_conv`` costs next to nothing on top of ``import torch``."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from tt_conv.runtime.versions import LOWEST

PROGRAM = """
import sys, torch
before = set(sys.modules)
from tt_conv import *
import tt_conv.layers, tt_conv.applications.compression
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}), "torch._dynamo" in sys.modules)
"""


def test_what_an_import_brings_along() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    *packages, compiler = finished.stdout.split()
    # Each of these takes longer to import than all of tt_conv: TensorLy brings SciPy, PyTorch's compiler SymPy.
    assert not {"tensorly", "tltorch", "scipy", "sympy", "matplotlib", "lightning", "jsonargparse"} & set(packages)
    assert compiler == "False"
    assert "tt_conv" in packages


@pytest.mark.parametrize("imported", [False, True], ids=["installed", "imported"])
def test_an_old_torch_is_refused_in_one_sentence(imported: bool, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("from torch.version import __version__")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.5.1+cu124'\n")
    paths = [str(tmp_path), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {paths}; {'import torch; ' if imported else ''}import tt_conv.layers"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    last = finished.stderr.splitlines()[-1]
    assert last == "ImportError: tt-conv needs PyTorch 2.6 or newer, and torch 2.5.1+cu124 is installed"


def test_the_lowest_torch_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert f"torch>={'.'.join(map(str, LOWEST))}" in project["dependencies"]


def test_the_version_of_torch_is_known_without_importing_it() -> None:
    program = "import sys, tt_conv.runtime.versions as v; print(v.installed_torch(), 'torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert finished.stdout.split() == [torch.__version__, "False"]
