"""The smallest number for which something holds, against trying them all."""

import pytest

from tt_conv.kernels.search import smallest_that


@pytest.mark.parametrize("largest", [1, 2, 3, 7, 8, 20])
def test_it_is_the_first_of_all(largest: int) -> None:
    for threshold in range(1, largest + 3):
        asked: list[int] = []

        def holds(rank: int, threshold: int = threshold, asked: list[int] = asked) -> bool:
            asked.append(rank)
            return rank >= threshold

        expected = next((rank for rank in range(1, largest + 1) if rank >= threshold), None)
        assert smallest_that(holds, largest) == expected
        assert len(asked) == len(set(asked))
        assert all(1 <= rank <= min(largest, 2 * threshold) for rank in asked)
