"""Values and gradients of every optimizer, of every pairwise path and of expressions, against the oracle."""

import contextlib
from itertools import pairwise, permutations
from random import Random

import opt_einsum
import pytest
import torch

from tests.conv_einsum.cases import (
    CASES,
    CONVOLUTIONS,
    LARGER_NETWORKS,
    NETWORKS,
    PRODUCTS,
    SMALL_NETWORKS,
    assert_agrees,
    case,
    make_operands,
    options_for,
    reference,
)
from tests.conv_einsum.paths import pairwise_paths, random_path
from tests.oracle.conv_einsum import conv_einsum as oracle
from tests.oracle.conv_einsum import output_shape, parse
from tests.oracle.conv_einsum_validity import judge
from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum.errors import ConvEinsumError

OPTIMIZERS = {
    "left to right": lambda: False,
    "auto": lambda: "auto",
    "optimal": lambda: "optimal",
    "dp": lambda: "dp",
    "greedy": lambda: "greedy",
    "eager": lambda: "eager",
    "branch-1": lambda: "branch-1",
    "branch-2": lambda: "branch-2",
    "branch-all": lambda: "branch-all",
    "auto-hq": lambda: "auto-hq",
    "random-greedy": lambda: "random-greedy",
    "a RandomGreedy": lambda: opt_einsum.RandomGreedy(max_repeats=2),
    "a BranchBound": lambda: opt_einsum.BranchBound(nbranch=2),
    "a DynamicProgramming": lambda: opt_einsum.DynamicProgramming(minimize="size"),
}


def usable_options(problem):
    return [option for option in options_for(problem.convolved) if not refused(problem, option)]


def refused(problem, options):
    return judge(problem.equation, problem.shapes, **options).refused


def by_name(problem):
    return f"{problem.name}: {problem.equation}"


def test_the_cases_leave_few_options_out():
    for problem in CASES:
        assert len(usable_options(problem)) >= len(options_for(problem.convolved)) - 2, problem


@pytest.mark.parametrize("problem", PRODUCTS + CONVOLUTIONS, ids=by_name)
def test_default_optimizer(problem):
    for options in usable_options(problem):
        expected = reference(problem.equation, problem.shapes, options)
        assert_agrees(conv_einsum(problem.equation, *expected.operands, **options), expected)


@pytest.mark.parametrize("optimize", OPTIMIZERS)
@pytest.mark.parametrize("problem", NETWORKS + PRODUCTS[:4], ids=by_name)
def test_every_optimizer(problem, optimize):
    # The options are shared out over the optimizers; those that matter most go to all of them.
    options = usable_options(problem)
    number = list(OPTIMIZERS).index(optimize)
    for option in options if optimize in ("left to right", "optimal") else options[number % 3 :: 3]:
        expected = reference(problem.equation, problem.shapes, option)
        value = conv_einsum(problem.equation, *expected.operands, optimize=OPTIMIZERS[optimize](), **option)
        assert_agrees(value, expected)


@pytest.mark.parametrize("problem", [CONVOLUTIONS[1], SMALL_NETWORKS[4], LARGER_NETWORKS[1]], ids=by_name)
def test_the_measured_path(problem):
    options = {"padding": "same"}
    expected = reference(problem.equation, problem.shapes, options)
    for _ in range(2):  # the second call remembers the first one's winner
        assert_agrees(conv_einsum(problem.equation, *expected.operands, optimize="measure", **options), expected)


@pytest.mark.parametrize("problem", SMALL_NETWORKS, ids=by_name)
def test_every_pairwise_path(problem):
    for options in usable_options(problem):
        expected = reference(problem.equation, problem.shapes, options)
        for path in pairwise_paths(len(problem.shapes)):
            value = conv_einsum(problem.equation, *expected.operands, optimize=path, **options)
            try:
                assert_agrees(value, expected)
            except AssertionError as error:
                raise AssertionError(f"path {path} with {options}") from error


@pytest.mark.parametrize("problem", NETWORKS, ids=by_name)
def test_pairs_in_either_order(problem):
    for seed, options in enumerate(usable_options(problem)):
        expected = reference(problem.equation, problem.shapes, options)
        path = random_path(len(problem.shapes), Random(seed))
        value = conv_einsum(problem.equation, *expected.operands, optimize=path, **options)
        try:
            assert_agrees(value, expected)
        except AssertionError as error:
            raise AssertionError(f"path {path} with {options}") from error


