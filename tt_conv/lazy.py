"""Exports of a package that are imported on first use."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module


def exports(
    package: str,
    defined_in: Mapping[str, str],
    importing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package whose public names are imported on first use.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    defined_in : mapping from str to str
        Public name -> the module that defines it; one that begins with a dot lies in the package.
    importing : callable
        Gives the context in which a module is imported.

    Returns
    -------
    callable
        Takes a name and returns its value, or raises ``AttributeError``.
    """

    def get(name: str) -> object:
        if name not in defined_in:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with importing():
            value = getattr(import_module(defined_in[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
