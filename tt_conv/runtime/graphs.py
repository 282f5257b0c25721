"""Replaying whole calls as CUDA graphs, on demand.

A recorded call reads and writes memory of its own: what goes in is copied there, what comes out is copied from there,
so nobody holds a tensor that the next call overwrites. Parameters are read where they are, so a step of an optimizer
needs no new recording.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tt_conv.runtime.formats import autocast_dtype
from tt_conv.runtime.kept import without_keeping
from tt_conv.runtime.modes import has_hooked_parts, is_traced, is_transformed

Call: TypeAlias = Callable[..., Sequence[Tensor]]
Recording: TypeAlias = Callable[[], Sequence[Any]]

MOST_RECORDED = 8


class Recorder(Protocol):
    """What records the work of a function on a device."""

    device_type: str

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run a function as often as it takes before it can be recorded."""

    def record(self, function: Callable[[], Sequence[Any]]) -> Recording:
        """Return what does the same work again and returns the same tensors with new values."""


class CudaRecorder:
    """Records CUDA graphs that share their memory, so they must be replayed in the order in which they were made."""

    device_type = "cuda"

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run a function on a stream of its own: libraries allocate their workspaces in a first call."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, function: Callable[[], Sequence[Any]]) -> Recording:
        """Capture the work of a function."""
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that load data, may go on using the device.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            results = function()

        def replay() -> Sequence[Any]:
            graph.replay()
            return results

        return replay


class _Inference:
    """A recorded call without gradients."""

    def __init__(self, call: Call, tensors: Sequence[Tensor], recorder: Recorder) -> None:
        self.inputs = [tensor.detach().clone() for tensor in tensors]
        recorder.warm_up(lambda: call(*self.inputs))
        self.replay = recorder.record(lambda: call(*self.inputs))

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        _copy_into(tensors, self.inputs)
        return tuple(output.clone() for output in self.replay())


class _Ticket:
    """Lives as long as the backward pass of a replayed call is to be expected."""


class _Training:
    """A recorded call and its recorded backward pass, which share their memory."""

    def __init__(self, module: nn.Module, call: Call, tensors: Sequence[Tensor], recorder: Recorder) -> None:
        self.inputs = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors]
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # Parameters remember the stream of an earlier backward pass, which is not the one that is recorded.
        aliases = {id(parameter): nn.Parameter(parameter.detach()) for parameter in self.parameters}
        self.sources = [*(tensor for tensor in self.inputs if tensor.requires_grad), *aliases.values()]
        self.ticket: weakref.ref[_Ticket] | None = None
        outputs: Sequence[Tensor] = ()

        def forward() -> Sequence[Tensor]:
            nonlocal outputs
            with torch.enable_grad(), _exchanged(module, aliases):
                outputs = call(*self.inputs)
            return [output.detach() for output in outputs]

        def backward() -> Sequence[Tensor | None]:
            nonlocal outputs
            ends = [output for output in outputs if output.requires_grad]
            outputs = ()
            return torch.autograd.grad(ends, self.sources, self.gradients, allow_unused=True)

        def both() -> None:
            forward()
            self.depend = [output.requires_grad for output in outputs]
            self.gradients = [torch.zeros_like(output) for output in outputs if output.requires_grad]
            backward()

        recorder.warm_up(both)
        self.forward = recorder.record(forward)
        self.backward = recorder.record(backward)

    def busy(self) -> bool:
        """Say whether a backward pass may still come that needs what the last forward pass left."""
        return self.ticket is not None and self.ticket() is not None

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        ticket = _Ticket()
        self.ticket = weakref.ref(ticket)
        return _Replay.apply(self, [ticket], *tensors, *self.parameters)


