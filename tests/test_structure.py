"""The package is what its layout says: imports go one way, no two files import each other, one name is one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tt_conv"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part may import from the parts before it, never from those behind it.
LAYERS = (
    ("_version", "checks", "lazy", "tables"),
    ("runtime",),
    ("conv_einsum",),
    ("kernels",),
    ("conv_tt",),
    ("layers",),
    ("applications",),
)
# The same inside applications. Parts in one row don't import each other.
APPLICATIONS = (
    ("extras", "gate", "output", "pictures"),
    ("data",),
    ("compression",),
    ("training",),
    ("video_prediction", "recognition"),
    ("commands",),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def statements(body: list[ast.stmt], *, deferred: bool) -> Iterator[ast.stmt]:
    """Yield the statements of a module; with ``deferred`` those that run later, or only for a type checker, as well."""
    for statement in body:
        is_later = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        is_typing = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        if (is_later or is_typing) and not deferred:
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, field, []), deferred=deferred)
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body, deferred=deferred)


def imported(path: Path, *, deferred: bool) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for statement in statements(ast.parse(path.read_text()).body, deferred=deferred):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            assert not statement.level, f"{path} imports relatively"
            # What is imported from a package may be a module of it.
            within = [f"{statement.module}.{alias.name}" for alias in statement.names]
            names = [name for name in within if name in MODULES] or [statement.module]
        else:
            continue
        found |= {name for name in names if name in MODULES}
    return found - {module_name(path)}


def place(name: str, rows: tuple[tuple[str, ...], ...], depth: int) -> int | None:
    """Return the row of a module; None for a package that holds the rows itself."""
    parts = name.split(".")
    if len(parts) <= depth:
        return None
    for row, names in enumerate(rows):
        if parts[depth] in names:
            return row
    raise AssertionError(f"{name} has no place in the layout; give it one in {Path(__file__).name}")


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("tt_conv", "tt_conv.__main__")])
def test_imports_go_one_way(name: str) -> None:
    for other in imported(MODULES[name], deferred=True):
        for prefix, rows in (("tt_conv", LAYERS), ("tt_conv.applications", APPLICATIONS)):
            if not (name.startswith(f"{prefix}.") and other.startswith(f"{prefix}.")):
                continue
            mine, theirs = (place(module, rows, prefix.count(".") + 1) for module in (name, other))
            if mine is None or theirs is None:
                continue
            same = name.split(".")[prefix.count(".") + 1] == other.split(".")[prefix.count(".") + 1]
            assert theirs < mine or same or (mine == theirs == 0), f"{name} imports {other}, which lies behind it"


def test_no_circle_of_imports() -> None:
    graph = {name: imported(path, deferred=True) for name, path in MODULES.items() if path.name != "__init__.py"}
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# Names that mean the same thing wherever they are defined.
SHARED = {
    # What a package exports on first use, and what a script runs.
    *("__all__", "__getattr__", "_DEFINED_IN", "main"),
    # Type variables.
    "T",
    # Each task has its own of these: they are asked for by name, whatever the task, or hand over to the one flow.
    *("APPLICATION", "Settings", "DataSettings", "DataKind", "ModelSettings", "TrainingSettings"),
    *("EvaluationSettings", "PredictionSettings", "CompressionSettings", "DemoSettings"),
    *("open_data", "build_model", "run_evaluation", "run_prediction", "run_demo"),
    # A subcommand's help, its options that depend on the task, and what it runs.
    *("TEXT", "_OPTIONS", "_run"),
}


def definitions(path: Path) -> set[str]:
    found = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.add(statement.name)
        elif isinstance(statement, ast.Assign):
            found |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.add(statement.target.id)
    return found - SHARED


def test_a_name_is_defined_once() -> None:
    homes = defaultdict(list)
    for name, path in MODULES.items():
        for definition in definitions(path):
            homes[definition].append(name)
    doubled = {definition: places for definition, places in homes.items() if len(places) > 1}
    assert not doubled, "\n".join(f"{name}: {', '.join(places)}" for name, places in sorted(doubled.items()))
