"""Modules whose hooks want to see their calls."""

from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_watched(module: nn.Module) -> bool:
    """Say whether a module itself has hooks."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def watched(module: nn.Module) -> bool:
    """Say whether a part of a module has hooks, which want to be called."""
    return any(is_watched(child) for child in module.modules() if child is not module)
