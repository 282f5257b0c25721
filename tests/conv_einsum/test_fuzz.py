"""2,000 cases of the fuzzer; `tests/fuzz_conv_einsum.py` runs as many as one likes."""

from collections import Counter

import pytest

from tests.fuzz_conv_einsum import draw, failure, kind_of

CASES_PER_TEST = 200


@pytest.mark.parametrize("first", range(0, 2000, CASES_PER_TEST))
def test_fuzz(first):
    wrong = []
    for seed in range(first, first + CASES_PER_TEST):
        case = draw(seed)
        reason = failure(case)
        if reason:
            wrong.append(f"seed {seed}: {case}\n{reason}")
    assert not wrong, "\n".join(wrong)


def test_the_cases_are_of_all_kinds():
    kinds = Counter(kind_of(draw(seed)) for seed in range(2000))
    assert kinds["valid"] > 800
    assert kinds["refused"] > 400
    assert kinds["open"] > 40
