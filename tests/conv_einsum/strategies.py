"""Hypothesis strategies for conv-einsum: valid problems, optimizers, pairwise paths."""

from hypothesis import strategies as st

from tests.conv_einsum.paths import random_path
from tests.conv_einsum.random_problems import Problem, random_problem

# Every draw goes through Hypothesis, so that a failing problem shrinks.
_randoms = st.randoms(use_true_random=False)

OPTIMIZERS = st.sampled_from([False, "auto", "optimal", "dp", "greedy", "branch-2", "random-greedy"])


def problems(*, convolved: bool = False, largest_grid: int = 10_000) -> st.SearchStrategy[Problem]:
    """Valid problems; with `convolved`, only those that convolve a mode."""
    drawn = _randoms.map(lambda random: random_problem(random, largest_grid))
    return drawn.filter(lambda problem: problem.convolved) if convolved else drawn


@st.composite
def problems_with_paths(draw: st.DrawFn) -> tuple[Problem, list[tuple[int, ...]]]:
    """A problem and one of its pairwise paths."""
    problem = draw(problems())
    return problem, random_path(len(problem.shapes), draw(_randoms))
