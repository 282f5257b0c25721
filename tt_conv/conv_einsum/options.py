"""Stride, padding, dilation and padding mode, as given -> checked and hashable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.parse import Equation

PADDING_NAMES = ("valid", "same", "full")
_LARGEST = 2**31 - 1
"""PyTorch's convolutions take no larger stride, padding or dilation."""

PADDING_MODES = ("zeros", "circular")

Padding = int | str | tuple[int, int]
"""Padding of one mode: an int for both sides, a name, or (left, right)."""

ByMode = tuple[tuple[str, Padding], ...]
"""A dict by mode, as a hashable tuple of its items."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the convolved modes are convolved; every field is one value or the items of a dict by mode."""

    stride: int | ByMode = 1
    padding: int | str | ByMode = 0
    dilation: int | ByMode = 1
    padding_mode: str = "zeros"

    def of(self, name: str, mode: str) -> Padding:
        """Return the option ``name`` for one mode."""
        value = getattr(self, name)
        if isinstance(value, tuple):
            return dict(value).get(mode, 0 if name == "padding" else 1)
        return value


DEFAULTS = Options()


def checked_options(text: str, stride: object, padding: object, dilation: object, padding_mode: object) -> Options:
    """Return the options in their hashable form.

    Raises
    ------
    ConvEinsumError
        For a value of the wrong type or out of range. Whether the modes exist is checked by
        :func:`check_modes`.
    """
    if not isinstance(text, str):
        raise ConvEinsumError(f"the equation must be a string, got {type(text).__name__}", "?")
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        raise ConvEinsumError(f"padding_mode must be 'zeros' or 'circular', got {padding_mode!r}", text)
    if isinstance(padding, Mapping):
        frozen_padding: object = tuple((mode, _padding(text, p, mode)) for mode, p in padding.items())
    elif isinstance(padding, Sequence) and not isinstance(padding, str):
        raise ConvEinsumError(
            f"padding {padding!r}: a (left, right) pair belongs to one mode; write {{mode: (left, right)}}",
            text,
        )
    else:
        frozen_padding = _padding(text, padding, None)
    return Options(
        _step(text, "stride", stride),
        frozen_padding,  # type: ignore[arg-type]
        _step(text, "dilation", dilation),
        padding_mode,
    )


def check_modes(equation: Equation, options: Options) -> None:
    """Refuse options for modes that are not convolved, since they would have to be ignored."""
    for name in ("stride", "padding", "dilation"):
        value = getattr(options, name)
        if isinstance(value, tuple):
            for mode, _ in value:
                if mode not in equation.convolved:
                    raise ConvEinsumError(f"{name} names the mode {mode!r}, which is not convolved", equation.text)
        elif not equation.convolved and value not in (getattr(DEFAULTS, name), "valid"):
            raise ConvEinsumError(f"{name} is {value!r}, but the equation convolves no mode", equation.text)
    if options.padding_mode != DEFAULTS.padding_mode and not equation.convolved:
        raise ConvEinsumError(
            f"padding_mode is {options.padding_mode!r}, but the equation convolves no mode", equation.text
        )


def is_int(value: object) -> bool:
    """Say whether ``value`` is an integer; a bool is not meant as one."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _step(text: str, name: str, value: object) -> int | ByMode:
    """Check a stride or dilation: an int of at least 1, or a dict of them."""
    if isinstance(value, Mapping):
        return tuple((mode, _positive(text, f"{name} of mode {mode!r}", v)) for mode, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        raise ConvEinsumError(
            f"{name} must be one int for all convolved modes, or a dict by mode such as {{'h': 2, 'w': 1}}; "
            f"got {value!r}",
            text,
        )
    return _positive(text, name, value)


def _positive(text: str, what: str, value: object) -> int:
    if is_int(value) and value > _LARGEST:  # type: ignore[operator]
        raise ConvEinsumError(f"{what} must be at most {_LARGEST}, got {value!r}", text)
    if not is_int(value) or value < 1:  # type: ignore[operator]
        raise ConvEinsumError(f"{what} must be an int of at least 1, got {value!r}", text)
    return int(value)  # type: ignore[call-overload]


def _padding(text: str, value: object, mode: str | None) -> Padding:
    """Check the padding of one mode, or of all when ``mode`` is None."""
    amounts: Sequence[Any] = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if any(is_int(amount) and amount > _LARGEST for amount in amounts):
        raise ConvEinsumError(f"padding must be at most {_LARGEST}, got {value!r}", text)
    if isinstance(value, str) and value in PADDING_NAMES:
        return value
    if is_int(value) and value >= 0:  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload]
    if mode is not None and isinstance(value, Sequence) and not isinstance(value, str):
        sides = tuple(value)
        if len(sides) == 2 and all(is_int(side) and side >= 0 for side in sides):
            return int(sides[0]), int(sides[1])
    what = "padding" if mode is None else f"padding of mode {mode!r}"
    pair = "" if mode is None else ", a pair (left, right) of them"
    raise ConvEinsumError(
        f"{what} must be an int of at least 0{pair}, or one of 'valid', 'same', 'full'; got {value!r}", text
    )
