"""A linear layer whose matrix is a product of two narrow ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """Computes what ``torch.nn.Linear`` computes with the weight ``output @ input``.

    Parameters
    ----------
    output : Tensor
        ``[out_features, R]``.
    input : Tensor
        ``[R, in_features]``.
    bias : Tensor, optional
        ``[out_features]``.

    Examples
    --------
    >>> layer = LowRankLinear(torch.ones(3, 1), torch.ones(1, 4), None)
    >>> layer(torch.ones(2, 4))
    tensor([[4., 4., 4.],
            [4., 4., 4.]], grad_fn=<MmBackward0>)
    """

    def __init__(self, output: Tensor, input: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.rank = output.shape
        self.in_features = input.shape[1]
        self.output = nn.Parameter(output)
        self.input = nn.Parameter(input)
        self.bias = None if bias is None else nn.Parameter(bias)

    @property
    def weight(self) -> Tensor:
        """The dense matrix, for modules that read it instead of calling the layer."""
        return self.output @ self.input

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features]`` to ``[..., out_features]``."""
        return F.linear(F.linear(x, self.input), self.output, self.bias)

    def macs(self, input_shape: tuple[int, ...]) -> int:
        """Return the multiply-adds for one input."""
        return torch.Size(input_shape[:-1]).numel() * self.rank * (self.in_features + self.out_features)

    def extra_repr(self) -> str:
        """Describe the layer as ``torch.nn.Linear`` does."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"
