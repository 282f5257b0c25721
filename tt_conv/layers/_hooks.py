"""Modules whose parts are watched."""

from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def watched(module: nn.Module) -> bool:
    """Say whether a part of a module has hooks, which want to be called."""
    return any(getattr(child, hooks) for child in module.modules() if child is not module for hooks in _HOOKS)
