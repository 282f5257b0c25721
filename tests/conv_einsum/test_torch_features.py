"""conv-einsums inside the rest of PyTorch: compile, export, pickle, counters of operations."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tests.conv_einsum.cases import (
    CONVOLUTIONS,
    LARGER_NETWORKS,
    PRODUCTS,
    SMALL_NETWORKS,
    assert_agrees,
    case,
    make_operands,
    reference,
)
from tests.conv_einsum.paths import pairwise_paths
from tt_conv import TensorizedConv, conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum import ConvEinsumError

OPTIONS = {"padding": "full", "dilation": 2, "stride": 2}
SOME = {
    "2-d": CONVOLUTIONS[1],
    "4-d": CONVOLUTIONS[3],
    "two kernels": SMALL_NETWORKS[4],
    "cp": LARGER_NETWORKS[1],
}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("name", SOME)
def test_copies_of_expressions(name, copied):
    problem = SOME[name]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    expression = conv_einsum_expression(problem.equation, *problem.shapes, **OPTIONS)
    assert_agrees(copied(expression)(*expected.operands), expected)
    expression(*expected.operands)
    assert_agrees(copied(expression)(*expected.operands), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_of_expressions_with_constants(copied):
    problem = SOME["cp"]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    x, *weights = (operand.detach() for operand in expected.operands)
    expression = conv_einsum_expression(problem.equation, x.shape, *weights, constants=range(1, 6), **OPTIONS)
    torch.testing.assert_close(copied(expression)(x), expected.value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SOME)
def test_compile_a_call(name):
    problem = SOME[name]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda *operands: conv_einsum(problem.equation, *operands, **OPTIONS),
        fullgraph=True,
        backend="aot_eager",
    )
    assert_agrees(compiled(*expected.operands), expected)


@pytest.mark.parametrize("name", SOME)
def test_compile_an_expression(name):
    problem = SOME[name]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    torch.compiler.reset()
    expression = conv_einsum_expression(problem.equation, *problem.shapes, train=True, **OPTIONS)
    compiled = torch.compile(expression, fullgraph=True, backend="aot_eager")
    assert_agrees(compiled(*expected.operands), expected)


class Layer(nn.Module):
    """A convolution whose weights are the operands after the first."""

    def __init__(self, problem, weights):
        super().__init__()
        self.equation = problem.equation
        self.weights = nn.ParameterList(weights)

    def forward(self, x):
        return conv_einsum(self.equation, x, *self.weights, **OPTIONS)


@pytest.mark.parametrize("name", SOME)
def test_export(name):
    problem = SOME[name]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    x, *weights = (operand.detach() for operand in expected.operands)
    exported = torch.export.export(Layer(problem, weights), (x,))
    torch.testing.assert_close(exported.module()(x), expected.value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    problem = SOME["cp"]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    with mode():
        value = conv_einsum(problem.equation, *expected.operands, **OPTIONS)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.value, rtol=1e-10, atol=1e-10)


def test_gradients_of_some_operands_only():
    problem = SOME["cp"]
    expected = reference(problem.equation, problem.shapes, OPTIONS)
    for number in range(len(problem.shapes)):
        operands = [operand.detach() for operand in expected.operands]
        operands[number].requires_grad_()
        value = conv_einsum(problem.equation, *operands, **OPTIONS)
        (gradient,) = torch.autograd.grad(value, operands[number], expected.weight)
        torch.testing.assert_close(gradient, expected.gradients[number], rtol=1e-10, atol=1e-10)


COUNTED = [
    PRODUCTS[0],
    PRODUCTS[2],
    PRODUCTS[4],
    CONVOLUTIONS[0],
    CONVOLUTIONS[1],
    CONVOLUTIONS[2],
    case("grouped", "bgihw,goihw->bgohw|hw", (2, 2, 3, 4, 5), (2, 2, 3, 2, 3)),
    case("depthwise", "bchw,chw->bchw|hw", (2, 3, 5, 4), (3, 3, 2)),
    case("svd", "bihw,rihw,or->bohw|hw", (2, 3, 4, 5), (2, 3, 3, 2), (4, 2)),
    case("two layers", "bih,rih,orh->boh|h", (2, 2, 7), (3, 2, 2), (2, 3, 3)),
]


@pytest.mark.parametrize("problem", COUNTED, ids=lambda problem: problem.name)
def test_costs_are_those_that_pytorch_counts(problem):
    """Outer and elementwise products are left out: PyTorch's counter doesn't see them."""
    operands = [operand.detach() for operand in make_operands(problem.shapes)]
    paths = [path for path in pairwise_paths(len(operands)) if path[0] != (0, 2)]
    for path in paths:
        _, info = conv_einsum_path(problem.equation, *operands, optimize=path)
        with FlopCounterMode(display=False) as counter:
            conv_einsum(problem.equation, *operands, optimize=path)
        assert counter.get_total_flops() == 2 * info.opt_cost, path


def test_the_operands_are_left_alone():
    for problem in (*CONVOLUTIONS[:6], *SMALL_NETWORKS[:8]):
        operands = [operand.detach() for operand in make_operands(problem.shapes)]
        copies = [operand.clone() for operand in operands]
        value = conv_einsum(problem.equation, *operands)
        value.add_(1.0)  # the result is the caller's own
        for operand, copied in zip(operands, copies, strict=True):
            torch.testing.assert_close(operand, copied, rtol=0, atol=0)


def test_the_global_state_is_left_alone():
    import tensorly

    backend, threads, state = tensorly.get_backend(), torch.get_num_threads(), torch.get_rng_state()
    problem = SOME["cp"]
    operands = make_operands(problem.shapes)
    conv_einsum(problem.equation, *operands)
    conv_einsum(problem.equation, *operands, optimize="measure")
    assert (tensorly.get_backend(), torch.get_num_threads()) == (backend, threads)
    assert torch.equal(torch.get_rng_state(), state)


WEIGHTS_FIRST = [(1, 2), (0, 1)]  # so that there is something to fold


def expression_with_constants(number=3):
    """An expression of an SVD kernel with the last `number` operands constant, and its operands and value."""
    problem = SMALL_NETWORKS[0]
    operands = [operand.detach() for operand in make_operands(problem.shapes, torch.float32)]
    first = 3 - number
    given = [operand.shape if i < first else operand for i, operand in enumerate(operands)]
    expression = conv_einsum_expression(problem.equation, *given, constants=range(first, 3), optimize=WEIGHTS_FIRST)
    return expression, operands, conv_einsum(problem.equation, *operands)


def test_results_of_constants_only_are_the_callers_own():
    expression, _, expected = expression_with_constants()
    expression().add_(1.0)
    torch.testing.assert_close(expression(), expected)


def test_constants_given_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expression, (x, *_), low = expression_with_constants(2)
        assert expression(x).dtype == low.dtype == torch.bfloat16
    _, _, expected = expression_with_constants(2)
    torch.testing.assert_close(expression(x), expected)


def test_constants_given_in_inference_mode():
    problem = SMALL_NETWORKS[0]
    x, *weights = make_operands(problem.shapes)
    constants = [weight.detach() for weight in weights]
    with torch.inference_mode():
        expression = conv_einsum_expression(
            problem.equation, x.shape, *constants, constants=[1, 2], optimize=WEIGHTS_FIRST
        )
        expression(x)
    (gradient,) = torch.autograd.grad(expression(x).sum(), x)
    (wanted,) = torch.autograd.grad(conv_einsum(problem.equation, x, *weights).sum(), x)
    torch.testing.assert_close(gradient, wanted)


def test_what_autocast_allowed_is_refused_without_it() -> None:
    x, first, second = (torch.randn(shape) for shape in [(4, 8), (8, 8), (8, 4)])
    constant = conv_einsum_expression("bi,ir,ro->bo", (4, 8), first, second, constants=[1, 2])
    expression = conv_einsum_expression("bi,ir,ro->bo", (4, 8), (8, 8), (8, 4))
    bound = expression.bind({1: first, 2: second})
    for call in (constant, bound):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert call(x.bfloat16()).dtype == torch.bfloat16
        with pytest.raises(ConvEinsumError, match=r"the constants torch\.float32"):
            call(x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bound = expression.bind({1: first, 2: second})
        assert bound(x).dtype == torch.bfloat16
    with pytest.raises(ConvEinsumError, match=r"the constants torch\.bfloat16"):
        bound(x)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode: str) -> None:
    layer = TensorizedConv(3, 4, 3, rank=2).eval()
    x = torch.randn(2, 3, 6, 6)
    weights = dict(layer.named_parameters())
    graph = make_fx(lambda x, w: torch.func.functional_call(layer, w, x), tracing_mode=mode)(x, weights)
    torch.testing.assert_close(graph(x, weights), layer(x))


def _sum(call, *operands):
    return call(*operands).sum()


def test_measured_calls_where_nothing_can_be_timed() -> None:
    x, first, second = (torch.randn(shape) for shape in [(4, 8), (8, 8), (8, 4)])
    expression = conv_einsum_expression("bi,ir,ro->bo", x.shape, first.shape, second.shape, optimize="measure")
    expected = torch.autograd.functional.jacobian(lambda x: (x @ first @ second).sum(), x)
    for call in (expression, partial(conv_einsum, "bi,ir,ro->bo", optimize="measure")):
        gradient, _ = torch.func.grad_and_value(partial(_sum, call))(x, first, second)
        torch.testing.assert_close(gradient, expected)
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert call(torch.empty(4, 8), first, second).shape == (4, 4)
        with FlopCounterMode(display=False) as counter:
            call(x, first, second)
        assert counter.get_total_flops() == 2 * (8 * 8 * 4 + 4 * 8 * 4)


def test_compiled_calls_may_change_their_options() -> None:
    x, kernel = torch.randn(2, 4, 10), torch.randn(3, 4, 3)
    torch.compiler.reset()
    call = torch.compile(
        lambda x, w, s: conv_einsum("bih,oih->boh|h", x, w, stride=s, padding={"h": s}), fullgraph=True, backend="eager"
    )
    for step in (1, 2, 3):
        expected = torch.nn.functional.conv1d(x, kernel, stride=step, padding=step)
        torch.testing.assert_close(call(x, kernel, step), expected)


def test_measuring_for_training_in_inference_mode() -> None:
    x, first, second = torch.randn(3, 9), torch.randn(9, 5), torch.randn(5, 4)
    shapes = [operand.shape for operand in (x, first, second)]
    with torch.inference_mode():
        expression = conv_einsum_expression("bi,ir,ro->bo", *shapes, train=True, optimize="measure")
        torch.testing.assert_close(expression(x, first, second), x @ first @ second)
        made_there = x.clone()
    expression = conv_einsum_expression("bi,ir,ro->bo", *shapes, train=True, optimize="measure", padding="valid")
    torch.testing.assert_close(expression(made_there, first, second), x @ first @ second)
