"""What must hold for every valid conv-einsum."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.conv_einsum.random_problems import Problem
from tests.conv_einsum.strategies import OPTIMIZERS, problems, problems_with_paths
from tests.oracle.conv_einsum import conv_einsum as oracle
from tests.oracle.conv_einsum import geometry, output_shape, parse
from tests.oracle.conv_einsum_validity import judge
from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path

hypothesis_settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def run(problem: Problem, *operands, **extra):
    return conv_einsum(problem.equation, *operands, **{**problem.options, **extra})


def test_the_problems_are_varied():
    """The properties below say something only if the problems reach every corner."""
    from random import Random

    from tests.conv_einsum.random_problems import random_problem

    drawn = [random_problem(Random(seed)) for seed in range(500)]
    roles = [geometry(parse(p.equation, list(map(len, p.shapes))), p.shapes) for p in drawn]
    assert {len(p.convolved) for p in drawn} == {0, 1, 2, 3, 4}
    assert {len(p.shapes) for p in drawn} == {1, 2, 3, 4, 5}
    assert {len(mode.kernels) for modes in roles for mode in modes.values()} == {1, 2, 3}
    assert sum(len({mode.feature for mode in modes.values()}) > 1 for modes in roles) > 20
    assert sum("..." in p.equation for p in drawn) > 20
    assert sum(p.options.get("padding_mode") == "circular" for p in drawn) > 50


@hypothesis_settings
@given(problems(), OPTIMIZERS)
def test_every_optimizer_is_the_formula(problem, optimize):
    operands = [operand.requires_grad_() for operand in problem.operands()]
    expected = oracle(problem.equation, *operands, **problem.options)
    actual = run(problem, *operands, optimize=optimize)
    close(actual, expected)
    weight = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad(expected, operands, weight)
    for gradient, other in zip(torch.autograd.grad(actual, operands, weight), wanted, strict=True):
        close(gradient, other)


@hypothesis_settings
@given(problems_with_paths())
def test_every_path_is_the_formula(problem_and_path):
    problem, path = problem_and_path
    operands = [operand.requires_grad_() for operand in problem.operands()]
    expected = oracle(problem.equation, *operands, **problem.options)
    actual = run(problem, *operands, optimize=path)
    close(actual, expected)
    weight = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad(expected, operands, weight)
    for gradient, other in zip(torch.autograd.grad(actual, operands, weight), wanted, strict=True):
        close(gradient, other)


@hypothesis_settings
@given(problems(), st.data())
def test_linear_in_each_operand(problem, data):
    operands = problem.operands()
    number = data.draw(st.integers(0, len(operands) - 1))
    other = list(operands)
    other[number] = problem.operands(seed=1)[number]
    both = list(operands)
    both[number] = 2 * operands[number] - 3 * other[number]
    close(run(problem, *both), 2 * run(problem, *operands) - 3 * run(problem, *other))


@hypothesis_settings
@given(problems(), st.data())
def test_kernels_may_change_places(problem, data):
    """Any order of the operands that keeps each mode's feature first has the same meaning."""
    order = data.draw(st.permutations(range(len(problem.shapes))))
    terms = [problem.terms[i] for i in order]
    for mode in problem.convolved:
        first = next(i for i, term in enumerate(problem.terms) if mode in term)
        assume(order[next(i for i, term in enumerate(terms) if mode in term)] == first)
    operands = problem.operands()
    equation = ",".join(terms) + "->" + problem.equation.partition("->")[2]
    close(
        conv_einsum(equation, *(operands[i] for i in order), **problem.options),
        run(problem, *operands),
    )


@hypothesis_settings
@given(problems(ellipsis=False), st.data())
def test_the_order_of_dimensions_is_free(problem, data):
    operands = problem.operands()
    number = data.draw(st.integers(0, len(operands) - 1))
    order = data.draw(st.permutations(range(operands[number].dim())))
    terms = list(problem.terms)
    terms[number] = "".join(terms[number][i] for i in order)
    moved = list(operands)
    moved[number] = operands[number].permute(order)
    equation = ",".join(terms) + "->" + problem.equation.partition("->")[2]
    close(conv_einsum(equation, *moved, **problem.options), run(problem, *operands))


@hypothesis_settings
@given(problems())
def test_names_of_modes_do_not_matter(problem):
    renamed = problem.equation.swapcase()
    options = {
        name: {mode.swapcase(): value for mode, value in option.items()} if isinstance(option, dict) else option
        for name, option in problem.options.items()
    }
    operands = problem.operands()
    close(conv_einsum(renamed, *operands, **options), run(problem, *operands))


