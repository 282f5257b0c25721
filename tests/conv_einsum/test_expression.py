"""Compiled expressions: folding, binding, copying, checking."""

import copy
import pickle
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tt_conv import ConvEinsumError, conv_einsum, conv_einsum_expression
from tt_conv.conv_einsum import expression as expression_module

CP = "bihw,or,ir,hr,wr->bohw|hw"
SHAPES = [(2, 3, 6, 5), (4, 2), (3, 2), (3, 2), (3, 2)]
KERNEL_FIRST = [(1, 2), (1, 2), (1, 2), (0, 1)]


class Calls(TorchDispatchMode):
    """Record the operations that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operands(requires_grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=requires_grad) for shape in SHAPES
    ]


def dense(x: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
    return torch.conv2d(x, torch.einsum("or,ir,hr,wr->oihw", *factors), padding=1)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_constants_are_folded_once() -> None:
    x, *factors = operands()
    expression = conv_einsum_expression(
        CP, x.shape, *factors, constants=[1, 2, 3, 4], padding="same", optimize=KERNEL_FIRST
    )
    with Calls() as calls:
        value = expression(x)
    close(value, dense(x, *factors))
    # Everything but the convolution with the dense kernel was done before.
    assert set(calls.names) <= {"permute", "view", "convolution"}
    assert [step.runs for step in expression.info.steps] == ["fold", "fold", "fold", "call"]


def test_constants_only() -> None:
    tensors = operands()
    expression = conv_einsum_expression(CP, *tensors, constants=range(5), padding="same")
    close(expression(), dense(*tensors))


def test_constants_are_detached_and_not_watched() -> None:
    x, *factors = operands(requires_grad=True)
    expression = conv_einsum_expression(CP, x.shape, *factors, constants=[1, 2, 3, 4], padding="same")
    expected = dense(x, *factors).detach()
    with torch.no_grad():
        factors[0].zero_()
    value = expression(x)
    close(value.detach(), expected)
    value.sum().backward()
    assert x.grad is not None
    assert factors[0].grad is None


def test_a_constant_that_wants_a_gradient_is_refused_in_training() -> None:
    x, *factors = operands(requires_grad=True)
    with pytest.raises(ConvEinsumError, match="operand 1 is a constant but requires a gradient"):
        conv_einsum_expression(CP, x.shape, *factors, constants=[1, 2, 3, 4], train=True)


def test_large_results_of_constants_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_module, "FOLDED_ELEMENTS", 20)
    x, *factors = operands()
    # or,ir gives 24 elements, hr,wr gives 18: only the latter is kept.
    expression = conv_einsum_expression(
        CP, x.shape, *factors, constants=[1, 2, 3, 4], padding="same", optimize=KERNEL_FIRST
    )
    with Calls() as calls:
        value = expression(x)
    close(value, dense(x, *factors))
    assert len([name for name in calls.names if name in ("mul", "mm", "bmm", "convolution")]) == 3


def test_some_constants() -> None:
    x, *factors = operands(requires_grad=True)
    given = [x.shape, factors[0].detach(), factors[1].shape, factors[2].detach(), factors[3].shape]
    expression = conv_einsum_expression(CP, *given, constants=[1, 3], padding="same")
    value, expected = expression(x, factors[1], factors[3]), dense(x, *factors)
    close(value, expected)
    sources = (x, factors[1], factors[3])
    for gradient, wanted in zip(
        torch.autograd.grad(value.sum(), sources), torch.autograd.grad(expected.sum(), sources), strict=True
    ):
        close(gradient, wanted)


def test_bound_weights_are_combined_once_and_get_the_gradients_of_all_calls() -> None:
    x, *factors = operands(requires_grad=True)
    expression = conv_einsum_expression(CP, *SHAPES, padding="same", reuse=100, train=True, optimize=KERNEL_FIRST)
    bound = expression.bind(dict(enumerate(factors, start=1)))
    with Calls() as calls:
        first = bound(x)
    assert set(calls.names) <= {"permute", "view", "convolution"}
    total = (first + bound(2 * x) * 3).sum()
    expected = (dense(x, *factors) + dense(2 * x, *factors) * 3).sum()
    for gradient, wanted in zip(
        torch.autograd.grad(total, factors), torch.autograd.grad(expected, factors), strict=True
    ):
        close(gradient, wanted)
    # The expression itself is as it was.
    close(expression(x, *factors), dense(x, *factors))


def test_binding_twice() -> None:
    x, *factors = operands()
    expression = conv_einsum_expression(CP, *SHAPES, padding="same")
    bound = expression.bind({1: factors[0]}).bind({4: factors[3], 2: factors[1]})
    close(bound(x, factors[2]), dense(x, *factors))
    with pytest.raises(ConvEinsumError, match="operand 1 cannot be fixed"):
        bound.bind({1: factors[0]})
    with pytest.raises(ConvEinsumError, match="operand 9 cannot be fixed"):
        bound.bind({9: factors[0]})
    with pytest.raises(ConvEinsumError, match=r"operand 3 has shape \(4, 2\)"):
        bound.bind({3: factors[0]})
    with pytest.raises(ConvEinsumError, match=r"the constants torch\.float64"):
        bound(x.float(), factors[2].float())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("optimize", ["auto", "measure"])
def test_copies(copied, optimize: str) -> None:
    x, *factors = operands()
    expression = conv_einsum_expression(CP, *SHAPES, padding="same", optimize=optimize)
    folded = conv_einsum_expression(CP, x.shape, *factors, constants=[1, 2, 3, 4], padding="same", optimize=optimize)
    for _ in range(2):
        close(copied(expression)(x, *factors), dense(x, *factors))
        close(copied(folded)(x), dense(x, *factors))
        expression(x, *factors)
        folded(x)
    assert copied(expression).path == conv_einsum_expression(CP, *SHAPES, padding="same").path or (
        optimize == "measure"
    )


def test_intermediates_are_let_go() -> None:
    """At no time are more than two results alive."""
    alive: list[weakref.ref] = []

    class Results(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "mm":
                alive.append(weakref.ref(result))
                self.most = max(self.most, sum(ref() is not None for ref in alive))
            return result

    tensors = [torch.randn(4, 4) for _ in range(8)]
    equation = ",".join(a + b for a, b in zip("abcdefgh", "bcdefghi", strict=True)) + "->ai"
    expression = conv_einsum_expression(equation, *[(4, 4)] * 8, optimize=False)
    with torch.no_grad(), Results() as results:
        expression(*tensors)
    assert len(alive) == 7
    assert results.most == 2


def test_an_expression_explains_itself() -> None:
    expression = conv_einsum_expression(CP, *SHAPES, padding="same")
    assert repr(expression).startswith("<ConvEinsumExpression 'bihw,or,ir,hr,wr->bohw|hw'")
    assert str(expression.info) in str(expression)
    assert len(expression.path) == len(expression.info.steps) == 4
    assert expression.equation == CP


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: x.float(), "operand 2 has dtype torch.float32 and operand 0 torch.float64"),
        (lambda x: x.to("meta"), "operand 2 is on meta and operand 0 on cpu"),
        (lambda x: x.T, r"operand 2 has shape \(2, 3\)"),
        (lambda x: x.tolist(), "operand 2 must be a torch.Tensor, got list"),
        (lambda x: x.numpy(), "operand 2 must be a torch.Tensor, got ndarray"),
        (lambda x: x.to_sparse(), "layout torch.sparse_coo"),
        (lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged), "operand 2 is a nested tensor"),
    ],
)
def test_operands_that_do_not_fit(wrong, words: str) -> None:
    tensors = operands()
    expression = conv_einsum_expression(CP, *SHAPES, padding="same")
    tensors[2] = wrong(tensors[2])
    with pytest.raises(ConvEinsumError, match=words):
        expression(*tensors)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_only_numbers_with_a_fraction(dtype: torch.dtype) -> None:
    with pytest.raises(ConvEinsumError, match="expected a strided tensor of float32"):
        conv_einsum("ij,jk->ik", torch.ones(2, 3).to(dtype), torch.ones(3, 4).to(dtype))


def test_autocast_does_not_bring_double_precision_together() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ConvEinsumError, match="float64"):
        conv_einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_and_their_gradients(dtype: torch.dtype) -> None:
    tensors = [x.detach().to(dtype).requires_grad_() for x in operands()]
    value = conv_einsum_expression(CP, *SHAPES, padding="same", train=True)(*tensors)
    assert value.dtype == dtype
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = dense(*wide)
    scale = expected.abs().max().item()
    assert (value.double() - expected).abs().max() < 0.05 * scale
    for gradient, wanted in zip(
        torch.autograd.grad(value.sum(), tensors), torch.autograd.grad(expected.sum(), wide), strict=True
    ):
        assert gradient.dtype == dtype
        assert (gradient.double() - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_calls_of_several_shapes(dynamic: bool | None) -> None:
    """Shapes are constants of a graph: another shape makes another graph, also where PyTorch tries dynamic ones."""
    torch.compiler.reset()
    x, *factors = operands()

    @torch.compile(fullgraph=True, backend="eager", dynamic=dynamic)
    def layer(x: torch.Tensor) -> torch.Tensor:
        return conv_einsum(CP, x, *factors, padding={"h": "same", "w": (1, 1)})

    for batch in (2, 3, 4):
        inputs = torch.randn(batch, *x.shape[1:], dtype=x.dtype)
        close(layer(inputs), dense(inputs, *factors))


def test_vmap() -> None:
    x, *factors = operands()
    value = torch.func.vmap(lambda image: conv_einsum(CP.replace("b", ""), image, *factors, padding=1))(x)
    close(value, dense(x, *factors))
