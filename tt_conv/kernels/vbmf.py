"""The rank of a noisy matrix by empirical variational Bayes matrix factorization (EVBMF)."""

import math

import torch
from torch import Tensor

_GRID = 2000


def evbmf_rank(singular_values: Tensor, rows: int, columns: int) -> int:
    r"""Return how many components of a matrix stand out of white noise of unknown variance.

    The matrix is modelled as :math:`V = B A^\top + E` with Gaussian priors on the columns of A and B, whose
    variances are learned from the data, and noise of variance :math:`\sigma^2`. The global minimum of the
    variational free energy is known analytically. With :math:`L \le M` the two sizes and
    :math:`\alpha = L / M`, component h is kept when its singular value exceeds

    .. math::

        \sigma \sqrt{M (1 + \tau)(1 + \alpha / \tau)}, \qquad
        \Phi(\tau) + \Phi(\tau / \alpha) = 0, \quad \Phi(z) = \frac{\log(1 + z)}{z} - \frac{1}{2},

    and :math:`\sigma^2` minimizes the free energy in one dimension. Because the noise is estimated from the
    components that are left over, the rank is always below L.

    Parameters
    ----------
    singular_values : Tensor
        ``[min(rows, columns)]``, in descending order.
    rows, columns : int
        Sizes of the matrix.

    Returns
    -------
    int
        From 0, nothing but noise, to ``min(rows, columns) - 1``.

    Example
    -------
    >>> generator = torch.Generator().manual_seed(0)
    >>> left, right = (torch.randn(n, 5, generator=generator) for n in (40, 90))
    >>> matrix = left @ right.T + 0.5 * torch.randn(40, 90, generator=generator)
    >>> evbmf_rank(torch.linalg.svdvals(matrix), 40, 90)
    5

    References
    ----------
    .. [1] S. Nakajima, M. Sugiyama, S. D. Babacan, R. Tomioka, "Global analytic solution of fully-observed
       variational Bayesian matrix factorization", Journal of Machine Learning Research 14, 2013.
    .. [2] S. Nakajima, R. Tomioka, M. Sugiyama, S. D. Babacan, "Condition for perfect dimensionality recovery
       by variational Bayesian PCA", Journal of Machine Learning Research 16, 2015.
    """
    smaller, larger = sorted((rows, columns))
    if tuple(singular_values.shape) != (smaller,):
        raise ValueError(
            f"a {rows} x {columns} matrix has {smaller} singular values, got {tuple(singular_values.shape)}"
        )
    energy = singular_values.detach().to("cpu", torch.float64).square() / larger
    if smaller == 1 or not energy[0] > 0:
        return 0
    # Below the rounding error of the decomposition itself the spectrum is neither signal nor white noise.
    rounding = larger * torch.finfo(singular_values.dtype).eps
    energy = (energy / energy[0]).clamp_min(rounding**2)
    threshold = evbmf_threshold(smaller / larger)
    variance = _noise_variance(energy, smaller / larger, threshold)
    return int((energy > threshold * variance).sum())


def matrix_rank(matrix: Tensor) -> int:
    """Return the rank of :func:`evbmf_rank`, but at least 1."""
    return max(1, evbmf_rank(torch.linalg.svdvals(matrix), *matrix.shape))


def evbmf_threshold(ratio: float) -> float:
    """Return the squared singular value, in units of M times the noise variance, from which one is kept.

    ``ratio`` is L / M, at most 1.
    """

    def condition(tau: float) -> float:
        return sum(math.log1p(z) / z - 0.5 for z in (tau, tau / ratio))

    # The condition falls from 1 to -1; its zero lies near 2.5 sqrt(ratio).
    from scipy import optimize  # a dependency of TensorLy; it takes a moment to import

    zero = float(optimize.brentq(condition, 1e-3 * math.sqrt(ratio), 10.0, xtol=1e-15))
    return (1 + zero) * (1 + ratio / zero)


def _noise_variance(energy: Tensor, ratio: float, threshold: float) -> float:
    """Return the variance that minimizes the free energy, found on a grid and refined."""
    smaller = len(energy)
    kept = math.ceil(smaller / (1 + ratio)) - 1
    low = math.log(max(float(energy[kept]) / threshold, float(energy[kept:].mean())))
    high = math.log(float(energy.mean()))
    if not low < high:
        return math.exp(high)
    grid = torch.linspace(low, high, _GRID, dtype=torch.float64)
    best = int(_free_energy(energy, grid, ratio, threshold).argmin())
    from scipy import optimize

    around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])

    def free_energy(log_variance: float) -> float:
        return float(_free_energy(energy, energy.new_tensor([log_variance]), ratio, threshold))

    found = optimize.minimize_scalar(free_energy, bounds=around, method="bounded", options={"xatol": 1e-10})
    return math.exp(float(found.x))


def _free_energy(energy: Tensor, log_variance: Tensor, ratio: float, threshold: float) -> Tensor:
    """Return the free energy, up to constants, of each logarithm of the noise variance."""
    x = energy / log_variance.exp()[:, None]
    noise = x - x.log()
    excess = (x - (1 + ratio)).clamp_min(2 * math.sqrt(ratio))
    tau = (excess + (excess.square() - 4 * ratio).clamp_min(0).sqrt()) / 2
    signal = torch.log1p(tau) + ratio * torch.log1p(tau / ratio) - tau
    return (noise + torch.where(x > threshold, signal, torch.zeros_like(signal))).sum(dim=1)
