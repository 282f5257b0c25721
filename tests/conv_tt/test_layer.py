"""ConvTT against the naive evaluation of its formulas, and PyTorch's convolution."""

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.oracle.conv_tt import conv_tt
from tests.oracle.parameters import conv_tt_parameters
from tt_conv import ConvTT

CASES = [
    {"dim": 1, "kernel_size": 3, "order": 2, "steps": 4},
    {"dim": 1, "kernel_size": 5, "order": 3, "steps": 3, "rank": (1, 3, 2)},
    {"dim": 2, "kernel_size": 3, "order": 1, "steps": 1},
    {"dim": 2, "kernel_size": 3, "order": 1, "steps": 3},
    {"dim": 2, "kernel_size": (3, 5), "order": 3, "steps": 5, "rank": 2},
    {"dim": 2, "kernel_size": (1, 3), "order": 2, "steps": 2, "bias": False},
    {"dim": 2, "kernel_size": [(3, 5), (1, 3), (3, 3)], "order": 3, "steps": 4, "rank": (2, 3, 1)},
    {"dim": 1, "kernel_size": [(5,), (3,)], "order": 2, "steps": 2},
    {"dim": 3, "kernel_size": (3, 1, 3), "order": 2, "steps": 3, "rank": (3, 1)},
]
SIZES = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}


def make(case: dict, **more: object) -> ConvTT:
    layer = ConvTT(2, 3, **{"rank": 2, "core_bias": True, **case, **more}, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def windows(layer: ConvTT, batch: int = 2) -> torch.Tensor:
    size = SIZES[layer.dim]
    return torch.randn(batch, layer.steps, 2, *size, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("core_bias", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_window_and_its_gradients_equal_the_oracle(case: dict, core_bias: bool, boundary: str, window: str) -> None:
    layer = make(case, core_bias=core_bias, boundary=boundary, window=window)
    frames = windows(layer)
    output = layer.forward_window(frames)
    expected = conv_tt(list(frames.unbind(1)), conv_tt_parameters(layer), window=window, boundary=boundary)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    weights = torch.randn_like(output)
    sources = [frames, *layer.parameters()]
    gradients = torch.autograd.grad((output * weights).sum(), sources)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), sources)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-9)


def test_gradcheck() -> None:
    layer = make({"dim": 2, "kernel_size": 3, "order": 2, "steps": 3, "boundary": "circular"})
    frames = torch.randn(1, 3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer.forward_window, (frames,))
    for parameter in layer.parameters():
        assert torch.autograd.gradcheck(lambda _: layer.forward_window(frames.detach()), (parameter,))


def test_order_one_is_a_composition_of_two_convolutions() -> None:
    layer = ConvTT(2, 3, 3, order=1, steps=1, rank=4, dtype=torch.float64)
    x = torch.randn(2, 1, 2, 6, 5, dtype=torch.float64)
    inner = F.conv2d(F.pad(x[:, 0], [2, 2, 2, 2]), layer.projections[0][:, :, 0])
    torch.testing.assert_close(layer.forward_window(x), F.conv2d(inner, layer.cores[0], layer.bias))


@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sequence_and_stream_equal_the_window_moved_along(case: dict, window: str, boundary: str) -> None:
    layer = make(case, window=window, boundary=boundary)
    sequence = torch.randn(2, 6, 2, *SIZES[layer.dim], dtype=torch.float64)
    frames = [torch.zeros_like(sequence[:, 0])] * (layer.steps - 1) + list(sequence.unbind(1))
    expected = torch.stack(
        [
            conv_tt(frames[t : t + layer.steps], conv_tt_parameters(layer), window=window, boundary=boundary)
            for t in range(6)
        ],
        dim=1,
    )
    torch.testing.assert_close(layer(sequence), expected, rtol=0, atol=1e-10)
    state = None
    for t in range(6):
        output, state = layer.stream(sequence[:, t], state)
        torch.testing.assert_close(output, expected[:, t], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 4, 64])
