"""The benchmark pages of the documentation, made from the JSON files that the benchmarks wrote.

``docs/benchmarks/NAME.json`` holds what ``python -m benchmarks.run --only NAME`` wrote. The module of a part has
``table(results)``, which returns text; its docstring says what was measured.
"""

import importlib
import json
import textwrap
from pathlib import Path

from benchmarks.run import PARTS


def write_pages(folder: Path) -> None:
    """Write one page per JSON file in ``folder`` to ``folder / "generated"``, and an index of them."""
    pages = folder / "generated"
    pages.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        (pages / f"{path.stem}.rst").write_text(page(path))


def page(path: Path) -> str:
    """Return the page of one JSON file."""
    data = json.loads(path.read_text())
    module = importlib.import_module(PARTS[path.stem.split(".")[0]])
    description = textwrap.dedent(module.__doc__ or "").strip()
    title, _, rest = description.partition("\n")
    title = title.rstrip(".")
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
    command = data.get("command", f"python -m benchmarks.run --only {path.stem.split('.')[0]}")
    lines = [title, "=" * len(title), rest, "", f"Machine: {machine}.", "", f"Command: ``{command}``.", "", "::", ""]
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
