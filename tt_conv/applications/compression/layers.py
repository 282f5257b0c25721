"""Which layers of a network can be compressed, and what may take their place."""

import copy
import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tt_conv.kernels.convolution import PlainConvolution, plain_convolution
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.layers import ConvTTLSTMCell
from tt_conv.runtime.modes import has_forward_hooks

Layer = PlainConvolution | nn.Linear
"""What can be compressed."""


@dataclass(frozen=True)
class Layers:
    """The layers of a network.

    Parameters
    ----------
    found : mapping of str to Layer
        By name, in the order of ``named_modules``.
    left_out : mapping of str to str
        Modules with a kernel that stay as they are: name -> why.
    known_as : mapping of str to str
        Every name of all of these -> the one that they are known by; a module may be held under several.
    """

    found: Mapping[str, Layer]
    left_out: Mapping[str, str]
    known_as: Mapping[str, str]

    def matching(self, pattern: str) -> list[str]:
        """Return the layers of which a name matches a pattern, as in :mod:`fnmatch`."""
        return list(dict.fromkeys(self.known_as[name] for name in fnmatch.filter(self.known_as, pattern)))


def find_layers(model: nn.Module, keep: Sequence[str] = ()) -> Layers:
    """Find what can be compressed.

    Parameters
    ----------
    model : nn.Module
    keep : sequence of str
        Name patterns, as in :mod:`fnmatch`, of layers to leave as they are.

    Returns
    -------
    Layers

    Raises
    ------
    ValueError
        If a pattern matches no layer.
    """
    owners: dict[int, set[str]] = defaultdict(set)
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].add(name)
    # Their sequence engine reads this kernel itself, and the recurrence is factorized already.
    taken = {id(m.input_conv) for m in model.modules() if isinstance(m, ConvTTLSTMCell)}
    found: dict[str, Layer] = {}
    left_out: dict[str, str] = {}
    for name, module in model.named_modules():
        reason = _why_not(module, owners)
        if id(module) in taken:
            reason = "belongs to a ConvTT-LSTM, which is factorized already"
        if reason is None and isinstance(module, Layer):
            found[name] = module
        elif reason:
            left_out[name] = reason
    everything = [*found, *left_out]
    first = {id(model.get_submodule(name)): name for name in everything}
    known_as = {name: first[id(module)] for name, module in _all_names(model) if id(module) in first}
    layers = Layers(found, left_out, known_as)
    for pattern in keep:
        matching = layers.matching(pattern)
        if not matching:
            raise ValueError(f"keep names {pattern!r}, which matches no layer; there are {_listed(everything)}")
        for name in matching:
            if name in found:
                del found[name]
                left_out[name] = f"kept, by {pattern!r}"
    return layers


def _all_names(module: nn.Module, name: str = "", above: tuple[nn.Module, ...] = ()) -> Iterator[tuple[str, nn.Module]]:
    """Walk over modules under all of their names; what holds itself is not entered again."""
    if any(module is other for other in above):
        return
    yield name, module
    for key, child in module._modules.items():
        if child is not None:
            yield from _all_names(child, f"{name}.{key}" if name else key, (*above, module))


def nothing_to_compress(model: nn.Module, left_out: Mapping[str, str]) -> ValueError:
    """Return the error that says why no layer can be compressed."""
    reasons = "; ".join(f"{name or 'the model itself'}: {why}" for name, why in left_out.items())
    return ValueError(
        f"nothing in this {type(model).__name__} can be compressed: "
        + (reasons or "it holds no nn.Conv1d, nn.Conv2d, nn.Conv3d or nn.Linear")
    )


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy, also of a model that holds results of its last call, such as states or a hook's kernel.

    Raises
    ------
    TypeError
        If something in the model cannot be copied.
    """
    # PyTorch copies leaves only; what was computed is copied without its history.
    computed = [t for module in model.modules() for t in _tensors(vars(module)) if not t.is_leaf]
    memo: dict[int, object] = {id(t): t.detach().clone() for t in computed}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"this {type(model).__name__} can't be copied, and the original is never changed: {error}. Take what "
            "copy.deepcopy refuses (open files, locks, loggers) out of the model first"
        ) from error


def _tensors(value: object, depth: int = 4) -> Iterator[Tensor]:
    """Find the tensors in what a module holds, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part, depth - 1)


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a layer in the place of another, wherever the model holds it, and return the model."""
    if old is model:
        return new
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new
    return model


def _why_not(module: nn.Module, owners: Mapping[int, set[str]]) -> str | None:
    """Return why a module is left alone: "" where there is nothing to say, None if it can be compressed."""
    kernels = [p for p in module.parameters(recurse=False) if p.ndim > 1 or isinstance(p, nn.UninitializedParameter)]
    if isinstance(module, nn.modules.conv._ConvNd):
        try:
            plain_convolution(module)
        except TypeError as error:
            return str(error)
        kernels = kernels or [p for p in module.parameters() if p.ndim > 1]
    elif type(module) is not nn.Linear:
        if not kernels or isinstance(module, nn.ParameterDict | nn.ParameterList | TensorizedConv):
            return ""
        return f"{type(module).__name__} is none of the layers that can be compressed"
    elif has_forward_hooks(module):
        return "has forward hooks, which would be lost"
    elif "weight" not in module._parameters:
        return "its weight is computed by a hook"
    if any(len(owners[id(kernel)]) > 1 for kernel in kernels):
        return "shares its weight with another module"
    if not all(kernel.is_floating_point() for kernel in kernels):
        return f"its weight is {kernels[0].dtype}"
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
