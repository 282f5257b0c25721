"""Every public name has a docstring in NumPy's form, with its parameters, results, errors and an example that runs."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

API = Path(__file__).parents[2] / "docs" / "api" / "index.rst"
COMPLETE = ("tt_conv", "tt_conv.layers", "tt_conv.applications.compression", "tt_conv.applications.video_prediction")


def public_names() -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that the API pages list."""
    module = ""
    for line in API.read_text().splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.removeprefix(".. currentmodule:: ")
        elif re.fullmatch(r"   \w[\w.]*", line):
            inner, _, name = line.strip().rpartition(".")
            yield f"{module}.{inner}".rstrip("."), name


def sections(docstring: str) -> dict[str, str]:
    """Return the sections of a docstring by their titles; what stands before the first has the title ``""``."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(obj: object) -> list[str]:
    """Return the names of the parameters that a caller gives by name or place."""
    if inspect.isclass(obj) and issubclass(obj, BaseException):
        return []
    try:
        signature = inspect.signature(obj)
    except (TypeError, ValueError):
        return []
    varying = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, parameter in signature.parameters.items() if parameter.kind not in varying]


def missing(obj: object) -> list[str]:
    """Return what the docstring of a public object lacks."""
    docstring = obj.__doc__ if inspect.isclass(obj) else inspect.getdoc(obj)
    if not docstring:
        return ["a docstring"]
    found, lacks = sections(docstring), []
    inherited = (
        [sections(base.__doc__ or "").get("Parameters", "") for base in inspect.getmro(obj)]
        if inspect.isclass(obj)
        else []
    )
    elsewhere = "arguments are those of" in found[""]
    described = "\n".join([found.get("Parameters", ""), found.get("Attributes", ""), *inherited])
    for name in parameters(obj):
        if not elsewhere and not re.search(rf"^[\w, *]*\b{name}\b", described, re.MULTILINE):
            lacks.append(f"the parameter {name}")
    if inspect.isfunction(obj):
        annotation = inspect.signature(obj).return_annotation
        if annotation not in (None, "None") and "Returns" not in found and "Yields" not in found:
            lacks.append("Returns")
    if ">>>" not in docstring:
        lacks.append("an example")
    return lacks


@pytest.mark.parametrize(("module", "name"), list(public_names()))
def test_a_public_name_says_all_that_its_caller_needs(module: str, name: str) -> None:
    assert missing(getattr(importlib.import_module(module), name)) == []


@pytest.mark.parametrize("package", COMPLETE)
def test_the_api_pages_list_what_a_package_exports(package: str) -> None:
    listed = {name for module, name in public_names() if module == package}
    assert {name for name in importlib.import_module(package).__all__ if not name.startswith("__")} <= listed


def test_source_pages_lead_back_to_the_api() -> None:
    # Sphinx keeps one name per file of source: that under which the first thing in it is documented.
    documented: dict[str, set[str]] = {}
    for module, name in public_names():
        documented.setdefault(getattr(importlib.import_module(module), name).__module__, set()).add(module)
    assert {source: names for source, names in documented.items() if len(names) > 1} == {}
