"""TensorizedConv against torch.nn's convolutions with the dense kernel, rebuilt by TensorLy."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import tensorly
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.utils import prune

from tt_conv import TensorizedConv

FORMATS = ["cp", "tucker", "tt", "svd"]
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MODULES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

# in, out, kernel, options, spatial size
CASES = [
    (4, 6, 3, {}, (8,)),
    (4, 6, (4,), {"padding": "same", "dilation": 3}, (13,)),
    (3, 6, 5, {"stride": 3, "padding": 2, "padding_mode": "circular", "groups": 3}, (11,)),
    (4, 6, 3, {}, (7, 8)),
    (4, 6, (3, 2), {"stride": (2, 1), "padding": (0, 1)}, (7, 8)),
    (4, 6, (2, 5), {"padding": "same"}, (7, 8)),
    (4, 6, (3, 5), {"padding": "same", "dilation": (2, 1), "padding_mode": "circular"}, (9, 8)),
    (4, 6, 3, {"padding": 2, "dilation": 2, "groups": 2}, (7, 8)),
    (4, 8, 3, {"padding": 1, "groups": 4}, (5, 6)),
    (4, 8, 3, {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}, (7, 8)),
    (4, 6, (1, 4), {"padding": "same", "padding_mode": "replicate"}, (7, 8)),
    (4, 6, 1, {"stride": 2}, (7, 8)),
    (1, 1, 3, {"padding": "valid"}, (4, 4)),
    (4, 6, 7, {"padding": 3}, (2, 3)),
    (2, 4, 3, {"padding": 1}, (4, 5, 6)),
    (
        2,
        4,
        (2, 3, 1),
        {"stride": (1, 2, 2), "dilation": (2, 1, 1), "groups": 2, "padding": "valid"},
        (4, 5, 6),
    ),
    (2, 4, (2, 3, 2), {"padding": "same", "padding_mode": "circular"}, (4, 3, 5)),
]
# Kernels that two stacked ones can span.
WIDE = [
    (3, 6, 5, {"stride": 3, "padding": 2, "padding_mode": "circular", "groups": 3}, (11,)),
    (4, 6, (5, 1), {"padding": "same", "padding_mode": "replicate"}, (7, 8)),
    (4, 6, 5, {"padding": 2, "dilation": 2, "groups": 2}, (9, 10)),
    (2, 4, (1, 9, 5), {"padding": (0, 4, 1), "stride": (1, 2, 1)}, (3, 7, 6)),
]
COMBINATIONS = [(case, name) for case in CASES for name in FORMATS] + [(case, "conv_tt") for case in WIDE]


def build(case: tuple, factorization: str, **extra: object) -> tuple[TensorizedConv, Tensor]:
    in_channels, out_channels, kernel, options, size = case
    layer = TensorizedConv(
        in_channels,
        out_channels,
        kernel,
        factorization=factorization,
        **{"rank": 3, "dim": len(size), "dtype": torch.float64, **options, **extra},
    )
    return layer, torch.randn(2, in_channels, *size, dtype=torch.float64)


def reference(case: tuple, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Pad as torch.nn does for every mode, then convolve without padding."""
    in_channels, out_channels, size, options, spatial = case
    conv = MODULES[len(spatial)](in_channels, out_channels, size, **options)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    if options.get("padding") != "valid":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    return CONVOLUTIONS[len(spatial)](x, kernel, bias, conv.stride, 0, conv.dilation, conv.groups)


@pytest.mark.parametrize(("case", "factorization"), COMBINATIONS, ids=str)
def test_equals_the_dense_convolution(case: tuple, factorization: str) -> None:
    layer, x = build(case, factorization)
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    ours = layer(x)
    theirs = reference(case, x, layer.to_tensor(), layer.bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(theirs)
    gradients = (torch.autograd.grad(y, inputs, cotangent) for y in (ours, theirs))
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("case", "factorization"), COMBINATIONS, ids=str)
def test_folded_weights_give_the_same(case: tuple, factorization: str) -> None:
    layer, x = build(case, factorization, bias=False)
    layer.eval().requires_grad_(False)
    theirs = reference(case, x, layer.to_tensor(), None)
    for _ in range(2):
        torch.testing.assert_close(layer(x), theirs, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x)
    theirs = reference(case, x, layer.to_tensor(), None).square().sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, x)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("case", CASES[3:8:2], ids=str)
