"""Expressions with frozen weights folded in, dropped as soon as a weight has changed."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MOST_SHAPES = 64
_FEW_BYTES = 1 << 14

Expression = Callable[..., Tensor]

_off: ContextVar[bool] = ContextVar("folding_off", default=False)


@contextmanager
def without_folding() -> Iterator[None]:
    """Fold no weights in the block, as for who records operations to run them again on changed weights."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def may_fold() -> bool:
    """Say whether what depends on weights alone may be kept."""
    return not _off.get()


class _Witness:
    """A weight as it was.

    The detached alias keeps its memory from being given to another tensor at the same address. Version
    counters miss what goes through ``.data``, through NumPy and through fused optimizers, so where the
    values can be read without waiting for a device they are compared with a copy, bit by bit.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.alias = weight.detach()
        self.layout = (weight.data_ptr(), weight._version, weight.dtype, weight.stride())
        self.values = None
        if weight.device.type == "cpu":
            # As integers: NumPy lacks some of PyTorch's dtypes, and NaN differs from itself.
            self.values = self.alias.view(_INTEGERS[weight.itemsize]).numpy()
            self.few = self.values.nbytes <= _FEW_BYTES
            self.copy = self.values.tobytes() if self.few else self.values.copy()

    def confirms(self, weight: Tensor) -> bool:
        """Tell whether the weight is the same tensor with the same values."""
        if weight is not self.weight:
            return False
        if (weight.data_ptr(), weight._version, weight.dtype, weight.stride()) != self.layout:
            return False
        if self.values is None:
            return True
        return self.values.tobytes() == self.copy if self.few else bool((self.values == self.copy).all())


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

    def folded(self, weights: Sequence[Tensor], key: Hashable, build: Callable[[], Expression]) -> Expression | None:
        """Return the expression that holds the weights, built anew if one of them has changed.

        ``None`` if changes could not be noticed: tensors in the place of parameters, as
        ``torch.func.functional_call`` puts them there, are used as they are.
        """
        if not may_fold():
            return None
        if not self._witnesses or not all(map(_Witness.confirms, self._witnesses, weights)):
            self.forget()
            if not all(map(_is_ordinary, weights)):
                return None
            self._witnesses = [_Witness(weight) for weight in weights]
        return _remembered(self._folded, key, build)


def _remembered(store: dict[Hashable, Expression], key: Hashable, build: Callable[[], Expression]) -> Expression:
    if key not in store:
        if len(store) == _MOST_SHAPES:
            store.clear()
        store[key] = build()
    return store[key]


def _is_ordinary(weight: Tensor) -> bool:
    return isinstance(weight, nn.Parameter) and weight.device.type != "meta" and not weight.is_inference()
