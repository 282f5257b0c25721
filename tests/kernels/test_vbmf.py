"""The analytic EVBMF solution against planted ranks and against its free energy minimised by iteration."""

import math

import pytest
import torch

from tt_conv.kernels.vbmf import evbmf_rank, evbmf_threshold


def planted(rows: int, columns: int, rank: int, noise: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in (rows, columns))
    return left @ right.T + noise * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0])
@pytest.mark.parametrize(
    ("rows", "columns", "rank"), [(40, 90, 1), (64, 64, 8), (64, 576, 15), (300, 200, 15), (12, 400, 3)]
)
def test_recovers_a_planted_rank(rows: int, columns: int, rank: int, noise: float, seed: int) -> None:
    matrix = planted(rows, columns, rank, noise, seed)
    assert evbmf_rank(torch.linalg.svdvals(matrix), rows, columns) == rank
    assert evbmf_rank(torch.linalg.svdvals(1e-9 * matrix.T), columns, rows) == rank


def test_finds_nothing_in_noise_and_zeros() -> None:
    noise = planted(60, 90, 0, 1.0, seed=0)
    assert evbmf_rank(torch.linalg.svdvals(noise), 60, 90) == 0
    assert evbmf_rank(torch.zeros(5), 5, 9) == 0
    assert evbmf_rank(torch.ones(1), 1, 9) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_low_rank_is_found_above_rounding(dtype: torch.dtype) -> None:
    values = torch.linalg.svdvals(planted(40, 60, 4, 0.0, seed=1).to(dtype))
    assert evbmf_rank(values, 40, 60) == 4


def component_free_energy(gamma: float, smaller: int, larger: int) -> float:
    """Minimise by coordinate descent the free energy of one component at noise variance 1.

    Equation (19) of Nakajima et al. 2013 for one singular value; an absent component has energy 0.
    """
    a = b = math.sqrt(gamma)
    var_a = var_b = prior_a = prior_b = 1.0
    for _ in range(20000):
        var_a = 1 / (b * b + smaller * var_b + 1 / prior_a)
        a = gamma * b * var_a
        var_b = 1 / (a * a + larger * var_a + 1 / prior_b)
        b = gamma * a * var_b
        prior_a = (a * a + larger * var_a) / larger
        prior_b = (b * b + smaller * var_b) / smaller
    second_a, second_b = a * a + larger * var_a, b * b + smaller * var_b
    return (
        larger * math.log(prior_a / var_a)
        + smaller * math.log(prior_b / var_b)
        + second_a / prior_a
        + second_b / prior_b
        - (smaller + larger)
        - 2 * a * b * gamma
        + second_a * second_b
    )


@pytest.mark.parametrize(("smaller", "larger"), [(10, 10), (10, 40), (5, 200)])
def test_threshold_is_where_the_free_energy_changes_sign(smaller: int, larger: int) -> None:
    threshold = math.sqrt(larger * evbmf_threshold(smaller / larger))
    assert component_free_energy(1.002 * threshold, smaller, larger) < 0
    assert component_free_energy(0.998 * threshold, smaller, larger) > 0


def test_refuses_a_wrong_number_of_singular_values() -> None:
    with pytest.raises(ValueError, match="4 x 9 matrix has 4 singular values"):
        evbmf_rank(torch.ones(9), 4, 9)
