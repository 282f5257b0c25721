"""A network at work on calibration data: what its layers see, how often, and how much their errors matter."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tt_conv.applications.compression.holders import copied
from tt_conv.applications.compression.layers import Layer
from tt_conv.kernels.convolution import convolution
from tt_conv.kernels.metric import Metric, patches

_MOST_PATCH_ENTRIES = 4096
_SAMPLED_ENTRIES = 1 << 21  # per call: positions times entries of a patch
_SAMPLING_SEED = 0
_MOST_PROBES = 4


@dataclass
class Seen:
    """What one layer saw: the shapes of its inputs with the number of calls, in one pass of the first batch."""

    shapes: dict[tuple[int, ...], int] = field(default_factory=dict)


class Calibration:
    """Batches, and passes of copies of a network over them in evaluation mode.

    Some networks keep states or caches between calls: copies leave theirs as they are, and begin alike.

    Parameters
    ----------
    batches : iterable
        Each a tensor, ``model(batch)``; a tuple or list, ``model(*batch)``; or a dict, ``model(**batch)``.

    Raises
    ------
    ValueError
        If there is no batch, or an empty one.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        if isinstance(batches, Tensor | Mapping | str):
            raise TypeError(f"data must be an iterable of batches, got {type(batches).__name__}; wrap it in a list")
        self.batches = list(batches)
        if not self.batches:
            raise ValueError("data holds no batch; give at least one, or data=None for weights alone")
        for number, batch in enumerate(self.batches):
            values = floating(batch)
            if values and not any(value.numel() for value in values):
                raise ValueError(
                    f"calibration batch {number} ({_shapes_of(batch)}) is empty; give batches with samples"
                )

    def run(self, model: nn.Module, number: int) -> Any:
        """Pass one batch; an error names the layer that could not take it."""
        batch = self.batches[number]
        inside: list[tuple[str, nn.Module, Any]] = []
        with ExitStack() as stack:
            for name, module in model.named_modules():
                stack.enter_context(_entering(inside, name, module))
            try:
                return call(model, batch)
            except Exception as error:
                name, module, given = inside[-1] if inside else ("", model, batch)
                seen = _shapes_of(given)
                where = f"layer {name!r}, {module}," if name else f"model, a {type(model).__name__},"
                raise ValueError(
                    f"calibration batch {number} ({_shapes_of(batch)}) does not fit: the {where} was given {seen} "
                    f"and failed with: {error}. A tensor is passed as model(batch), a tuple as model(*batch), "
                    "a dict as model(**batch)"
                ) from error

    def outputs(self, model: nn.Module) -> list[list[Tensor]]:
        """Return the floating-point tensors in what the model makes of each batch, in float64."""
        with at_work(model) as (model, _), torch.no_grad():
            return [
                [value.detach().double() for value in floating(self.run(model, number))]
                for number in range(len(self.batches))
            ]

    def shapes(self, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Seen]:
        """Return what each layer sees of the first batch, in the order of the first calls."""
        seen: dict[str, Seen] = {}

        def see(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                shape = tuple(inputs[0].shape)
                calls = seen.setdefault(name, Seen()).shapes
                calls[shape] = calls.get(shape, 0) + 1

            return hook

        with at_work(model, layers) as (model, watched), torch.no_grad():
            for name, layer in watched.items():
                layer.register_forward_pre_hook(see(name))
            self.run(model, 0)
        return seen

    def metrics(self, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Metric]:
        """Return the second moments of the inputs of the layers that the data reach."""
        sums = {name: _MomentSum(layer) for name, layer in layers.items()}

        def add(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, inputs: sums[name].add(inputs[0])

        with at_work(model, layers) as (model, watched), torch.no_grad():
            for name, layer in watched.items():
                layer.register_forward_pre_hook(add(name))
            for number in range(len(self.batches)):
                self.run(model, number)
        return {name: moments.metric(name) for name, moments in sums.items() if moments.count}

    def sensitivities(self, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, float]:
        r"""Return by how much a relative error of a layer's output, squared, changes the network's, squared.

        To first order, and for errors without a direction, that is ||J||_F^2 mean(y^2) / ||f||^2 with J the
        derivative of the network's output f by the layer's output y over all its calls. ||J||_F^2 is the mean
        of |J^T v|^2 over random v (Hutchinson), which one backward pass gives for all layers.
        """
        generator = torch.Generator().manual_seed(_SAMPLING_SEED)
        total = dict.fromkeys(layers, 0.0)
        size = 0.0
        with at_work(model, layers) as (model, watched):
            for parameter in model.parameters():
                parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
            for number in range(min(len(self.batches), _MOST_PROBES)):
                state = generator.get_state()
                try:
                    gains, energy = self._probe(model, watched, number, generator)
                except RuntimeError:
                    # What works in place after a nonlinearity has a gradient only if what it needs is copied.
                    generator.set_state(state)
                    try:
                        with torch.autograd.graph.allow_mutation_on_saved_tensors():
                            gains, energy = self._probe(model, watched, number, generator)
                    except RuntimeError:
                        return dict.fromkeys(layers, 0.0)
                size += energy
                for name, gain in gains.items():
                    total[name] += gain
        return {name: value / size for name, value in total.items()} if size else total

    def _probe(
        self, model: nn.Module, layers: Mapping[str, nn.Module], number: int, generator: torch.Generator
    ) -> tuple[dict[str, float], float]:
        outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

        def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
            def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
                outputs[name].append(output)
                # What follows may work in place, which the gradient of what is kept must not notice.
                return output.clone()

            return hook

        with torch.enable_grad(), ExitStack() as stack:
            for name, layer in layers.items():
                stack.enter_context(_removed(layer.register_forward_hook(keep(name))))
            results = floating(self.run(model, number))
        energy = sum(float(r.detach().double().square().sum()) for r in results)
        results = [r for r in results if r.requires_grad]
        kept = [(name, y) for name, calls in outputs.items() for y in calls if y.requires_grad]
        gains = dict.fromkeys(layers, 0.0)
        if results and kept:
            probes = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
            gradients = torch.autograd.grad(results, [y for _, y in kept], probes, allow_unused=True)
            for (name, y), gradient in zip(kept, gradients, strict=True):
                if gradient is not None:
                    mean = float(y.detach().double().square().mean())
                    gains[name] += float(gradient.double().square().sum()) * mean
        return gains, energy


def call(model: nn.Module, batch: Any) -> Any:
    """Call a model with a batch: a tensor, positional or named arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def relative_error(outputs: Sequence[Sequence[Tensor]], reference: Sequence[Sequence[Tensor]]) -> float:
    """Return the norm of the differences of all outputs over that of the reference."""
    difference = size = 0.0
    for given, expected in zip(outputs, reference, strict=True):
        for a, b in zip(given, expected, strict=True):
            difference += float((a - b).detach().square().sum())
            size += float(b.detach().square().sum())
    return math.sqrt(difference / size) if size else math.sqrt(difference)


def floating(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors in an output, however it is nested."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        return [value for part in outputs.values() for value in floating(part)]
    if isinstance(outputs, tuple | list):
        return [value for part in outputs for value in floating(part)]
    return []


def storages_used(model: nn.Module, batch: Any) -> set[int]:
    """Return the addresses of the storages of all tensors that the operations of one pass are given."""
    with torch.no_grad(), _Used() as used:
        call(model, batch)
    return used.storages


def storage_of(tensor: Tensor) -> int:
    """Return the address of a tensor's values; 0 for one without, or with values in several places."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class _Used(TorchDispatchMode):
    """Notes whatever is given to an operation, by the name of a layer or past all names."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        self.storages |= {storage_of(value) for value in given if isinstance(value, Tensor)} - {0}
        return func(*args, **(kwargs or {}))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def at_work(
    model: nn.Module, layers: Mapping[str, Layer] | None = None
) -> Iterator[tuple[nn.Module, dict[str, nn.Module]]]:
    """Give a copy of a model in evaluation mode, and its copies of some layers; what it draws is the same each time."""
    names = {id(module): name for name, module in model.named_modules()}
    copy = in_evaluation(copied(model))
    with drawing_alike(model):
        yield copy, {name: copy.get_submodule(names[id(layer)]) for name, layer in (layers or {}).items()}


def in_evaluation(model: nn.Module) -> nn.Module:
    """Put a model into evaluation mode, also one that holds itself."""
    try:
        return model.eval()
    except RecursionError:
        for module in model.modules():
            module.training = False
        return model


@contextmanager
def drawing_alike(model: nn.Module) -> Iterator[None]:
    """Seed the global generators for a while, and leave them as they were."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next(iter(devices)).type if devices else "cuda"
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device.index or 0 for device in devices], device_type=kind):
        torch.manual_seed(_SAMPLING_SEED)
        random.seed(_SAMPLING_SEED)
        np.random.seed(_SAMPLING_SEED)  # noqa: NPY002 (what networks use, if any)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