class _Replay(torch.autograd.Function):
    """The two recordings as one operation for autograd."""

    @staticmethod
    def forward(ctx: Any, recorded: _Training, tickets: list[_Ticket], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.recorded, ctx.tickets = recorded, tickets
        ctx.needed = [tensor.requires_grad for tensor in (*recorded.inputs, *recorded.parameters)]
        _copy_into(tensors[: len(recorded.inputs)], recorded.inputs)
        outputs = tuple(output.clone() for output in recorded.forward())
        ctx.mark_non_differentiable(*(o for o, depends in zip(outputs, recorded.depend, strict=True) if not depends))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.tickets:
            raise RuntimeError(
                "a call replayed as a CUDA graph has one backward pass, and it was taken; for a second one turn the "
                "graphs off with use_cuda_graphs(False)"
            )
        recorded: _Training = ctx.recorded
        _copy_into([g for g, depends in zip(gradients, recorded.depend, strict=True) if depends], recorded.gradients)
        found = iter([None if value is None else value.clone() for value in recorded.backward()])
        ctx.tickets.clear()
        return None, None, *(next(found) if needed else None for needed in ctx.needed)


class Graphs:
    """The recorded calls of a module.

    A call is recorded when the second of its kind comes: the same shapes, types, modes, and parameters in the same
    memory. It runs as usual, without a recording, if it is the first of its kind or of more kinds than are kept; while
    the backward pass of the recording's last call is still to come; and where a recording would leave something out:
    while another tool traces, and in modules with hooks.
    """

    def __init__(self, module: nn.Module, recorder: type[Recorder] = CudaRecorder) -> None:
        self._module = weakref.ref(module)
        self._recorder = recorder
        self._recorded: dict[Hashable, _Inference | _Training | None] = {}
        self._parameters: Hashable = None
        self._lock = RLock()

    def __call__(self, name: Hashable, call: Call, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what ``call(*tensors)`` returns; ``name`` says what else the call depends on."""
        module = self._module()
        if module is None or not _can_be_recorded(module, tensors, self._recorder.device_type):
            return call(*tensors)
        # What is recorded has one place for what goes in and what comes out: threads that share a module take turns.
        with self._lock:
            return self._replayed(module, name, call, tensors)

    def _replayed(self, module: nn.Module, name: Hashable, call: Call, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        device_type = self._recorder.device_type
        parameters = list(module.parameters())
        identities = tuple(map(_identity_of_parameter, parameters))
        if identities != self._parameters:
            self._recorded.clear()
            self._parameters = identities
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*tensors, *parameters))
        kind = (
            name,
            learns,
            module.training,
            autocast_dtype(torch.device(device_type)),
            *map(_kind_of_tensor, tensors),
        )
        if kind not in self._recorded:
            if len(self._recorded) < MOST_RECORDED:
                self._recorded[kind] = None
            return call(*tensors)
        recorded = self._recorded[kind]
        if recorded is None:
            recorded = self._record(module, call, tensors, learns=learns)
            self._recorded[kind] = recorded
        if isinstance(recorded, _Training) and recorded.busy():
            return call(*tensors)
        return recorded(tensors)

    def _record(
        self, module: nn.Module, call: Call, tensors: Sequence[Tensor], *, learns: bool
    ) -> _Inference | _Training:
        device_type = tensors[0].device.type
        dtype = autocast_dtype(tensors[0].device)
        # Neither weights that autocast or a layer remembers nor what is recorded may serve the other.
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(learns),
            torch.autocast(device_type, dtype, enabled=dtype is not None, cache_enabled=False),
            without_keeping(),
        ):
            if learns:
                return _Training(module, call, tensors, self._recorder())
            return _Inference(call, tensors, self._recorder())


class Replayable(nn.Module):
    """A module whose calls can be replayed as CUDA graphs."""

    _graphs: Graphs | None = None

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Replay calls as CUDA graphs, whole sequences with their backward pass included, where shapes are steady.

        The first call of a kind (shapes, precision, grad mode) runs as usual, the second records a graph, later ones
        replay it, which starts one graph where there were thousands of kernels. Other shapes, a second call before the
        backward pass of the first, or a module with hooks run as usual; from the ninth kind on all do. Changed weights
        need no new recording, and weights that moved get one. Every recording keeps the memory of its call for as long
        as the module lives or until ``use_cuda_graphs(False)``.

        Parameters
        ----------
        enabled : bool
            False forgets all recordings.

        Raises
        ------
        RuntimeError
            If there is no CUDA device, or the module is not on one.
        """
        if not enabled:
            self._graphs = None
            return
        if not torch.cuda.is_available():
            raise RuntimeError("CUDA graphs need a CUDA device, and PyTorch sees none here")
        elsewhere = {parameter.device.type for parameter in self.parameters()} - {"cuda"}
        if elsewhere:
            raise RuntimeError(
                f"CUDA graphs need the module on a CUDA device, it is on {', '.join(sorted(elsewhere))}; "
                'move it first, with .to("cuda")'
            )
        self._graphs = Graphs(self)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles have no recordings.
        return {key: value for key, value in super().__getstate__().items() if key != "_graphs"}


@contextmanager
def _exchanged(module: nn.Module, others: Mapping[int, nn.Parameter]) -> Iterator[None]:
    """Put other parameters into a module for the block, each in the place of the one with its ``id``."""
    places = [
        (holder, name, parameter)
        for holder in module.modules()
        for name, parameter in holder._parameters.items()
        if parameter is not None and id(parameter) in others
    ]
    for holder, name, parameter in places:
        holder._parameters[name] = others[id(parameter)]
    try:
        yield
    finally:
        for holder, name, parameter in places:
            holder._parameters[name] = parameter


def _copy_into(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)


def _kind_of_tensor(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad


def _identity_of_parameter(parameter: Tensor) -> Hashable:
    # A parameter in the memory of another is another still: gradients belong to the object.
    return id(parameter), parameter.data_ptr(), parameter.stride(), _kind_of_tensor(parameter)


def _can_be_recorded(module: nn.Module, tensors: Sequence[Tensor], device_type: str) -> bool:
    if is_traced() or is_transformed():
        return False
    if not all(isinstance(t, Tensor) and t.device.type == device_type and t.numel() for t in tensors):
        return False
    if device_type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    return not has_hooked_parts(module)
