"""Kernels as values at spatial frequencies, where the convolution of kernels is a product of matrices."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

Size = tuple[int, ...]


def centred_taps(kernel_size: Size) -> list[tuple[int, ...]]:
    """Positions of a kernel's entries relative to its centre, in the order in which they are stored."""
    return list(itertools.product(*(range(-(k // 2), k // 2 + 1) for k in kernel_size)))


class FourierGrid:
    """The discrete Fourier transform of centred real kernels on one grid of odd sizes.

    The grid is as large as the dense kernel, so products of spectra are full convolutions without wrapping
    around. A real kernel's spectrum is known from one of each pair of opposite frequencies; ``scale`` counts
    the pair, so that the sum of ``(scale * abs(spectrum))**2`` is the squared norm of the kernel.

    Kernels are stored as [..., taps, rows, columns], spectra as [..., F, rows, columns].

    Parameters
    ----------
    size : tuple of int
        Odd size of the grid along each spatial axis.
    device : torch.device
        Where the tables live.
    """

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = size
        self.device = device
        half, multiplicity, seen = [], [], set()
        for frequency in itertools.product(*(range(n) for n in size)):
            opposite = tuple(-f % n for f, n in zip(frequency, size, strict=True))
            if opposite not in seen:
                seen.add(frequency)
                half.append(frequency)
                multiplicity.append(1.0 if frequency == opposite else 2.0)
        self._angles = (2 * math.pi) * self._table(half) / self._table([size])
        self.scale = (self._table([multiplicity])[0] / math.prod(size)).sqrt()
        self._waves: dict[Size, tuple[Tensor, Tensor]] = {}
        self._differences: dict[tuple[Size, Size], tuple[Size, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.scale)

    def spectrum(self, kernel: Tensor, kernel_size: Size) -> Tensor:
        """Values of the kernels [..., taps, rows, columns] at the frequencies, [..., F, rows, columns]."""
        cosine, sine = self.waves(kernel_size)
        flat = kernel.flatten(-2)
        return torch.complex(cosine @ flat, sine @ flat).unflatten(-1, kernel.shape[-2:])

    def adjoint(self, spectrum: Tensor, kernel_size: Size) -> Tensor:
        """The real adjoint of `spectrum`: [..., F, rows, columns] to [..., taps, rows, columns]."""
        cosine, sine = self.waves(kernel_size)
        flat = spectrum.flatten(-2)
        return (cosine.T @ flat.real + sine.T @ flat.imag).unflatten(-1, spectrum.shape[-2:])

    def gram(self, spectrum: Tensor, left: Size, right: Size) -> Tensor:
        """Inner products of all pairs of taps, weighted by a spectrum.

        Parameters
        ----------
        spectrum : Tensor [batch, F, ...]
            The weights, that is, the product of whatever else stands in the inner product.
        left, right : tuple of int
            Kernel sizes whose taps are paired.

        Returns
        -------
        Tensor [batch, left taps, right taps, ...]
            Real part of the sum over frequencies of conj(left wave) * right wave * spectrum. It depends on
            the difference of the taps only, so that few values are computed and then copied.
        """
        if (left, right) not in self._differences:
            self._differences[left, right] = self._difference_table(left, right)
        size, index = self._differences[left, right]
        cosine, sine = self.waves(size)
        flat = spectrum.flatten(2)
        values = cosine.T @ flat.real - sine.T @ flat.imag
        return values[:, index].unflatten(-1, spectrum.shape[2:])

    def waves(self, kernel_size: Size) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of exp(-i frequency . tap), each [F, taps]."""
        if kernel_size not in self._waves:
            phase = -self._angles @ self._table(centred_taps(kernel_size)).T
            self._waves[kernel_size] = (phase.cos(), phase.sin())
        return self._waves[kernel_size]

    def _difference_table(self, left: Size, right: Size) -> tuple[Size, Tensor]:
        size = tuple(a + b - 1 for a, b in zip(left, right, strict=True))
        position = {tap: n for n, tap in enumerate(centred_taps(size))}
        index = [
            [position[tuple(b - a for a, b in zip(one, other, strict=True))] for other in centred_taps(right)]
            for one in centred_taps(left)
        ]
        return size, torch.tensor(index, device=self.device)

    def _table(self, rows: object) -> Tensor:
        return torch.tensor(rows, dtype=torch.float64, device=self.device)


def unfold_gram(gram: Tensor) -> Tensor:
    """Inner products [s, s', r, r'] of taps and channels as a matrix [(s, r), (s', r')]."""
    return gram.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
