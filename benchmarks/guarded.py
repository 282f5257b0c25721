"""A case that fails says so in its result and leaves the others alone."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch

NEEDS_CUDA = "needs CUDA"
"""Why a case is skipped on a CPU."""


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
    release_memory()
    return {"case": case, "ok": False, "error": text.splitlines()[0][:300]}


def release_memory() -> None:
    """Give the memory of tensors that nobody holds back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitting(batch: int, measure: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``measure(batch)`` returns, with half the batch as often as a device's memory is too small for it.

    The result then has the ``batch`` that was run, and a ``note`` that says so.
    """
    asked = batch
    while True:
        try:
            result = measure(batch)
        except torch.OutOfMemoryError as error:
            if batch == 1:
                raise
            failure("", error)
        else:
            return dict(result) if batch == asked else {**result, "batch": batch, "note": _note(asked, batch)}
        batch //= 2
        print(_note(asked, batch), flush=True)


def _note(asked: int, batch: int) -> str:
    return f"a batch of {asked} does not fit into the memory of this device: {batch} instead"