@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_fresh_layers_have_the_output_variance_of_a_fresh_convolution(rank: int, window: str) -> None:
    torch.manual_seed(rank)
    variances = []
    for _ in range(40 if rank > 1 else 400):
        layer = ConvTT(4, 16, 3, order=3, steps=4, rank=rank, window=window, bias=False, dim=1)
        variances.append(layer(torch.randn(4, 8, 4, 64))[:, 4:].var())
    assert math.isclose(torch.stack(variances).mean().item(), 1 / 3, rel_tol=0.25)


@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_macs_are_half_of_what_the_flop_counter_counts(case: dict, window: str, boundary: str) -> None:
    layer = make(case, window=window, boundary=boundary)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.forward_window(windows(layer, batch=1).detach())
    assert layer.macs(SIZES[layer.dim]) * 2 == counter.get_total_flops()


def test_copies_and_pickles_give_the_same_outputs() -> None:
    layer = make(CASES[4])
    frames = windows(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other.forward_window(frames), layer.forward_window(frames))


def test_repr_is_a_constructor_call() -> None:
    layer = make(CASES[4])
    again = eval(repr(ConvTT(2, 3, **CASES[4])).splitlines()[0] + layer.extra_repr() + ")")
    assert again.extra_repr() == layer.extra_repr()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd on every axis, got 4"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "2 ints, one per spatial axis, got \\(3, 3, 3\\)"),
        ({"kernel_size": [(3, 3), (3, 5)]}, ValueError, "one sequence of 2 ints for each of 3 levels"),
        ({"kernel_size": [(3, 3), (3, 4), (3, 3)]}, ValueError, "odd on every axis, got \\(3, 4\\)"),
        ({"order": 0}, ValueError, "order must be at least 1, got 0"),
        ({"steps": 2}, ValueError, "got steps=2, order=3"),
        ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ({"rank": (2, 2)}, ValueError, "3 ints, one per level \\(order=3\\), got \\(2, 2\\)"),
        ({"rank": 2.5}, ValueError, "a float rank is a parameter budget.* got 2.5"),
        ({"rank": 0.001}, ValueError, "conv_tt of rank 1 needs .* the smallest budget that fits"),
        ({"rank": (2, 2, 2.5)}, TypeError, "rank must be an int, got 2.5"),
        ({"dtype": torch.int64}, TypeError, "dtype must be a real floating-point torch.dtype, got torch.int64"),
        ({"dtype": torch.complex64}, TypeError, "dtype must be a real"),
        ({"dtype": "float32"}, TypeError, "dtype must be a real .* got 'float32'"),
        ({"window": "open"}, ValueError, "window must be one of 'sliding', 'fixed', got 'open'"),
        ({"boundary": "reflect"}, ValueError, "boundary must be one of .* got 'reflect'"),
        ({"dim": 4}, ValueError, "dim must be 1, 2 or 3 spatial axes, got 4"),
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, **change}
    with pytest.raises(error, match=message):
        ConvTT(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 2, 6), "2 spatial axes, so 5 axes, got 4 axes of shape \\(2, 3, 2, 6\\)"),
        ((2, 3, 5, 6, 6), "with 2 channels, got 5 channels in shape \\(2, 3, 5, 6, 6\\)"),
        ((2, 4, 2, 6, 6), "steps=3 frames, got 4"),
        ((2, 3, 2, 0, 6), "no spatial axis empty|without empty spatial axes"),
    ],
)
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvTT(2, 3, 3).forward_window(torch.zeros(shape))


def test_sparse_sequences_are_refused() -> None:
    with pytest.raises(TypeError, match=r"sequence must be a strided tensor .* use to_dense"):
        ConvTT(2, 3, 3)(torch.zeros(1, 4, 2, 6, 6).to_sparse())


@pytest.mark.parametrize("shape", [None, "ab", 5, (1, 1, 2, 8.0, 8), (1, 1, 2, 8), (0, 1, 2, 8, 8), (1, 1, 3, 8, 8)])
def test_explain_says_which_shapes_it_takes(shape: object) -> None:
    with pytest.raises(
        ValueError, match=r"input_shape must be .* with 2 channels and 2 spatial axes, ints of at least 1"
    ):
        ConvTT(2, 3, 3).explain(shape)