@pytest.mark.parametrize("problem", SMALL_NETWORKS, ids=by_name)
def test_operands_in_another_order(problem):
    """The first operand that carries a mode is its feature; so the oracle reads the new order as well."""
    terms, _, result = problem.equation.partition("->")
    terms = terms.split(",")
    for order in list(permutations(range(len(terms))))[1::3]:
        equation = ",".join(terms[i] for i in order) + "->" + result
        shapes = tuple(problem.shapes[i] for i in order)
        options = {"padding": "full", "dilation": 2} if problem.convolved else {}
        expected = reference(equation, shapes, options)
        assert_agrees(conv_einsum(equation, *expected.operands, **options), expected)


@pytest.mark.parametrize("problem", CASES, ids=by_name)
def test_the_path_that_was_reported(problem):
    options = usable_options(problem)[-1]
    expected = reference(problem.equation, problem.shapes, options)
    path, info = conv_einsum_path(problem.equation, *expected.operands, **options)
    assert_agrees(conv_einsum(problem.equation, *expected.operands, optimize=path, **options), expected)
    from_shapes, _ = conv_einsum_path(problem.equation, *problem.shapes, shapes=True, train=True, **options)
    assert_agrees(conv_einsum(problem.equation, *expected.operands, optimize=from_shapes, **options), expected)
    assert info.largest_intermediate >= expected.value.numel()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("problem", CASES, ids=by_name)
def test_expressions(problem, train):
    for options in usable_options(problem)[-3:]:
        expected = reference(problem.equation, problem.shapes, options)
        expression = conv_einsum_expression(problem.equation, *problem.shapes, train=train, **options)
        for _ in range(2):
            assert_agrees(expression(*expected.operands), expected)