def test_gradcheck(case: tuple, factorization: str) -> None:
    layer, x = build(case, factorization, rank=2)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("factorization", FORMATS)
def test_a_single_image_and_no_image(factorization: str) -> None:
    layer, x = build(CASES[7], factorization)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    assert layer(x[:0]).shape == (0, *layer(x).shape[1:])


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_to_tensor_is_what_tensorly_rebuilds(factorization: str, dim: int) -> None:
    layer = TensorizedConv(4, 6, 3, factorization=factorization, rank=3, dim=dim)
    with tensorly.backend_context("pytorch"):
        dense = layer.to_factorized().to_tensor()
    dense = dense.movedim(-1, 0) if factorization == "tt" else dense
    torch.testing.assert_close(layer.to_tensor(), dense)


@pytest.mark.parametrize("factorization", [*FORMATS, "conv_tt"])
@pytest.mark.parametrize("rank", [1, 2, 8, 64])
@pytest.mark.parametrize(("dim", "groups"), [(1, 1), (2, 1), (2, 4), (3, 2)])
def test_fresh_kernels_have_pytorchs_spread(factorization: str, rank: int, dim: int, groups: int) -> None:
    size = 5 if factorization == "conv_tt" else 3
    layer = TensorizedConv(16, 24, size, factorization=factorization, rank=rank, dim=dim, groups=groups)
    conv = MODULES[dim](16, 24, size, groups=groups)
    bound = 1 / math.sqrt(conv.weight[0].numel())
    spread = layer.to_tensor().detach().square().mean().sqrt()
    assert float(spread) == pytest.approx(bound / math.sqrt(3), rel=1e-4)
    assert float(conv.weight.detach().std()) == pytest.approx(float(spread), rel=0.15)
    assert 0 < float(layer.bias.detach().abs().max()) <= bound


def test_fresh_layers_repeat_with_the_seed() -> None:
    first, second = ([torch.manual_seed(3), TensorizedConv(4, 6, 3, rank=5)][1] for _ in range(2))
    assert torch.equal(first.to_tensor(), second.to_tensor())


@pytest.mark.parametrize("factorization", FORMATS)
def test_a_fresh_layer_learns_at_small_and_large_ranks(factorization: str) -> None:
    for rank, reached in ((1, 0.8), (8, 0.1), (64, 0.1)):
        torch.manual_seed(1)
        layer = TensorizedConv(8, 8, 3, factorization=factorization, rank=rank, padding="same")
        x = torch.randn(8, 8, 10, 10)
        target = TensorizedConv(8, 8, 3, factorization=factorization, rank=1, padding="same")(x).detach()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            losses.append((layer(x) - target).square().mean())
            losses[-1].backward()
            optimizer.step()
        assert max(losses) < 1.1 * losses[0]
        assert losses[-1] < reached * losses[0]


def planted(conv: nn.Module, factorization: str, rank: int = 3, noise: float = 0.0) -> nn.Module:
    """Give a convolution a kernel of low rank, plus noise relative to it."""
    out_channels, in_channels, *kernel = conv.weight.shape
    source = TensorizedConv(in_channels, out_channels, kernel, factorization=factorization, rank=rank, dim=len(kernel))
    with torch.no_grad():
        kernel = source.to_tensor().to(conv.weight)
        disturbance = torch.randn_like(kernel)
        conv.weight.copy_(kernel + noise * disturbance * kernel.norm() / disturbance.norm())
    return conv


