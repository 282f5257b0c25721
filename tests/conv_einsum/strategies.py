"""Hypothesis strategies for conv-einsum: valid problems, optimizers, pairwise paths."""

from hypothesis import strategies as st

from tests.conv_einsum.paths import random_path
from tests.conv_einsum.random_problems import Problem, random_problem

# Every draw goes through Hypothesis, so that a failing problem shrinks.
_randoms = st.randoms(use_true_random=False)

OPTIMIZERS = st.sampled_from([False, "auto", "optimal", "dp", "greedy", "branch-2", "random-greedy"])


def problems(
    *, convolved: bool = False, ellipsis: bool = True, largest_grid: int = 5_000
) -> st.SearchStrategy[Problem]:
    """Valid problems; with `convolved` some mode is convolved, without `ellipsis` every mode has a letter."""
    return _randoms.map(lambda random: random_problem(random, largest_grid, convolved=convolved, ellipsis=ellipsis))


@st.composite
def problems_with_paths(draw: st.DrawFn) -> tuple[Problem, list[tuple[int, ...]]]:
    """A problem and one of its pairwise paths."""
    problem = draw(problems())
    return problem, random_path(len(problem.shapes), draw(_randoms))
