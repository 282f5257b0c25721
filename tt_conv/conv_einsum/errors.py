"""The one exception family of conv-einsum."""


class ConvEinsumError(ValueError):
    """An equation, its operands or its options are wrong; raised before any work is done.

    Parameters
    ----------
    reason : str
        What was given, what was expected, what to do.
    equation : str, optional
        The equation as the caller wrote it.
    place : int, optional
        Index of the character of ``equation`` that the reason is about.

    Examples
    --------
    >>> import torch
    >>> from tt_conv import conv_einsum
    >>> conv_einsum("bihw,oi->bohx|hw", torch.zeros(1, 2, 5, 5), torch.zeros(3, 2))
    Traceback (most recent call last):
    tt_conv.conv_einsum.errors.ConvEinsumError: the output names the mode 'x', which no operand carries
    (equation 'bihw,oi->bohx|hw', character 13: 'x')
    """

    def __init__(self, reason: str, equation: str | None = None, place: int | None = None) -> None:
        # All three go to args, so that the error pickles.
        super().__init__(reason, equation, place)
        self.reason = reason
        self.equation = equation
        self.place = place

    def __str__(self) -> str:
        if self.equation is None:
            return self.reason
        if self.place is None or self.place >= len(self.equation):
            return f"{self.reason} (equation {self.equation!r})"
        character = self.equation[self.place]
        return f"{self.reason} (equation {self.equation!r}, character {self.place + 1}: {character!r})"