class _MomentSum:
    """Sums of x x^T over sampled positions of everything that a layer sees."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        kernel = tuple(layer.weight.shape[1:])
        self.inputs, self.entries = kernel[0], math.prod(kernel)
        self.whole = self.entries <= _MOST_PATCH_ENTRIES
        size = self.entries if self.whole else self.inputs
        self.sum = torch.zeros(size, size, dtype=torch.float64, device=layer.weight.device)
        self.count = 0
        self.generator = torch.Generator().manual_seed(_SAMPLING_SEED)

    def add(self, x: Tensor) -> None:
        samples = self._samples(x.detach()).float() if x.dtype != torch.float64 else self._samples(x.detach())
        self.sum += (samples.mT @ samples).double()
        self.count += len(samples)

    def metric(self, name: str) -> Metric:
        mean = self.sum / self.count
        if not mean.isfinite().all():
            raise ValueError(f"on the data, the inputs of layer {name!r} hold infinite or NaN values")
        return Metric.of(mean, self.inputs)

    def _samples(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return self._some(x.flatten(0, -2) if x.ndim > 1 else x.unsqueeze(0))
        conv = self.layer
        dim = len(conv.kernel_size)
        x = x if x.ndim == dim + 2 else x.unsqueeze(0)
        x = x.unflatten(1, (conv.groups, -1)).flatten(0, 1)  # the groups share what follows
        if not self.whole:
            return self._some(x.movedim(1, -1).flatten(0, -2))
        sides = convolution(
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            1,
            conv.padding_mode,
            (conv.in_channels, conv.out_channels),
            dim,
        ).sides
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = F.pad(x, [amount for side in reversed(sides) for amount in side], mode=mode)
        x = patches(x, conv.kernel_size, conv.stride, conv.dilation)
        grid = (x.shape[0], *x.shape[2 : 2 + dim])
        places = self._places(math.prod(grid), x.device)
        batch, *positions = torch.unravel_index(places, grid)
        return x.movedim(1, 1 + dim)[(batch, *positions)].flatten(1)

    def _some(self, samples: Tensor) -> Tensor:
        return samples[self._places(len(samples), samples.device)]

    def _places(self, available: int, device: torch.device) -> Tensor:
        wanted = max(256, _SAMPLED_ENTRIES // self.entries)
        if available <= wanted:
            return torch.arange(available, device=device)
        return torch.randint(available, (wanted,), generator=self.generator).to(device)


@contextmanager
def _removed(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _entering(inside: list[tuple[str, nn.Module, Any]], name: str, module: nn.Module) -> Iterator[None]:
    """Keep note of which modules are being called, and of what they were given."""
    # Put into words in an error only: printing the states that a cell is given takes longer than the cell.
    enter = module.register_forward_pre_hook(
        lambda _, inputs, named: inside.append((name, module, (*inputs, *named.values()))), with_kwargs=True
    )
    leave = module.register_forward_hook(lambda *_: inside.pop() and None)
    with _removed(enter), _removed(leave):
        yield


def _shapes_of(value: Any) -> str:
    parts = list(value.values()) if isinstance(value, Mapping) else value
    parts = parts if isinstance(parts, tuple | list) else [parts]
    return ", ".join(_shape_of(part) for part in itertools.islice(parts, 6))


def _shape_of(part: Any) -> str:
    if isinstance(part, Tensor):
        return str(tuple(part.shape))
    return f"({_shapes_of(part)})" if isinstance(part, tuple | list) else repr(part)[:40]