def relative_error(layer: TensorizedConv, conv: nn.Module) -> float:
    with torch.no_grad():
        return float((layer.to_tensor() - conv.weight).norm() / conv.weight.norm())


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 8, 3, padding="same", dilation=2),
        nn.Conv2d(8, 6, (3, 5), stride=(2, 1), padding=(0, 2), groups=2, padding_mode="circular"),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding=1),
        nn.Conv3d(4, 8, (1, 3, 3), padding_mode="replicate", padding=1, dtype=torch.float64),
    ],
    ids=str,
)
def test_from_conv_keeps_everything(conv: nn.Module, factorization: str) -> None:
    planted(conv, factorization, rank=2)
    layer = TensorizedConv.from_conv(conv.eval(), factorization, rank=2)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(layer, name) == getattr(conv, name)
    assert layer.padding_mode == conv.padding_mode
    assert layer.training is False
    assert all(p.dtype == conv.weight.dtype for p in layer.parameters())
    x = torch.randn(2, conv.in_channels, *(9, 8, 7)[: layer.dim], dtype=conv.weight.dtype)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-4, atol=1e-5)
    back = layer.to_conv()
    assert repr(back) == repr(conv)
    torch.testing.assert_close(back(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factorization", FORMATS)
def test_from_conv_copies(factorization: str) -> None:
    conv = nn.Conv2d(4, 6, 3)
    conv.weight.requires_grad_(False)
    layer = TensorizedConv.from_conv(conv, factorization, rank=2)
    before = copy.deepcopy(conv.state_dict())
    assert not any(factor.requires_grad for factor in layer.factors.values())
    assert layer.bias.requires_grad
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7)
    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name])
    kernel = layer.to_conv()
    with torch.no_grad():
        kernel.bias.zero_()
    assert layer.bias.eq(7).all()


@pytest.mark.parametrize("factorization", FORMATS)
def test_from_conv_is_deterministic_and_leaves_the_generator_alone(factorization: str) -> None:
    conv = nn.Conv2d(8, 6, 3)
    state = torch.get_rng_state()
    first = TensorizedConv.from_conv(conv, factorization, rank=7)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    second = TensorizedConv.from_conv(conv, factorization, rank=7)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_decomposes(factorization: str, dtype: torch.dtype) -> None:
    conv = planted(nn.Conv2d(8, 12, 3, dtype=dtype), factorization)
    layer = TensorizedConv.from_conv(conv, factorization, rank=3)
    assert all(p.dtype == dtype for p in layer.parameters())
    assert relative_error(layer, conv) < 5 * math.sqrt(3) * torch.finfo(dtype).eps + 1e-7
    x = torch.randn(2, 8, 6, 6, dtype=dtype)
    assert layer(x).dtype == dtype


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("shape", [(12, 8, 3, 3), (8, 12, 5), (6, 4, 3, 2, 3), (16, 16, 1, 1)])
def test_planted_kernels_are_recovered_by_every_way_to_the_rank(factorization: str, shape: tuple) -> None:
    out_channels, in_channels, *kernel = shape
    conv = MODULES[len(kernel)](in_channels, out_channels, kernel, dtype=torch.float64)
    exact = planted(conv, factorization, rank=2)
    assert relative_error(TensorizedConv.from_conv(exact, factorization, rank=2), exact) < 1e-6
    by_error = TensorizedConv.from_conv(exact, factorization, tol=1e-4)
    fresh = TensorizedConv(in_channels, out_channels, kernel, factorization=factorization, rank=2, dim=len(kernel))
    assert by_error.rank == fresh.rank
    noisy = planted(conv, factorization, rank=2, noise=0.02)
    assert TensorizedConv.from_conv(noisy, factorization, tol=0.05).rank == fresh.rank


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("tol", [0.7, 0.3, 0.1])
def test_tol_is_reached_and_not_with_less(factorization: str, tol: float) -> None:
    conv = nn.Conv2d(4, 8, 3, dtype=torch.float64)
    layer = TensorizedConv.from_conv(conv, factorization, tol=tol)
    assert relative_error(layer, conv) <= tol
    if factorization in ("cp", "svd"):
        smaller = TensorizedConv.from_conv(conv, factorization, rank=layer.rank - 1)
        assert relative_error(smaller, conv) > tol
    assert sum(f.numel() for f in layer.factors.values()) < 3 * conv.weight.numel()


