"""A tall polynomial factor from its left null space, without a search.

If W = G X with a tall G [O, R, *k], then the row filters q with q * G = 0 are those with q * W = 0. They are
the left null space of a block-Toeplitz matrix of W, and G in turn is what they all annihilate, up to an
invertible R x R matrix (Moulines, Duhamel, Cardoso, Mayrargue 1995). With noise, smallest eigenvectors take
the place of null vectors.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import FourierGrid, Size, unfold_gram
from tt_conv.conv_tt.fit.train import Target
from tt_conv.conv_tt.fit.variable_projection import FrameGroup, VariableProjection
from tt_conv.conv_tt.tensor import level_spans

# Rows of the largest block-Toeplitz and Sylvester matrices.
ROWS, DIVISOR_ROWS = 2400, 600


def left_factor(grid: FourierGrid, spectrum: Tensor, rank: int, size: Size) -> Tensor | None:
    """The factor G of W = G X, as far as it is taller than wide.

    Parameters
    ----------
    grid : FourierGrid
    spectrum : Tensor [F, O, columns]
        Scaled spectrum of W.
    rank : int
        Columns R of G.
    size : tuple of int
        Kernel size of G.

    Returns
    -------
    Tensor [taps, O, R] or None
        With orthonormal columns; None if no filter of a manageable length can annihilate G.
    """
    rows = spectrum.shape[1]
    filter_size = _filter_size(grid.size, rows, rank, size)
    if filter_size is None:
        return None
    null = rows * math.prod(filter_size) - rank * _product_entries(filter_size, size)
    filters = torch.linalg.eigh(_toeplitz_gram(grid, spectrum, filter_size))[1][:, :null]
    filters = filters.T.unflatten(1, (-1, rows)).permute(1, 0, 2)
    spectra = grid.spectrum(filters, filter_size) * grid.scale[:, None, None]
    products = unfold_gram(grid.gram((spectra.mH @ spectra)[None], size, size)[0])
    return torch.linalg.eigh(products)[1][:, :rank].unflatten(0, (-1, rows))


def left_factor_error(grid: FourierGrid, spectrum: Tensor, rank: int, size: Size) -> float:
    """A lower bound of the squared error of every W = G X with such a G; 0 if there is nothing to say.

    Parameters
    ----------
    grid, spectrum, rank, size
        As in `left_factor`.

    Returns
    -------
    float
        The block-Toeplitz matrix of G X has a bounded rank, and holds every entry of W as often as the filter
        has taps.
    """
    rows = spectrum.shape[1]
    filter_size = _filter_size(grid.size, rows, rank, size)
    if filter_size is None:
        return 0.0
    null = rows * math.prod(filter_size) - rank * _product_entries(filter_size, size)
    eigenvalues = torch.linalg.eigvalsh(_toeplitz_gram(grid, spectrum, filter_size))
    return max(0.0, float(eigenvalues[:null].sum())) / math.prod(filter_size)


def left_divisor(kernels: list[tuple[Tensor, Size]], rank: int, size: Size) -> Tensor | None:
    """The factor G of W = G X, square or tall, from the combinations of W's columns (its Sylvester matrix).

    With enough columns, the shifts of W's columns span, within a large enough window, the same space as those
    of G's columns; G is what all functionals that vanish on it annihilate.

    Parameters
    ----------
    kernels : list of (Tensor [taps, rows, columns], tuple of int)
        Parts of W with their kernel sizes.
    rank : int
        Columns R of G.
    size : tuple of int
        Kernel size of G.

    Returns
    -------
    Tensor [taps, rows, R] or None
        With orthonormal columns; None if W has too few columns for a window of manageable size.
    """
    rows = kernels[0][0].shape[1]
    window = _window_size(kernels, rank, size)
    if window is None:
        return None
    spanned = rank * math.prod(n - k + 1 for n, k in zip(window, size, strict=True))
    shifted = torch.cat([_shifts(kernel.unflatten(0, taps), window) for kernel, taps in kernels], 1)
    functionals = torch.linalg.eigh(shifted @ shifted.T)[1][:, : len(shifted) - spanned]
    parts = _all_parts(functionals.T.reshape(-1, *window, rows), size)
    return torch.linalg.eigh(parts.T @ parts)[1][:, :rank].unflatten(0, (-1, rows))


def _window_size(kernels: list[tuple[Tensor, Size]], rank: int, size: Size) -> Size | None:
    """The smallest window in which the kernels have enough shifts."""
    largest = tuple(max(axis) for axis in zip(*(taps for _, taps in kernels), strict=True))
    rows, columns = kernels[0][0].shape[1], sum(kernel.shape[2] for kernel, _ in kernels)
    for extra in range(DIVISOR_ROWS):
        window = tuple(n + extra for n in largest)
        entries = rows * math.prod(window)
        spanned = rank * math.prod(n - k + 1 for n, k in zip(window, size, strict=True))
        if entries > DIVISOR_ROWS or spanned >= entries:
            return None
        shifts = sum(
            kernel.shape[2] * math.prod(n - k + 1 for n, k in zip(window, taps, strict=True))
            for kernel, taps in kernels
        )
        if shifts >= spanned + columns:
            return window
    return None


def _shifts(kernel: Tensor, window: Size) -> Tensor:
    """All shifts of a kernel [*K, rows, columns] within a window, [(position, row), (shift, column)]."""
    placed = []
    spare = [n - k for n, k in zip(window, kernel.shape, strict=False)]
    for shift in itertools.product(*(range(n + 1) for n in spare)):
        margins = [(s, n - s) for s, n in zip(shift, spare, strict=True)]
        placed.append(F.pad(kernel, [0, 0, 0, 0, *(m for pair in reversed(margins) for m in pair)]))
    return torch.stack(placed, -2).flatten(-2).flatten(0, -2)


def _all_parts(functionals: Tensor, size: Size) -> Tensor:
    """All parts of a size of functionals [count, *window, rows], [(count, shift), (tap, row)]."""
    parts = []
    for shift in itertools.product(*(range(n - k + 1) for n, k in zip(functionals.shape[1:], size, strict=False))):
        cut = tuple(slice(s, s + k) for s, k in zip(shift, size, strict=True))
        parts.append(functionals[(slice(None), *cut)].flatten(1))
    return torch.cat(parts)


def core_guess(target: Target, level: int, cores: list[Tensor]) -> Tensor | None:
    """One core from the later ones, if those are right.

    Parameters
    ----------
    target : Target
    level : int
    cores : list of Tensor [1, taps, R_{m+1}, R_m]
        Those after `level`.

    Returns
    -------
    Tensor [taps, R_{m+1}, R_m] or None
    """
    train, grid = target.train, target.grid
    size, rank = train.core_sizes[level], train.rank[level]
    # The frames that no later level sees have this core as a left factor, behind the later ones.
    frames = [j for j in range(train.steps) if max(train.levels_of(j)) <= level]
    if not frames:
        return None
    if not cores:
        tall = left_factor(grid, torch.cat([target.spectrum[j] for j in frames], 2), rank, size)
        if tall is not None:
            return tall
    later = list(train.core_sizes[level + 1 :])
    spans = level_spans(train.projection_sizes[: level + 1], train.core_sizes[: level + 1])
    kernels = []
    for frame in frames:
        span = tuple(max(axis) for axis in zip(*(spans[m] for m in train.levels_of(frame)), strict=True))
        spectrum = target.spectrum[frame]
        behind = grid.adjoint(grid.scale[:, None, None] * spectrum, span)
        kernels.append((_kernel_behind(grid, spectrum, cores, later, span) if cores else behind, span))
    return left_divisor(kernels, rank, size)


def from_the_divisors(target: Target) -> list[Tensor] | None:
    """Cores [taps, R_{m+1}, R_m] by linear algebra only, each a left divisor of what the later ones leave.

    Returns
    -------
    list of Tensor or None
        None if there are too few frames or channels for one of them.
    """
    cores: list[Tensor] = []
    for level in reversed(range(target.train.order)):
        guess = core_guess(target, level, cores)
        if guess is None:
            return None
        cores.insert(0, guess[None])
    return [core[0] for core in cores]


def from_the_sides(target: Target) -> list[Tensor] | None:
    """Cores [taps, R_{m+1}, R_m] by linear algebra only, where the shapes allow it.

    G_M is a left factor of all frames, P_m a right factor of frame m if no other level sees that frame. Then
    the product C_m of the cores follows from P_m and frame m, and G_m from C_m and C_{m+1}, by least squares.

    Returns
    -------
    list of Tensor or None
        None if a window has more than one frame, or a core or projection is not taller than wide.
    """
    train, grid = target.train, target.grid
    if train.order > 1 and any(len(frames) > 1 for frames in train.windows):
        return None
    last = left_factor(grid, torch.cat(list(target.spectrum), 2), train.rank[-1], train.core_sizes[-1])
    if last is None:
        return None
    cores = [last[None]]
    for level in reversed(range(train.order - 1)):
        # The transpose of real kernels transposes their spectra.
        frame = target.spectrum[train.windows[level].start].mT
        right = left_factor(grid, frame, train.rank[level], train.projection_sizes[level])
        if right is None:
            return None
        span = tuple(1 + sum(k - 1 for k in axis) for axis in zip(*train.core_sizes[level:], strict=True))
        product = _kernel_behind(grid, frame, [right[None]], [train.projection_sizes[level]], span)
        chain = grid.spectrum(product, span).mT * grid.scale[:, None, None]
        cores.insert(
            0, _kernel_behind(grid, chain, cores, list(train.core_sizes[level + 1 :]), train.core_sizes[level])[None]
        )
    return [core[0] for core in cores]


def _kernel_behind(grid: FourierGrid, target: Tensor, cores: list[Tensor], sizes: list[Size], size: Size) -> Tensor:
    """The kernel [taps, rows, columns] behind the cores that fits a target [F, outputs, columns] best."""
    problem = VariableProjection(grid, [FrameGroup(target, ((0, size),), (0,))], sizes)
    return problem.fit(cores).frames[0].projections[0][0]


def _toeplitz_gram(grid: FourierGrid, spectrum: Tensor, filter_size: Size) -> Tensor:
    """Products of the rows of the block-Toeplitz matrix, [(tap, O), (tap, O)]."""
    outer = (spectrum @ spectrum.mH).conj()
    return unfold_gram(grid.gram(outer[None], filter_size, filter_size)[0])


def _filter_size(grid_size: Size, rows: int, rank: int, size: Size) -> Size | None:
    """The smallest odd filters with a null space large enough to determine G."""
    for taps in range(1, max(grid_size) + 1, 2):
        filter_size = tuple(min(taps, n - k + 1) for n, k in zip(grid_size, size, strict=True))
        entries = rows * math.prod(filter_size)
        if entries > ROWS:
            return None
        products = _product_entries(filter_size, size)
        # As many equations for one column of G as it has entries, up to the R solutions.
        if (entries - rank * products) * products >= rows * math.prod(size) - rank:
            return filter_size
    return None


def _product_entries(one: Size, other: Size) -> int:
    return math.prod(a + b - 1 for a, b in zip(one, other, strict=True))
