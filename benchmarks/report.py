"""The benchmark pages of the documentation, made from the JSON files that the benchmarks wrote.

``docs/benchmarks/NAME.json`` holds what ``python -m benchmarks.run --only NAME`` wrote. The module of a part has
``table(results)``, which returns text, and may have ``plot(results)``, which returns a figure of matplotlib; its
docstring says what was measured. A part that has a table and no JSON file gets a page that says so.
"""

import importlib
import json
import shutil
import textwrap
from pathlib import Path
from types import ModuleType

from benchmarks.run import PARTS
from tt_conv.applications.video_prediction.published_figures import published_tables


def write_pages(folder: Path) -> None:
    """Write one page per part to ``folder / "generated"``, its figure beside it, and leave no other pages there."""
    pages = folder / "generated"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    measured = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for name, path in measured.items():
        plot = getattr(_module(path), "plot", None)
        if plot is not None:
            import matplotlib.pyplot as plt

            figure = plot(json.loads(path.read_text())["results"])
            figure.savefig(pages / f"{name}.png", dpi=120)
            # The gallery of the documentation takes every figure that it finds open for one of its own.
            plt.close(figure)
        (pages / f"{name}.rst").write_text(page(path))
    for name in PARTS:
        path = folder / f"{name}.json"
        if name not in measured and hasattr(_module(path), "table"):
            (pages / f"{name}.rst").write_text(empty_page(path))


def write_published(path: Path) -> None:
    """Write the figures that others have published, which ship with the package, as tables to include in a page."""
    lines: list[str] = []
    for table in published_tables():
        name = {"moving_mnist": "Moving-MNIST, two digits", "kth": "KTH actions"}[table.data]
        lines += [
            f".. list-table:: {name}, {table.given} frames given, {table.future} predicted",
            "   :header-rows: 1",
            "",
        ]
        for row in (["", *table.columns], *table.rows):
            lines += [f"   {' ' if number else '*'} - {cell or ''}".rstrip() for number, cell in enumerate(row)]
        lines += ["", f"Source: {table.source}. Protocol: {table.protocol}.", ""]
    path.write_text("\n".join(lines))


def _module(path: Path) -> ModuleType:
    return importlib.import_module(PARTS[path.stem.split(".")[0]])


def page(path: Path) -> str:
    """Return the page of one JSON file."""
    data = json.loads(path.read_text())
    module = _module(path)
    title, lines = _description(path)
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
    command = data.get("command", _command(path))
    lines += [f"Machine: {machine}.", "", f"Command: ``{command}``.", ""]
    if hasattr(module, "plot"):
        lines += [f".. image:: {path.stem}.png", f"   :alt: {title}, the figures of the table below", ""]
    lines += [".. code-block:: text", ""]
    table = getattr(module, "table", plain_table)(data["results"])
    lines += [f"    {line}".rstrip() for line in table.splitlines()]
    return "\n".join(lines) + "\n"


def empty_page(path: Path) -> str:
    """Return the page of a part that has no JSON file."""
    return "\n".join([*_description(path)[1], f"No results are published yet; ``{_command(path)}`` measures them.", ""])


def _description(path: Path) -> tuple[str, list[str]]:
    """Return the title of a part, and the lines from it to the end of what its module says about it."""
    title, _, rest = textwrap.dedent(_module(path).__doc__ or "").strip().partition("\n")
    title = title.rstrip(".")
    return title, [title, "=" * len(title), rest, ""]


def _command(path: Path) -> str:
    return f"python -m benchmarks.run --only {path.stem.split('.')[0]}"


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