@hypothesis_settings
@given(problems(convolved=True, ellipsis=False), st.data())
def test_padding_is_zeros_around_the_feature(problem, data):
    left, right = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
    mode = data.draw(st.sampled_from(problem.convolved))
    options = {name: option for name, option in problem.options.items() if "padding" not in name}
    padded = {**options, "padding": {mode: (left, right)}}
    assume(judge(problem.equation, problem.shapes, **padded).valid)  # not so where other modes need padding
    operands = problem.operands()
    expected = conv_einsum(problem.equation, *operands, **padded)
    number = next(i for i, term in enumerate(problem.terms) if mode in term)
    dimension = problem.terms[number].index(mode)
    pads = [0, 0] * (operands[number].dim() - 1 - dimension) + [left, right]
    operands[number] = torch.nn.functional.pad(operands[number], pads)
    close(conv_einsum(problem.equation, *operands, **options), expected)


@hypothesis_settings
@given(problems(convolved=True), st.integers(2, 3))
def test_a_stride_keeps_every_nth_output(problem, stride):
    options = {name: option for name, option in problem.options.items() if name != "stride"}
    assume("same" not in str(options.get("padding")))
    operands = problem.operands()
    dense = conv_einsum(problem.equation, *operands, **options)
    every = tuple(
        slice(None, None, stride if mode in problem.convolved else None) for mode in problem.output.strip(".")
    )
    close(conv_einsum(problem.equation, *operands, stride=stride, **options), dense[(..., *every)])


@hypothesis_settings
@given(problems(convolved=True), st.integers(-9, 9))
def test_circular_convolutions_commute_with_rolling(problem, shift):
    options = {**problem.options, "padding": "same", "padding_mode": "circular"}
    options.pop("stride", None)
    operands = problem.operands()
    mode = problem.convolved[0]
    number = next(i for i, term in enumerate(problem.terms) if mode in term)
    rolled = list(operands)
    dimension = problem.terms[number].replace("...", "").index(mode) - len(problem.terms[number].replace("...", ""))
    rolled[number] = operands[number].roll(shift, dimension)
    output = problem.output.replace("...", "")
    expected = conv_einsum(problem.equation, *operands, **options).roll(shift, output.index(mode) - len(output))
    close(conv_einsum(problem.equation, *rolled, **options), expected)


@hypothesis_settings
@given(problems(), st.data())
def test_constants_change_nothing(problem, data):
    constants = sorted(data.draw(st.sets(st.integers(0, len(problem.shapes) - 1))))
    operands = problem.operands()
    given_ = [operand if i in constants else operand.shape for i, operand in enumerate(operands)]
    expression = conv_einsum_expression(problem.equation, *given_, constants=constants, **problem.options)
    variables = [operand for i, operand in enumerate(operands) if i not in constants]
    close(expression(*variables), oracle(problem.equation, *operands, **problem.options))


@hypothesis_settings
@given(problems())
def test_meta_tensors_give_the_shape(problem):
    operands = [torch.empty(shape, device="meta") for shape in problem.shapes]
    assert run(problem, *operands).shape == output_shape(problem.equation, problem.shapes, **problem.options)


@hypothesis_settings
@given(problems(), st.booleans())
def test_reported_paths_run_and_cost_no_more_than_left_to_right(problem, train):
    path, info = conv_einsum_path(
        problem.equation, *problem.shapes, shapes=True, optimize="optimal", train=train, **problem.options
    )
    operands = problem.operands()
    close(run(problem, *operands, optimize=path), oracle(problem.equation, *operands, **problem.options))
    if not train:
        assert info.opt_cost <= info.naive_cost


@pytest.mark.parametrize("seed", range(5))
def test_a_feature_in_the_middle_of_a_path(seed):
    """A product that contains the feature is the feature, wherever a path puts it."""
    generator = torch.Generator().manual_seed(seed)
    x, a, b, c = (torch.randn(n, dtype=torch.float64, generator=generator) for n in (9, 2, 3, 2))
    expected = oracle("h,h,h,h->h|h", x, a, b, c, padding=1, stride=2)
    for path in (
        [(0, 1), (0, 1), (0, 1)],
        [(0, 1), (1, 2), (0, 1)],
        [(2, 3), (0, 2), (1, 0)],
        [(3, 0), (2, 1), (0, 1)],
    ):
        close(conv_einsum("h,h,h,h->h|h", x, a, b, c, padding=1, stride=2, optimize=path), expected)