def test_tucker_tol_has_the_fewest_parameters_of_all_truncations() -> None:
    conv = planted(nn.Conv2d(5, 6, (3, 2), dtype=torch.float64), "cp", rank=4, noise=0.1)
    tol, best = 0.3, math.inf
    bases = [torch.linalg.svd(conv.weight.detach().movedim(m, 0).flatten(1))[0] for m in range(4)]
    for rank in torch.cartesian_prod(*(torch.arange(1, n + 1) for n in conv.weight.shape)).tolist():
        projected = conv.weight.detach()
        for mode, (basis, r) in enumerate(zip(bases, rank, strict=True)):
            projector = basis[:, :r] @ basis[:, :r].T
            projected = torch.tensordot(projector, projected, dims=([1], [mode])).movedim(0, mode)
        if (projected - conv.weight).norm() <= tol * conv.weight.norm():
            best = min(best, math.prod(rank) + sum(n * r for n, r in zip(conv.weight.shape, rank, strict=True)))
    layer = TensorizedConv.from_conv(conv, "tucker", tol=tol)
    assert sum(f.numel() for f in layer.factors.values()) == best


@pytest.mark.parametrize("factorization", ["tucker", "tt", "svd"])
def test_vbmf_finds_a_planted_rank_in_noise(factorization: str) -> None:
    conv = planted(nn.Conv2d(24, 32, 3, dtype=torch.float64), factorization, rank=4, noise=0.3)
    layer = TensorizedConv.from_conv(conv, factorization, rank="vbmf")
    expected = {"tucker": (4, 4, 3, 3), "tt": (1, 4, 4, 4, 1), "svd": 4}
    assert layer.rank == expected[factorization]


def test_numpy_integers_are_ranks() -> None:
    layer = TensorizedConv.from_conv(nn.Conv2d(8, 6, 3), "tucker", rank=[np.int64(2), np.int32(3)])
    assert layer.rank == (2, 3, 3, 3)


@pytest.mark.parametrize("factorization", FORMATS)
def test_a_kernel_of_zeros(factorization: str) -> None:
    conv = nn.Conv2d(4, 6, 3)
    nn.init.zeros_(conv.weight)
    for arguments in ({"rank": 2}, {"tol": 0.1}, {"rank": 0.9}):
        assert TensorizedConv.from_conv(conv, factorization, **arguments).to_tensor().eq(0).all()


@pytest.mark.parametrize("rank", [20, 60])
def test_cp_survives_a_rank_that_the_kernel_does_not_have(rank: int) -> None:
    conv = planted(nn.Conv2d(12, 16, 3, dtype=torch.float64), "cp", rank=4)
    layer = TensorizedConv.from_conv(conv, "cp", rank=rank)
    assert relative_error(layer, conv) < 1e-2
    assert max(float(f.detach().abs().max()) for f in layer.factors.values()) < 100


