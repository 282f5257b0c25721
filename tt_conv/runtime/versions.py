"""Which versions of PyTorch this package runs with."""

import importlib.util
import re
import sys
from pathlib import Path

LOWEST = (2, 6)
"""As ``pyproject.toml`` says; ``docs/contributing/versions.json`` says what was tried."""


def installed_torch() -> str | None:
    """Return the version of PyTorch, if there is one; importing it takes a hundred times as long."""
    if "torch" in sys.modules:
        return getattr(sys.modules["torch"], "__version__", None)
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "version.py"
        found = re.search(r"^__version__ = '([^']+)'", file.read_text(), re.MULTILINE) if file.exists() else None
        if found:
            return found[1]
    return None


def check_torch() -> None:
    """Raise ``ImportError`` if PyTorch is too old for anything here."""
    version = installed_torch()
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    if numbers and tuple(map(int, numbers.groups())) < LOWEST:
        lowest = ".".join(map(str, LOWEST))
        raise ImportError(f"tt-conv needs PyTorch {lowest} or newer, and torch {version} is installed")
