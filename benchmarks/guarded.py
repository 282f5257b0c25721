"""A case that fails says so in its result and leaves the others alone."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch


class OutOfTime(BaseException):
    """The time of a run is over. Not an ``Exception``, so that nobody on the way takes it for a failure."""


def guarded(case: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a case measured, or ``ok: False`` and the error."""
    try:
        return {"case": case, **measure()}
    except Exception as error:
        return failure(case, error)


def failure(case: str, error: Exception) -> dict[str, Any]:
    """Return the result of a case that failed, and give back the memory that it took."""
    text = f"{type(error).__name__}: {error}".strip()
    # The frames of a failure hold its tensors.
    error.__traceback__ = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"case": case, "ok": False, "error": text.splitlines()[0][:300]}
