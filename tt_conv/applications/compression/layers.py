"""Which layers of a network can be compressed, and what may take their place."""

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from tt_conv.applications.compression.holders import find, past_the_tree
from tt_conv.kernels.convolution import PlainConvolution, plain_convolution
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.layers import ConvTTLSTMCell
from tt_conv.runtime.modes import has_forward_hooks

Layer = PlainConvolution | nn.Linear
"""What can be compressed."""

NOT_REGISTERED = (
    "no part of the model to PyTorch (not in its parameters, nor in its state dict): hold it in an nn.ModuleList, an "
    "nn.ModuleDict or an attribute"
)


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
    elsewhere = past_the_tree(model)
    found: dict[str, Layer] = {}
    left_out: dict[str, str] = {}
    for name, module in model.named_modules():
        reason = _why_not(module, owners)
        places = [place for p in module.parameters() for place in elsewhere.get(id(p), ())]
        if reason is None and places:
            reason = f"its weights are held by themselves as well, in {places[0]}, where no other format can take over"
        if id(module) in taken:
            reason = "belongs to a ConvTT-LSTM, which is factorized already"
        if reason is None and isinstance(module, Layer):
            found[name] = module
        elif reason:
            left_out[name] = reason
    everything = [*found, *left_out]
    hidden = _outside(model)
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
    left_out |= dict.fromkeys(hidden, NOT_REGISTERED)
    return layers


def _outside(model: nn.Module) -> list[str]:
    """Return where layers are held that the tree of modules does not have, and no state dict."""
    inside = {id(module) for module in model.modules()}
    return sorted({place for place, _ in find(model, lambda part: isinstance(part, Layer) and id(part) not in inside)})


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
