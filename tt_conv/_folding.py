"""Expressions with frozen weights folded in, dropped as soon as a weight has changed."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MOST_SHAPES = 64

Expression = Callable[..., Tensor]


@dataclass
class _Witness:
    """A weight as it was.

    The detached alias keeps its memory from being given to another tensor at the same address. Version
    counters miss what goes through ``.data``, through NumPy and through fused optimizers, so where the
    values can be read without waiting for a device they are compared with a copy, as integers for NaN.
    """

    alias: Tensor
    version: int
    values: np.ndarray | None
    copy: np.ndarray | None

    @classmethod
    def of(cls, weight: Tensor) -> "_Witness":
        alias, values = weight.detach(), None
        if weight.device.type == "cpu":
            values = alias.view(_INTEGERS[alias.itemsize]).numpy()
        return cls(alias, weight._version, values, None if values is None else values.copy())

    def confirms(self, weight: Tensor) -> bool:
        return (
            weight.data_ptr() == self.alias.data_ptr()
            and weight._version == self.version
            and weight.dtype == self.alias.dtype
            and weight.device == self.alias.device
            and weight.stride() == self.alias.stride()
            and (self.values is None or bool((self.values == self.copy).all()))
        )


class Expressions:
    """Compiled expressions by input shape: with the weights as operands, and with the weights folded in."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Expression] = {}
        self._folded: dict[Hashable, Expression] = {}
        self._witnesses: list[_Witness] = []

    def __reduce__(self) -> tuple[type["Expressions"], tuple[()]]:
        # Copies and pickles of a module compile and fold again.
        return Expressions, ()

    def forget(self) -> None:
        """Drop what was folded."""
        self._folded.clear()
        self._witnesses = []

    def open(self, key: Hashable, build: Callable[[], Expression]) -> Expression:
        """Return the expression that takes the weights."""
        return _remembered(self._open, key, build)

    def folded(self, weights: Sequence[Tensor], key: Hashable, build: Callable[[], Expression]) -> Expression:
        """Return the expression that holds the weights, built anew if one of them has changed."""
        if len(self._witnesses) != len(weights) or not all(map(_Witness.confirms, self._witnesses, weights)):
            self.forget()
            self._witnesses = [_Witness.of(weight) for weight in weights]
        return _remembered(self._folded, key, build)


def _remembered(
    store: dict[Hashable, Expression], key: Hashable, build: Callable[[], Expression]
) -> Expression:
    if key not in store:
        if len(store) == _MOST_SHAPES:
            store.clear()
        store[key] = build()
    return store[key]


def can_fold(weights: Sequence[Any]) -> bool:
    """Tell whether weights take no gradient now and are ordinary parameters whose changes can be noticed.

    Tensors put in the place of parameters, by ``torch.func.functional_call`` for one, are used as they are.
    """
    frozen = not torch.is_grad_enabled() or not any(weight.requires_grad for weight in weights)
    return frozen and all(
        isinstance(weight, nn.Parameter) and weight.device.type != "meta" and not weight.is_inference()
        for weight in weights
    )
