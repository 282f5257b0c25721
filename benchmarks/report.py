"""The benchmark pages of the documentation, made from the JSON files that the benchmarks wrote.

``docs/benchmarks/NAME.json`` holds what ``python -m benchmarks.run --only NAME`` wrote. The module of a part has
``table(results)``, which returns text, and may have ``plot(results)``, which returns a figure of matplotlib; its
docstring says what was measured.
"""

import importlib
import json
import textwrap
from pathlib import Path
from types import ModuleType

from benchmarks.run import PARTS


def write_pages(folder: Path) -> None:
    """Write one page per JSON file in ``folder`` to ``folder / "generated"``, and its figure beside it."""
    pages = folder / "generated"
    pages.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        plot = getattr(_module(path), "plot", None)
        if plot is not None:
            import matplotlib.pyplot as plt

            figure = plot(json.loads(path.read_text())["results"])
            figure.savefig(pages / f"{path.stem}.png", dpi=120)
            # The gallery of the documentation takes every figure that it finds open for one of its own.
            plt.close(figure)
        (pages / f"{path.stem}.rst").write_text(page(path))


def _module(path: Path) -> ModuleType:
    return importlib.import_module(PARTS[path.stem.split(".")[0]])


def page(path: Path) -> str:
    """Return the page of one JSON file."""
    data = json.loads(path.read_text())
    module = _module(path)
    description = textwrap.dedent(module.__doc__ or "").strip()
    title, _, rest = description.partition("\n")
    title = title.rstrip(".")
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
    command = data.get("command", f"python -m benchmarks.run --only {path.stem.split('.')[0]}")
    lines = [title, "=" * len(title), rest, "", f"Machine: {machine}.", "", f"Command: ``{command}``.", ""]
    if hasattr(module, "plot"):
        lines += [f".. image:: {path.stem}.png", f"   :alt: {title}, the figures of the table below", ""]
    lines += [".. code-block:: text", ""]
    table = getattr(module, "table", plain_table)(data["results"])
    lines += [f"    {line}".rstrip() for line in table.splitlines()]
    return "\n".join(lines) + "\n"


def plain_table(results: list[dict]) -> str:
    """Return one line per result, with its figures as they were written."""
    hidden = {"part", "case", "ok"}
    return "\n".join(
        f"{result['case']}: "
        + ", ".join(f"{key} {_short(value)}" for key, value in result.items() if key not in hidden)
        for result in results
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
