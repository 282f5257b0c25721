"""Print the lowest versions that pyproject.toml says are enough, as pip's constraints.

    python tools/lowest_versions.py > lowest.txt
    pip install -c lowest.txt '.[applications]'

``make test-lowest`` installs them into an environment of its own and runs the tests there.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = ("applications", "onnx")


def lowest_versions() -> list[str]:
    """Return ``name==version`` for each requirement of the package and of the extras that its users install."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS]
    versions = {}
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        name, version = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
        versions[name] = version
    return [f"{name}=={version}" for name, version in versions.items()]


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
