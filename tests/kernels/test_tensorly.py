"""Factorized tensors of TensorLy and TensorLy-Torch, in and out."""

import subprocess
import sys

import numpy as np
import pytest
import tensorly
import torch
from torch import Tensor, nn

from tt_conv import TensorizedConv
from tt_conv.kernels.tensorly import tensorly_torch

tltorch = tensorly_torch()


@pytest.fixture(autouse=True)
def _backend() -> object:
    with tensorly.backend_context("pytorch"):
        yield


def fresh(name: str, shape: tuple, rank: object) -> nn.Module:
    tensor = tltorch.FactorizedTensor.new(shape, rank=rank, factorization=name)
    for parameter in tensor.parameters():
        nn.init.normal_(parameter)
    return tensor


CASES = [
    ("CP", (6, 4, 3, 3), 5),
    ("Tucker", (6, 4, 3, 3), [3, 2, 3, 2]),
    ("TT", (4, 3, 3, 6), [1, 2, 4, 3, 1]),
    ("CP", (6, 4, 3), 5),
    ("Tucker", (6, 4, 2, 3, 1), [3, 2, 2, 2, 1]),
    ("TT", (4, 2, 3, 1, 6), [1, 4, 4, 3, 3, 1]),
    # Larger ranks than the kernel can use are taken as they are.
    ("CP", (2, 2, 3, 3), 40),
    ("TT", (4, 3, 3, 6), [1, 9, 40, 9, 1]),
]


@pytest.mark.parametrize(("name", "shape", "rank"), CASES)
def test_there_and_back(name: str, shape: tuple, rank: object) -> None:
    weight = fresh(name, shape, rank)
    bias = torch.randn(shape[-1] if name == "TT" else shape[0])
    layer = TensorizedConv.from_factorized(weight, bias=bias, padding="same", padding_mode="circular")
    back = layer.to_factorized()
    assert type(back) is type(weight)
    for (key, ours), (_, theirs) in zip(
        sorted(back.state_dict().items()), sorted(weight.state_dict().items()), strict=True
    ):
        assert torch.equal(ours, theirs), key
    dense = weight.to_tensor().detach()
    torch.testing.assert_close(layer.to_tensor(), dense.movedim(-1, 0) if name == "TT" else dense)
    assert torch.equal(layer.bias, bias)
    assert layer.bias is not bias


@pytest.mark.parametrize(("name", "shape", "rank"), CASES[:3])
def test_agrees_with_tensorly_torchs_own_convolution(name: str, shape: tuple, rank: object) -> None:
    weight = fresh(name, shape, rank)
    theirs = tltorch.FactorizedConv.from_factorization(weight, padding=1, stride=1)
    ours = TensorizedConv.from_factorized(weight, padding=1)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_nothing_is_shared() -> None:
    weight = fresh("CP", (6, 4, 3, 3), 5)
    layer = TensorizedConv.from_factorized(weight)
    before = weight.to_tensor().detach().clone()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(weight.to_tensor(), before)
    out = layer.to_factorized()
    nn.init.ones_(out.factors[0])
    assert layer.to_tensor().eq(0).all()


def test_frozen_factors_stay_frozen() -> None:
    weight = fresh("Tucker", (6, 4, 3, 3), [3, 2, 3, 2])
    weight.core.requires_grad_(False)
    layer = TensorizedConv.from_factorized(weight)
    assert not layer.factors["core"].requires_grad
    assert layer.factors["output"].requires_grad
    assert not layer.to_factorized().core.requires_grad


def tensorly_tensor(name: str, as_numpy: bool) -> tuple[object, Tensor]:
    kernel = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    if as_numpy:
        tensorly.set_backend("numpy", local_threadsafe=True)
    given = kernel.numpy() if as_numpy else kernel
    if name == "cp":
        weight = tensorly.decomposition.parafac(given, 3, n_iter_max=3)
        dense = tensorly.cp_to_tensor(weight)
    elif name == "tucker":
        weight = tensorly.decomposition.tucker(given, [3, 3, 2, 2])
        dense = tensorly.tucker_to_tensor(weight)
    else:
        given = np.moveaxis(given, 0, -1) if as_numpy else given.movedim(0, -1)
        weight = tensorly.decomposition.tensor_train(
            np.ascontiguousarray(given) if as_numpy else given, [1, 3, 4, 3, 1]
        )
        dense = tensorly.moveaxis(tensorly.tt_to_tensor(weight), -1, 0)
    return weight, torch.as_tensor(np.asarray(dense))


@pytest.mark.filterwarnings("ignore:Trying to compute SVD with n_eigenvecs")
@pytest.mark.parametrize("name", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("as_numpy", [False, True])
def test_tensorlys_own_tensors(name: str, as_numpy: bool) -> None:
    weight, dense = tensorly_tensor(name, as_numpy)
    layer = TensorizedConv.from_factorized(weight)
    torch.testing.assert_close(layer.to_tensor(), dense)
    assert layer.factorization == name
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_groups_count_towards_the_input_channels() -> None:
    layer = TensorizedConv.from_factorized(fresh("CP", (6, 4, 3, 3), 5), groups=3)
    assert (layer.in_channels, layer.out_channels) == (12, 6)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.zeros(6, 4, 3, 3), TypeError, "expected a CPTensor, TTTensor or TuckerTensor of"),
        (fresh("Dense", (6, 4, 3, 3), None), TypeError, "DenseTensor"),
        (fresh("CP", (6, 4), 2), ValueError, "1 to 3 spatial"),
        (fresh("CP", (2, 2, 2, 2, 2, 2), 2), ValueError, "1 to 3 spatial"),
        (tltorch.ComplexCPTensor.new((6, 4, 3, 3), 2), TypeError, "real and floating"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_kernel_is_refused(weight: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorizedConv.from_factorized(weight)


def test_a_bias_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bias must be \[out_channels=6\]"):
        TensorizedConv.from_factorized(fresh("CP", (6, 4, 3, 3), 5), bias=torch.zeros(4))


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_tensorlys_backend_is_left_as_it_was(backend: str) -> None:
    program = f"""
import tensorly
tensorly.set_backend({backend!r})
import torch
import tt_conv
assert tensorly.get_backend() == {backend!r}
for name in ("cp", "tucker", "tt", "svd"):
    layer = tt_conv.TensorizedConv.from_conv(torch.nn.Conv2d(4, 6, 3), name, rank=2)
    layer(torch.zeros(1, 4, 8, 8))
    assert tensorly.get_backend() == {backend!r}
    assert tensorly.tenalg.get_backend() == "core"
import sys
assert "tltorch" not in sys.modules
layer = tt_conv.TensorizedConv(4, 6, 3, rank=2)
tt_conv.TensorizedConv.from_factorized(layer.to_factorized())
assert "tltorch" in sys.modules
assert tensorly.get_backend() == {backend!r}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
