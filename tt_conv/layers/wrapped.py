"""Names of weights that were saved from a wrapped model."""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

V = TypeVar("V")
# In front of all names: of DataParallel, DistributedDataParallel and AveragedModel; of LightningModules that keep the
# network as ``model``.
_IN_FRONT = ("module.", "model.")
# Anywhere, since parts of a model may be wrapped: torch.compile, sharding, checkpoints of activations.
_WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def unwrapped(weights: Mapping[str, V], names: Iterable[str]) -> dict[str, V]:
    """Weights under the names of the bare model.

    Parameters
    ----------
    weights : mapping
        Such as ``{"module._orig_mod.conv.weight": ...}``.
    names : iterable of str
        Those of the model that gets them. As long as none of them is among the weights, what wrappers put is taken
        away, so that a model that has such a name itself keeps it.

    Returns
    -------
    dict

    Examples
    --------
    >>> unwrapped({"model._orig_mod.conv.weight": 1, "model._orig_mod.conv.bias": 2}, ["conv.weight", "conv.bias"])
    {'conv.weight': 1, 'conv.bias': 2}
    """
    known = {*names}
    plain = {_bare(name, known): value for name, value in weights.items()}
    if _COUNTER not in known and len(plain) > 1:
        plain.pop(_COUNTER, None)
    return plain


def _bare(name: str, known: Collection[str]) -> str:
    bare = name
    while bare not in known:
        shorter = bare
        for mark in _WITHIN:
            shorter = shorter.replace(mark, "")
        if shorter == bare:
            shorter = next((bare.removeprefix(prefix) for prefix in _IN_FRONT if bare.startswith(prefix)), bare)
        if shorter == bare:
            break
        bare = shorter
    return bare
