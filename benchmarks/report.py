"""The benchmark pages of the documentation, made from the JSON files that the benchmarks wrote.

``docs/benchmarks/NAME.json`` holds what ``python -m benchmarks.run --only NAME`` wrote, and ``NAME.MACHINE.json`` what
it wrote elsewhere; ``python -m benchmarks.report FILE.json MACHINE`` makes such files of a run of several parts. The
module of a part has ``table(results)``, which returns text, and may have ``plot(results)``, which returns a figure of
matplotlib; its docstring says what was measured. A part that has a table and no JSON file gets a page that says so.
"""

import argparse
import importlib
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from benchmarks.run import PARTS, write_json
from tt_conv.applications.video_prediction.published_figures import published_tables


def write_pages(folder: Path) -> None:
    """Write one page per part to ``folder / "generated"``, its figure beside it, and leave no other pages there."""
    pages = folder / "generated"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    measured = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for name, path in measured.items():
        plot = getattr(_module(path), "plot", None)
        results, _ = _sorted_out(json.loads(path.read_text())["results"])
        if plot is not None and results:
            import matplotlib.pyplot as plt

            figure = plot(results)
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


def write_versions(written: Path, path: Path) -> None:
    """Write what ``tools/test_versions.py`` found as a table to include in a page."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    columns = ("PyTorch", "Python", "passed", "failed", "skipped", "with", "date")
    lines += [f"   {' ' if number else '*'} - {column}" for number, column in enumerate(columns)]
    for row in json.loads(written.read_text()):
        others = ", ".join(f"{name} {version}" for name, version in row["packages"].items() if name != "torch")
        skipped = "; ".join(f"{count}: {reason}" for reason, count in row["skipped"].items()) or "none"
        failed = ", ".join([str(len(row["failed"])), *(f"``{name}``" for name in row["failed"])])
        cells = (row["packages"]["torch"], row["python"], row["passed"], failed, skipped, others, row["date"])
        lines += [f"   {' ' if number else '*'} - {cell}" for number, cell in enumerate(cells)]
    path.write_text("\n".join(lines) + "\n")


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
    results, others = _sorted_out(data["results"])
    if hasattr(module, "plot") and results:
        lines += [f".. image:: {path.stem}.png", f"   :alt: {title}, the figures of the table below", ""]
    lines += [".. code-block:: text", ""]
    table = getattr(module, "table", plain_table)(results) if results else "nothing was measured"
    lines += [f"    {line}".rstrip() for line in [*table.splitlines(), *others]]
    return "\n".join(lines) + "\n"


def _sorted_out(results: Sequence[Mapping]) -> tuple[list[Mapping], list[str]]:
    """Return the results with figures, and a line for each case that failed or was left out."""
    failed = [result for result in results if result.get("ok") is False and isinstance(result.get("error"), str)]
    others = [f"{result['case']} failed: {result['error']}" for result in failed]
    others += [f"{result['case']} was left out: {result['skipped']}" for result in results if "skipped" in result]
    return [result for result in results if result not in failed and "skipped" not in result], others


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


def plain_table(results: Sequence[Mapping]) -> str:
    """Return one line per result, with its figures as they were written."""
    hidden = {"part", "case", "ok"}
    return "\n".join(
        f"{result['case']}: "
        + ", ".join(f"{key} {_short(value)}" for key, value in result.items() if key not in hidden)
        for result in results
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def publish(written: Path, machine: str, folder: Path) -> list[Path]:
    """Write one ``PART.MACHINE.json`` for every part in a file of results, and return their paths.

    Results that are there already for other cases of the same part stay, if they are of the same device and versions.
    """
    data = json.loads(written.read_text())
    if data["machine"].get("size") == "small":
        raise ValueError(f"{written} is of a rehearsal (--small): its figures say nothing")
    paths = []
    for part in dict.fromkeys(result["part"] for result in data["results"]):
        path = folder / f"{part}.{machine}.json"
        results = [result for result in data["results"] if result["part"] == part]
        before = json.loads(path.read_text()) if path.exists() else {}
        if before.get("machine") == data["machine"]:
            fresh = {result["case"] for result in results}
            results = [result for result in before["results"] if result["case"] not in fresh] + results
        command = f"python -m benchmarks.run --only {part} --device cuda"
        write_json(path, {**data, "command": command, "results": results})
        paths.append(path)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=publish.__doc__)
    parser.add_argument("written", type=Path, nargs="+", help="what benchmarks.run wrote")
    parser.add_argument("machine", help="a short name, such as h100")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "docs" / "benchmarks")
    options = parser.parse_args()
    for each in options.written:
        for path in publish(each, options.machine, options.folder):
            print(path)