@pytest.mark.parametrize("constants", [(1,), (0,), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("problem", [p for p in NETWORKS if len(p.shapes) > 2], ids=by_name)
def test_expressions_with_constants(problem, constants):
    for options in usable_options(problem)[:: len(constants) + 1]:
        expected = reference(problem.equation, problem.shapes, options)
        given = [
            operand.detach() if number in constants else operand.shape
            for number, operand in enumerate(expected.operands)
        ]
        variables = [operand for number, operand in enumerate(expected.operands) if number not in constants]
        expression = conv_einsum_expression(problem.equation, *given, constants=list(constants), **options)
        for _ in range(2):
            value = expression(*variables)
            torch.testing.assert_close(value, expected.value, rtol=1e-10, atol=1e-10)
        gradients = torch.autograd.grad(value, variables, expected.weight) if variables else ()
        wanted = [g for number, g in enumerate(expected.gradients) if number not in constants]
        for actual, gradient in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(actual, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "problem",
    [p for p in CASES if len(parse(p.equation, [len(s) for s in p.shapes]).inputs[0]) in (4, 5)],
    ids=by_name,
)
def test_channels_last_and_other_strides(problem):
    options = usable_options(problem)[-1]
    expected = reference(problem.equation, problem.shapes, options)
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    by_layout = [
        operand.contiguous(memory_format=layouts.get(operand.dim(), torch.contiguous_format))
        for operand in expected.operands
    ]
    assert_agrees(conv_einsum(problem.equation, *by_layout, **options), expected)
    reversed_strides = [operand.permute(*range(operand.dim())[::-1]).contiguous() for operand in expected.operands]
    reversed_strides = [operand.permute(*range(operand.dim())[::-1]) for operand in reversed_strides]
    assert_agrees(conv_einsum(problem.equation, *reversed_strides, **options), expected)


def laid_out(operand, order, dtype):
    """A copy whose dimensions lie in memory in this order."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return operand.detach().to(dtype).permute(order).contiguous().permute(back).requires_grad_()


@pytest.mark.parametrize("kernel_order", [(0, 1, 2, 3), (0, 3, 2, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "shapes", [((3, 2, 5, 1), (3, 1, 1, 2)), ((3, 2, 5, 1), (3, 2, 1, 2)), ((3, 2, 1, 1), (3, 1, 2, 2))]
)
def test_dimensions_of_size_one_lie_anywhere_in_memory(shapes, dtype, kernel_order):
    """Their strides mean nothing, but some of PyTorch's gradients of grouped convolutions depend on them."""
    expected = reference("gihb,gohi->bgoh|h", shapes, {"padding": 1})
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    w = laid_out(expected.operands[1], kernel_order, dtype)
    for order in permutations(range(4)):
        x = laid_out(expected.operands[0], order, dtype)
        value = conv_einsum("gihb,gohi->bgoh|h", x, w, padding=1)
        gradients = torch.autograd.grad(value, (x, w), expected.weight.to(dtype))
        for actual, wanted in zip((value, *gradients), (expected.value, *expected.gradients), strict=True):
            torch.testing.assert_close(actual, wanted.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("problem", CONVOLUTIONS + SMALL_NETWORKS, ids=by_name)
def test_expanded_and_sliced_operands(problem):
    options = usable_options(problem)[1]
    operands = make_operands(problem.shapes)
    views = []
    for number, operand in enumerate(operands):
        if number % 2 and operand.dim():  # one slice, repeated without memory
            views.append(operand[:1].expand(operand.shape))
        else:  # every second element of a larger tensor
            views.append(torch.stack([operand, -operand], -1)[..., 0])
    expected = oracle(problem.equation, *views, **options)
    actual = conv_einsum(problem.equation, *views, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weight = torch.ones_like(expected)
    wanted = torch.autograd.grad(expected, operands, weight)
    for gradient, other in zip(torch.autograd.grad(actual, operands, weight), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("problem", CASES, ids=by_name)
def test_meta_tensors_give_the_shape(problem):
    for options in usable_options(problem):
        operands = [torch.empty(shape, device="meta") for shape in problem.shapes]
        value = conv_einsum(problem.equation, *operands, **options)
        assert value.device.type == "meta"
        assert value.shape == output_shape(problem.equation, problem.shapes, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("problem", [PRODUCTS[2], *CONVOLUTIONS[:3], *SMALL_NETWORKS[:3]], ids=by_name)
def test_the_type_of_the_operands_is_kept(problem, dtype):
    operands = [operand.detach().to(dtype) for operand in make_operands(problem.shapes)]
    value = conv_einsum(problem.equation, *operands)
    assert value.dtype == dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = oracle(problem.equation, *(operand.to(wide) for operand in operands))
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1}.get(dtype, 1e-4)
    torch.testing.assert_close(value.to(wide), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("problem", [CONVOLUTIONS[1], SMALL_NETWORKS[0], LARGER_NETWORKS[1]], ids=by_name)
def test_autocast_mixes_types(problem):
    operands = [operand.detach().float() for operand in make_operands(problem.shapes)]
    expected = oracle(problem.equation, *(operand.double() for operand in operands))
    operands[0] = operands[0].bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = conv_einsum(problem.equation, *operands)
    assert value.dtype == torch.bfloat16
    torch.testing.assert_close(value.double(), expected, rtol=1e-1, atol=1e-1 * float(expected.abs().max()))


@pytest.mark.parametrize("problem", CONVOLUTIONS, ids=by_name)
def test_gradients_under_autocast(problem):
    strided = {"padding": "full", "stride": 2, "dilation": 2} if problem.convolved else {}
    for options in [*usable_options(problem), strided]:
        exact = make_operands(problem.shapes)
        expected = oracle(problem.equation, *exact, **options)
        wanted = torch.autograd.grad(expected, exact, torch.ones_like(expected))
        operands = [operand.detach().float().requires_grad_() for operand in exact]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = conv_einsum(problem.equation, *operands, **options)
        gradients = torch.autograd.grad(value, operands, torch.ones_like(value))
        for gradient, other in zip(gradients, wanted, strict=True):
            # Operands and intermediates are rounded to 8 bits.
            torch.testing.assert_close(gradient.double(), other, rtol=5e-2, atol=5e-2 * float(other.abs().max()))


@pytest.mark.parametrize("problem", [CONVOLUTIONS[0], SMALL_NETWORKS[4], SMALL_NETWORKS[19]], ids=by_name)
def test_second_derivatives(problem):
    operands = make_operands(problem.shapes)
    assert torch.autograd.gradgradcheck(
        lambda *tensors: conv_einsum(problem.equation, *tensors, padding=1), operands, fast_mode=True
    )


def test_operands_that_are_the_same_tensor():
    x = make_operands(((3, 3),))[0]
    expected = torch.autograd.grad(oracle("ih,oh->ioh|h", x, x, padding=1).sum(), x)[0]
    actual = torch.autograd.grad(conv_einsum("ih,oh->ioh|h", x, x, padding=1).sum(), x)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("problem", [p for p in CASES if "..." not in p.equation], ids=by_name)
def test_an_empty_mode_is_refused_or_right(problem):
    """PyTorch takes an empty batch; the specification refuses an empty result. Garbage is neither."""
    empty = next((mode for mode in problem.equation if mode.isalpha() and mode not in problem.convolved), None)
    if empty is None:
        pytest.skip("every mode is convolved")
    terms = problem.equation.partition("->")[0].split(",")
    shapes = [
        tuple(0 if mode == empty else size for mode, size in zip(term, shape, strict=True))
        for term, shape in zip(terms, problem.shapes, strict=True)
    ]
    operands = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    zeros = torch.zeros(output_shape(problem.equation, shapes), dtype=torch.float64)
    with contextlib.suppress(ConvEinsumError):
        torch.testing.assert_close(conv_einsum(problem.equation, *operands), zeros)


@pytest.mark.parametrize("problem", SMALL_NETWORKS, ids=by_name)
def test_no_path_is_cheaper_than_the_optimal_one(problem):
    shapes, options = problem.shapes, {"shapes": True, "train": False}
    costs = [
        conv_einsum_path(problem.equation, *shapes, optimize=path, **options)[1].opt_cost
        for path in pairwise_paths(len(shapes))
    ]
    optimal = conv_einsum_path(problem.equation, *shapes, optimize="optimal", **options)[1]
    assert optimal.opt_cost == min(costs)
    left_to_right = conv_einsum_path(problem.equation, *shapes, optimize=False, **options)[1]
    assert left_to_right.opt_cost == optimal.naive_cost


@pytest.mark.parametrize("problem", NETWORKS, ids=by_name)
def test_a_memory_limit_is_kept(problem):
    _, free = conv_einsum_path(problem.equation, *problem.shapes, shapes=True)
    path, info = conv_einsum_path(
        problem.equation, *problem.shapes, shapes=True, memory_limit=free.largest_intermediate
    )
    assert info.largest_intermediate <= free.largest_intermediate
    expected = reference(problem.equation, problem.shapes, {})
    assert_agrees(conv_einsum(problem.equation, *expected.operands, optimize=path), expected)


def test_costs_by_hand():
    # 5x4 images, a 3x3 kernel: 3x2 outputs for 5 samples and 4 channels, 2 * 9 products each.
    shapes = [(5, 2, 5, 4), (4, 2, 3, 3)]
    _, info = conv_einsum_path("bihw,oihw->bohw|hw", *shapes, shapes=True)
    assert info.opt_cost == info.naive_cost == (5 * 4 * 3 * 2) * (2 * 3 * 3)
    assert info.largest_intermediate == 5 * 4 * 3 * 2
    # (ij, jk), kl costs 2*3*4 + 2*4*5 = 64; ij, (jk, kl) costs 3*4*5 + 2*3*5 = 90.
    path, info = conv_einsum_path("ij,jk,kl->il", (2, 3), (3, 4), (4, 5), shapes=True, optimize="optimal")
    assert [sorted(pair) for pair in path] == [[0, 1], [0, 1]]
    assert info.opt_cost == 64
    _, info = conv_einsum_path("ij,jk,kl->il", (2, 3), (3, 4), (4, 5), shapes=True, optimize=[(1, 2), (0, 1)])
    assert (info.opt_cost, info.naive_cost) == (90, 64)


def test_twelve_operands():
    """Beyond exact planning: a chain of kernels on one mode with a matrix before each."""
    terms, modes = ["ah"], "abcdefgijklm"
    shapes = [(2, 20)]
    for first, second in pairwise(modes):
        terms.append(f"{first}{second}h" if len(terms) % 2 else f"{first}{second}")
        shapes.append((2, 2, 2) if len(terms[-1]) == 3 else (2, 2))
    chain = case("chain", ",".join(terms) + "->mh|h", *shapes)
    x = make_operands(chain.shapes)
    expected = x[0]
    for operand in x[1:]:
        if operand.dim() == 3:
            expected = torch.nn.functional.conv1d(expected[None], operand.transpose(0, 1))[0]
        else:
            expected = operand.T @ expected
    for optimize in ("auto", "greedy", False, random_path(12, Random(0))):
        actual = conv_einsum(chain.equation, *x, optimize=optimize)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strides", [(16, 4, 1, 2, 32), (16, 4, 1, 2, 1), (16, 4, 2, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_grouped_convolutions_lie_anywhere_in_memory(dtype: torch.dtype, strides: tuple[int, ...]) -> None:
    # For the first two PyTorch 2.13 itself returns wrong values.
    torch.manual_seed(0)
    x = torch.randn(64).to(dtype).as_strided((1, 2, 2, 1, 4), (16, 2, 1, 16, 4))
    w = torch.randn(256).to(dtype).as_strided((2, 4, 2, 2, 1), strides)
    result = conv_einsum("bgihw,goihw->bgohw|hw", x, w, padding={"h": 1})
    expected = oracle("bgihw,goihw->bgohw|hw", x.double(), w.double(), padding={"h": 1})
    torch.testing.assert_close(result.double(), expected, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize(
    ("feature", "kernel", "padding"),
    [((3, 1, 1, 1, 5, 3), (1, 3, 1, 2, 1, 2), (2, 0, 0)), ((1, 3, 4, 2, 2, 5), (3, 2, 4, 3, 3, 1), (1, 1, 0))],
)
def test_bfloat16_kernels_wider_than_the_feature(feature: tuple, kernel: tuple, padding: tuple) -> None:
    # PyTorch 2.13 reads uninitialised memory there, so some is left behind.
    torch.manual_seed(0)
    rubbish = [torch.full((size,), 1e30) for size in (64, 256, 1000, 4000)]
    del rubbish
    x = torch.randn(feature).bfloat16().movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2))
    w = torch.randn(kernel).bfloat16().requires_grad_()
    options = {"padding": dict(zip("dhw", padding, strict=True))}
    result = conv_einsum("bgidhw,goidhw->bgodhw|dhw", x, w, **options)
    result.sum().backward()
    exact = w.detach().double().requires_grad_()
    expected = oracle("bgidhw,goidhw->bgodhw|dhw", x.double(), exact, **options)
    expected.sum().backward()
    torch.testing.assert_close(result.double(), expected, rtol=2e-2, atol=5e-2)
    torch.testing.assert_close(w.grad.double(), exact.grad, rtol=2e-2, atol=1e-1)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    ("equation", "kernels", "stride"),
    [
        ("bchw,ocw,h->bohw|hw", [(3, 2, 1), (1,)], {"h": 2, "w": 1}),
        ("bch,och->boh|h", [(3, 2, 1)], 2),
        ("bchw,ochw->bohw|hw", [(3, 2, 1, 1)], {"h": 1, "w": 2}),
        ("bchw,ochw->bohw|hw", [(3, 2, 1, 1)], 2),
    ],
)
def test_strides_of_kernels_of_size_one(equation: str, kernels: list, stride, padding: int) -> None:
    # For channels_last and larger images, PyTorch 2.13 writes beyond its memory in the gradient of the kernel.
    torch.manual_seed(0)
    x = torch.randn(2, *(4, 6)[: equation.index(",") - 2], 2).movedim(-1, 1)
    kernels = [torch.randn(shape) for shape in kernels]
    options = {"stride": stride, "padding": padding}
    given = [t.requires_grad_() for t in (x.detach(), *kernels)]
    exact = [t.detach().double().requires_grad_() for t in given]
    result, expected = conv_einsum(equation, *given, **options), oracle(equation, *exact, **options)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(result.sin().sum(), given)
    for gradient, correct in zip(gradients, torch.autograd.grad(expected.sin().sum(), exact), strict=True):
        torch.testing.assert_close(gradient.double(), correct, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [{"w": 3}, {"h": 2, "w": 3}, {"h": 3}])
def test_one_channel_that_counts_as_channels_last_and_a_result_one_wide(dtype: torch.dtype, stride: dict) -> None:
    # PyTorch 2.13 returns uninitialised memory here.
    torch.manual_seed(0)
    kernel = torch.randn(16, 1, 4, 3)
    for _ in range(10):
        x = torch.randn(2, 8, 5, 1).permute(0, 3, 1, 2)
        result = conv_einsum("bihw,oihw->bohw|hw", x.to(dtype), kernel.to(dtype), stride=stride)
        expected = oracle("bihw,oihw->bohw|hw", x.to(dtype).double(), kernel.to(dtype).double(), stride=stride)
        tolerance = 1e-4 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_dilation_of_a_single_tap_is_not_passed_on() -> None:
    # PyTorch 2.13 overruns its memory for it in bfloat16.
    expression = conv_einsum_expression(
        "bihw,oihw->bohw|hw", (4, 1, 7, 1), (1, 1, 3, 1), stride={"w": 2}, padding={"w": 1}, dilation={"w": 2}
    )
    assert "(1, 2), (0, 1), (1, 1), 1)" in expression.source
