"""What a call allocates and launches, and what the device can do at best."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.interleaved import seconds


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors that a call holds at once, beyond those that were there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def launches(call: Callable[[], object], device: torch.device) -> int:
    """Return what a call starts: on a GPU, kernels, copies and graphs; on a CPU, operators that hold no others."""
    on_device = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_device else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        call()
        if on_device:
            torch.cuda.synchronize(device)
    events: Any = recorded.events()
    return sum(map(_launches if on_device else _computes, events))


# In CUDA's runtime and driver, whatever the rest of the name says of their variants.
_LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


def _launches(event: FunctionEvent) -> bool:
    return event.device_type == DeviceType.CPU and event.name.startswith(_LAUNCHES)


_ONLY_BOOKKEEPING = ("empty", "as_strided", "detach", "resize", "view", "alias", "is_same_size", "result_type", "lift")


def _computes(event: FunctionEvent) -> bool:
    if any(not child.name.startswith("[") for child in event.cpu_children):
        return False
    if event.name.startswith("aten::"):
        return not event.name.removeprefix("aten::").startswith(_ONLY_BOOKKEEPING)
    # Kernels that a compiler made carry names of their own.
    return event.name.startswith(("mkldnn", "graph_", "cpp_", "triton_", "torch_compile"))


def peak_flops(dtype: torch.dtype, device: torch.device, *, small: bool = False) -> float:
    """Return the most floating-point operations per second that products and wide convolutions reach."""
    size, batch, width = (8192, 64, 64) if device.type == "cuda" else (2048, 2, 64)
    if small:
        size, batch, width = 256, 1, 16
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(batch, 128, width, width, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 128, 5, 5, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    work: list[tuple[float, Callable[[], object]]] = [
        (2.0 * size**3, lambda: a @ b),
        (2.0 * x.numel() * 256 * 25, lambda: F.conv2d(x, w, padding=2)),
    ]
    best = 0.0
    with torch.no_grad():
        for flops, call in work:
            call()
            best = max(best, flops / min(seconds(call, device) for _ in range(5)))
    return best
