"""``import tt_conv`` costs next to nothing on top of ``import torch``."""

import subprocess
import sys

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
