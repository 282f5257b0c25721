"""What the extras of the package install, and the message where something of them is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

# Module -> extra; the name of a module and that of the package that has it differ at times.
_EXTRA_OF = dict.fromkeys(
    ("lightning", "torchmetrics", "matplotlib", "PIL", "av", "tifffile", "tensorboard", "yaml", "tqdm", "safetensors"),
    "applications",
)


def missing_extra(error: ImportError) -> str | None:
    """Return what to tell a user whose import failed because an extra is not installed; ``None`` otherwise."""
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in _EXTRA_OF:
        return None
    return f"this needs {module}, which is not installed: pip install 'tt-conv[{_EXTRA_OF[module]}]'"


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Say in the error of an import inside which extra installs what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = missing_extra(error)
        if message is None:
            raise
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