def test_a_float_rank_is_a_budget_that_is_kept_and_used() -> None:
    # By hand: ranks a, b take 3 * (a * 4 + a * b + b * 4 + b * 6) parameters, the dense kernel 6 * 4 * 2 * 7 = 336.
    layer = ConvTT(4, 6, 3, order=2, rank=0.4, dim=1, bias=False)
    assert layer.rank == (3, 2)
    assert sum(p.numel() for p in layer.parameters()) == 114 <= 0.4 * 336


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0), (0, 0)])
def test_nothing_gives_nothing(batch: int, time: int, training: bool) -> None:
    layer = ConvTT(2, 3, 3, order=2, steps=3).train(training)
    sequence = torch.zeros(batch, time, 2, 6, 5, requires_grad=True)
    outputs = layer(sequence)
    assert outputs.shape == (batch, time, 3, 6, 5)
    outputs.sum().backward()
    if batch == 0:
        assert layer.forward_window(torch.zeros(0, 3, 2, 6, 5)).shape == (0, 3, 6, 5)
        output, state = layer.stream(torch.zeros(0, 2, 6, 5))
        assert output.shape == (0, 3, 6, 5)
        assert [tuple(frame.shape) for frame in state] == [(0, 2, 6, 5)] * 2


def test_a_stream_state_of_another_shape_is_refused() -> None:
    layer = ConvTT(2, 3, 3)
    _, state = layer.stream(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="state\\[0\\] must have shape \\(1, 2, 5, 4\\)"):
        layer.stream(torch.zeros(1, 2, 5, 4), state)


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_layer_is_the_causal_convolution_with_its_dense_kernel(case: dict, boundary: str, window: str) -> None:
    layer = make(case, boundary=boundary, window=window)
    sequence = torch.randn(2, 5, 2, *SIZES[layer.dim], dtype=torch.float64)
    kernel, bias = layer.to_dense()
    half = [(k - 1) // 2 for k in kernel.shape[3:]]
    frames = [torch.zeros_like(sequence[:, 0])] * (layer.steps - 1) + list(sequence.unbind(1))
    outputs = []
    for t in range(5):
        output = sum(
            convolve_dense(frames[t + n], kernel[:, :, n], half, periodic=boundary == "circular")
            for n in range(layer.steps)
        )
        outputs.append(output if bias is None else output + bias.reshape(-1, *[1] * layer.dim))
    torch.testing.assert_close(layer(sequence), torch.stack(outputs, dim=1), rtol=0, atol=1e-10)


def convolve_dense(x: torch.Tensor, kernel: torch.Tensor, half: list[int], *, periodic: bool) -> torch.Tensor:
    dim = len(half)
    for axis, h in enumerate(half, start=2):
        index = torch.arange(-h, x.shape[axis] + h)
        wrapped = x.index_select(axis, index % x.shape[axis])
        inside = ((index >= 0) & (index < x.shape[axis])).reshape([-1] + [1] * (x.ndim - axis - 1))
        x = wrapped if periodic else wrapped * inside
    return {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dim](x, kernel)


def test_in_eval_mode_a_changed_parameter_is_noticed() -> None:
    layer = ConvTT(2, 8, 3, order=2, rank=32).eval().requires_grad_(False)
    sequence = torch.randn(1, 3, 2, 8, 8)
    before = layer(sequence)
    layer.cores[0].data.mul_(2)
    after = layer(sequence)
    fresh = copy.deepcopy(layer).train()(sequence)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, fresh, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_graph_breaks(training: bool) -> None:
    layer = make(CASES[4]).train(training)
    sequence = torch.randn(1, 5, 2, 6, 5, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(sequence), layer(sequence))
    longer = torch.randn(2, 7, 2, 8, 5, dtype=torch.float64)
    torch.testing.assert_close(compiled(longer), layer(longer))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    layer = ConvTT(2, 3, 3, order=2)
    sequence = torch.randn(1, 3, 2, 6, 6)
    with torch.no_grad():
        expected = layer(sequence)
        with torch.autocast("cpu", dtype):
            mixed = layer(sequence)
        low = layer.to(dtype)(sequence.to(dtype))
    for output in (mixed, low):
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.05)