class Overriding(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def pruned() -> nn.Module:
    conv = nn.Conv2d(4, 6, 3)
    prune.l1_unstructured(conv, "weight", 0.5)
    return conv


@pytest.mark.parametrize(
    ("conv", "error", "message"),
    [
        (nn.ConvTranspose2d(4, 6, 3), TypeError, "transposed"),
        (nn.LazyConv2d(6, 3), TypeError, "call it once"),
        (nn.Linear(4, 6), TypeError, r"expected an nn\.Conv1d"),
        (Overriding(4, 6, 3), TypeError, "overrides"),
        (nn.Conv2d(4, 6, 3, device="meta"), ValueError, "meta device"),
        (nn.Conv2d(4, 6, 3, dtype=torch.complex64), TypeError, "real and floating"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_from_conv_refuses_with_a_reason(conv: nn.Module, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorizedConv.from_conv(conv, "cp", rank=2)


def test_from_conv_refuses_hooks_and_takes_parametrizations() -> None:
    with pytest.raises(TypeError, match="computed by a hook"):
        TensorizedConv.from_conv(pruned(), "cp", rank=2)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3))
    with torch.no_grad():
        layer = TensorizedConv.from_conv(conv, "svd", rank=6)
    torch.testing.assert_close(layer.to_tensor(), conv.weight)
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_from_conv_refuses_what_was_changed_on_the_instance() -> None:
    conv = nn.Conv2d(4, 6, 3)
    conv._conv_forward = lambda input, weight, bias: input
    with pytest.raises(TypeError, match="_conv_forward of this Conv2d was replaced"):
        TensorizedConv.from_conv(conv, "cp", rank=2)
    conv = nn.Conv2d(4, 6, 3)
    hook = conv.register_forward_hook(lambda module, arguments, output: 2 * output)
    with pytest.raises(TypeError, match="has forward hooks"):
        TensorizedConv.from_conv(conv, "cp", rank=2)
    hook.remove()
    TensorizedConv.from_conv(conv, "cp", rank=2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_from_conv_refuses_kernels_without_finite_values(value: float) -> None:
    conv = nn.Conv2d(4, 6, 3)
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="infinite or NaN"):
        TensorizedConv.from_conv(conv, "svd", rank=2)


def test_from_conv_refuses_bad_ranks() -> None:
    conv = nn.Conv2d(4, 6, 3)
    with pytest.raises(TypeError, match="either rank or tol"):
        TensorizedConv.from_conv(conv, "cp")
    with pytest.raises(ValueError, match="vbmf"):
        TensorizedConv.from_conv(conv, "cp", rank="vbmf")
    with pytest.raises(ValueError, match="factorization must be one of"):
        TensorizedConv.from_conv(conv, "tensor_ring", rank=2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1"),
        ({"out_channels": 5, "groups": 2}, ValueError, "out_channels must be divisible"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be an int or 2 ints"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": 1.5}, TypeError, "stride must be an int"),
        ({"padding": -1}, ValueError, "padding must be at least 0"),
        ({"padding": "full"}, ValueError, "padding must be one of"),
        ({"padding": "same", "stride": 2}, ValueError, "needs stride 1"),
        ({"dilation": True}, TypeError, "dilation must be an int"),
        ({"groups": 3}, ValueError, "in_channels must be divisible"),
        ({"padding_mode": "wrap"}, ValueError, "padding_mode must be one of"),
        ({"dim": 4}, ValueError, "dim must be 1, 2 or 3"),
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"rank": None}, TypeError, "rank"),
        ({"rank": "vbmf"}, ValueError, "needs a kernel"),
        ({"dtype": torch.int32}, TypeError, "dtype must be one of"),
        ({"dtype": torch.float8_e4m3fn}, TypeError, "dtype must be one of"),
        ({"dtype": "float32"}, TypeError, "dtype must be one of"),
        ({"optimize": 3.5}, ValueError, "optimize must be a name, a path"),
        ({"factorization": "TR"}, ValueError, "factorization must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], message: str) -> None:
    arguments = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "rank": 2, **options}
    with pytest.raises(error, match=message):
        TensorizedConv(**arguments)


def test_bad_inputs_are_named() -> None:
    layer = TensorizedConv(4, 6, 3, rank=2)
    with pytest.raises(ValueError, match="4 channels, got 5"):
        layer(torch.zeros(1, 5, 8, 8))
    with pytest.raises(ValueError, match="so 4 axes, got 5"):
        layer(torch.zeros(1, 4, 8, 8, 8))
    with pytest.raises(TypeError, match="input must be a tensor"):
        layer([1.0])
    with pytest.raises(ValueError, match="float64"):
        layer(torch.zeros(1, 4, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="smaller than the kernel"):
        layer(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize("factorization", FORMATS)
def test_state_dict_names_are_kept(factorization: str) -> None:
    layer = TensorizedConv(4, 6, 3, factorization=factorization, rank=2, dim=3)
    names = {
        "cp": ["weights", "output", "input", "d", "h", "w"],
        "tucker": ["core", "output", "input", "d", "h", "w"],
        "tt": ["input", "d", "h", "w", "output"],
        "svd": ["output", "kernel"],
    }
    assert set(layer.state_dict()) == {"bias", *(f"factors.{name}" for name in names[factorization])}
    other = TensorizedConv(4, 6, 3, factorization=factorization, rank=2, dim=3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.to_tensor(), layer.to_tensor())


@pytest.mark.parametrize("factorization", FORMATS)
def test_an_over_large_rank_is_the_same_everywhere(factorization: str) -> None:
    conv = nn.Conv2d(4, 6, 3)
    decomposed = TensorizedConv.from_conv(conv, factorization, rank=500)
    fresh = TensorizedConv(4, 6, 3, factorization=factorization, rank=500)
    again = TensorizedConv(4, 6, 3, factorization=factorization, rank=fresh.rank)
    assert decomposed.rank == fresh.rank == again.rank
    again.load_state_dict(decomposed.state_dict())
    assert relative_error(again, conv) < (0.02 if factorization == "cp" else 1e-5)


@pytest.mark.parametrize("factorization", FORMATS)
def test_copies_and_pickles(factorization: str) -> None:
    layer, x = build(CASES[5], factorization)
    layer.eval()
    with torch.no_grad():
        expected = layer(x)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other(x), expected)
            other.bias.add_(1)
            for factor in other.factors.values():
                factor.zero_()
            torch.testing.assert_close(other(x), other.bias.view(-1, 1, 1).expand_as(expected))
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("case", [CASES[6], CASES[9], CASES[15]], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_graph_breaks(case: tuple, factorization: str, training: bool) -> None:
    torch.compiler.reset()
    layer, x = build(case, factorization)
    layer.train(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_a_compiled_layer_sees_changed_weights() -> None:
    torch.compiler.reset()
    layer, x = build(CASES[4], "cp")
    layer.eval()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    with torch.no_grad():
        compiled(x)
        layer.factors["output"].mul_(2)
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("optimize", [False, "measure", [(0, 1)] * 5])
def test_every_kind_of_path_compiles_for_every_shape(optimize: object) -> None:
    torch.compiler.reset()
    layer, x = build(CASES[4], "cp", optimize=optimize)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for batch in (1, 2, 3, 2):
        x = torch.randn(batch, *x.shape[1:], dtype=x.dtype)
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("optimize", [False, True, "greedy", "measure"])
def test_every_optimizer_gives_the_same(optimize: object, training: bool) -> None:
    for factorization in FORMATS:
        layer, x = build(CASES[7], factorization, optimize=optimize)
        layer.train(training)
        with torch.no_grad():
            expected = reference(CASES[7], x, layer.to_tensor(), layer.bias)
            torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("factorization", FORMATS)
def test_exports(factorization: str) -> None:
    layer, x = build(CASES[7], factorization)
    exported = torch.export.export(layer.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))


def test_vmap_over_an_ensemble() -> None:
    layers = [build(CASES[3], "cp")[0].eval() for _ in range(3)]
    x = build(CASES[3], "cp")[1]
    parameters, _ = torch.func.stack_module_state(layers)
    with torch.no_grad():
        outputs = torch.vmap(lambda p, x: torch.func.functional_call(layers[0], p, x), (0, None))(parameters, x)
        torch.testing.assert_close(outputs, torch.stack([layer(x) for layer in layers]))


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("training", [True, False])
def test_autocast(factorization: str, training: bool) -> None:
    layer, x = build(CASES[3], factorization, dtype=torch.float32)
    x = x.float()
    layer.train(training)
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
        assert torch.equal(layer(x), expected)


def test_channels_last_is_kept() -> None:
    layer = TensorizedConv(8, 8, 3, factorization="tucker", rank=4, padding=1)
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


def test_meta_tensors_give_shapes() -> None:
    layer = TensorizedConv(8, 6, 3, factorization="tt", rank=4, device="meta")
    assert layer(torch.empty(2, 8, 6, 5, device="meta")).shape == (2, 6, 4, 3)
    assert layer.eval()(torch.empty(2, 8, 6, 5, device="meta")).shape == (2, 6, 4, 3)


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("case", [CASES[4], CASES[7], CASES[9]], ids=str)
def test_explain_counts_what_runs(case: tuple, factorization: str) -> None:
    layer, x = build(case, factorization, bias=False)
    for training in (True, False):
        layer.train(training)
        info = layer.explain(x.shape)
        assert "MACs" in str(info)
        assert info.opt_cost <= info.naive_cost
    with pytest.raises(ValueError, match="channels"):
        layer.explain((1, 99, 8, 8))


def test_repr_names_what_was_built() -> None:
    text = repr(TensorizedConv(4, 6, 3, factorization="tt", rank=2, padding="same"))
    assert "factorization='tt', rank=(1, 2, 2, 2, 1)" in text
    assert "padding='same'" in text


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("training", [True, False])
def test_a_model_in_channels_last(factorization: str, training: bool) -> None:
    layer, x = build(CASES[7], factorization)
    expected = layer(x).detach()
    layer.train(training).to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_parametrized_factor() -> None:
    layer, x = build(CASES[3], "cp", bias=False)
    expected = 2 * layer(x).detach()
    nn.utils.parametrize.register_parametrization(layer.factors, "output", Doubled())
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), expected)
        layer.factors.parametrizations.output.original.mul_(2)
        torch.testing.assert_close(layer(x), 2 * expected)


def test_numpy_integers_everywhere() -> None:
    two, three = np.int64(2), np.int32(3)
    layer = TensorizedConv(two, three, three, rank=two, stride=two, padding=(two, three), dilation=[two, 1])
    assert layer(torch.zeros(1, 2, 9, 9)).shape == (1, 3, 5, 7)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 3, 9, 9, dtype=torch.float64), "input is torch.float64, the layer torch.float32; convert"),
        (torch.zeros(1, 3, 9, 9, device="meta"), "input is on meta, the layer on cpu"),
        (torch.zeros(1, 3, 2, 9), r"input of spatial size \(2, 9\), \(4, 11\) with padding, is smaller than"),
        (torch.zeros(1, 4, 9, 9), "3 channels, got 4"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_inputs_that_do_not_fit_are_refused_in_the_layers_own_words(x: torch.Tensor, words: str, training: bool):
    layer = TensorizedConv(3, 4, 5, factorization="cp", rank=2, padding=1).train(training)
    with pytest.raises(ValueError, match=words):
        layer(x)


def test_frozen_layers_under_torch_func_and_tracing() -> None:
    torch.manual_seed(0)
    layer = TensorizedConv(4, 6, 3, factorization="cp", rank=3, dtype=torch.float64).eval().requires_grad_(False)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    expected = F.conv2d(x, layer.to_tensor(), layer.bias)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.conv2d(leaf, layer.to_tensor()).sin().sum(), leaf)
    layer(x)
    by_func = torch.func.grad(lambda x: (layer(x) - layer.bias.view(-1, 1, 1)).sin().sum())(x)
    torch.testing.assert_close(by_func, gradient)
    biases = torch.stack([layer.bias, 2 * layer.bias])
    many = torch.func.vmap(lambda bias: torch.func.functional_call(layer, {"bias": bias}, (x,)))(biases)
    torch.testing.assert_close(many, torch.stack([expected, expected + layer.bias.view(-1, 1, 1)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's: tracing is deprecated, and shapes are numbers
        traced = torch.jit.trace(layer, x)
    torch.testing.assert_close(traced(x), expected)


def test_a_pruned_factor_is_refused() -> None:
    layer = TensorizedConv(4, 6, 3, factorization="cp", rank=3)
    prune.l1_unstructured(layer.factors, "output", 0.5)
    with pytest.raises(TypeError, match=r"prune\.remove"):
        layer(torch.zeros(1, 4, 6, 6))
    prune.remove(layer.factors, "output")
    assert (layer.factors["output"] == 0).sum() == 9
    torch.testing.assert_close(layer(torch.ones(1, 4, 6, 6)), layer.to_conv()(torch.ones(1, 4, 6, 6)))


def test_fake_tensors_give_shapes() -> None:
    layer = TensorizedConv(3, 4, 3, rank=2).eval().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 6, 6)
    with FakeTensorMode():
        assert TensorizedConv(3, 4, 3, rank=2).eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 6, 6)


def test_explain_refuses_what_is_no_shape() -> None:
    with pytest.raises(TypeError, match="input_shape must be"):
        TensorizedConv(3, 4, 3, rank=2).explain("abc")
    with pytest.raises(TypeError, match="input_shape must be"):
        TensorizedConv(3, 4, 3, rank=2).explain((-1, 3, 9, 9))


def test_inputs_elsewhere_or_of_a_wrong_shape_are_told_as_given() -> None:
    layer = TensorizedConv(6, 8, 3, rank=3).eval().requires_grad_(False)
    with pytest.raises(ValueError, match="input is on meta, the layer on cpu"):
        layer(torch.ones(1, 6, 9, 9, device="meta"))
    with pytest.raises(ValueError, match=r"6 channels, got 1 channels in shape \(1, 6, 9\)"):
        layer(torch.ones(1, 6, 9))
