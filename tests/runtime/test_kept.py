"""Frozen weights are folded in eval mode, and a changed weight is noticed however it was changed."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv import TensorizedConv

FORMATS = ["cp", "tucker", "tt", "svd"]


def dense(layer: TensorizedConv, x: Tensor) -> Tensor:
    with torch.no_grad():
        return F.conv2d(x, layer.to_tensor(), layer.bias, padding=1)


def step(layer: TensorizedConv, x: Tensor, **options: object) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, **options)
    with torch.enable_grad():
        layer(x).square().sum().backward()
    optimizer.step()


def replace(layer: TensorizedConv) -> None:
    layer.factors["output"] = nn.Parameter(torch.randn_like(layer.factors["output"]))


def reload(layer: TensorizedConv, assign: bool) -> None:
    other = copy.deepcopy(layer)
    other.reset_parameters()
    layer.load_state_dict(other.state_dict(), assign=assign)


def through_numpy(layer: TensorizedConv) -> None:
    layer.factors["output"].detach().numpy()[:] += 1


def swap_data(layer: TensorizedConv) -> None:
    # Twice, so that the second may get the memory that the first gave back.
    for value in (2.0, 3.0):
        layer.factors["output"].data = torch.full_like(layer.factors["output"], value)


CHANGES = {
    "in place": lambda layer, x: layer.factors["output"].mul_(2),
    "one entry": lambda layer, x: layer.factors["output"][0, 0].add_(1),
    "data in place": lambda layer, x: layer.factors["output"].data.mul_(2),
    "data swapped": lambda layer, x: swap_data(layer),
    "through numpy": lambda layer, x: through_numpy(layer),
    "initialised": lambda layer, x: nn.init.normal_(layer.factors["output"]),
    "parameter replaced": lambda layer, x: replace(layer),
    "loaded": lambda layer, x: reload(layer, assign=False),
    "loaded by assignment": lambda layer, x: reload(layer, assign=True),
    "optimizer": lambda layer, x: step(layer, x),
    "fused optimizer": lambda layer, x: step(layer, x, fused=True),
}


@pytest.mark.parametrize("factorization", FORMATS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_noticed(factorization: str, change: str) -> None:
    layer = TensorizedConv(4, 6, 3, factorization=factorization, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        before = layer(x)
        torch.testing.assert_close(before, dense(layer, x))
        CHANGES[change](layer, x)
        torch.testing.assert_close(layer(x), dense(layer, x))
        assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize("factorization", FORMATS)
def test_training_between_evaluations(factorization: str) -> None:
    layer = TensorizedConv(4, 6, 3, factorization=factorization, rank=3, padding=1)
    x = torch.randn(2, 4, 6, 6)
    for _ in range(3):
        layer.eval()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), dense(layer, x))
        step(layer.train(), x)


def test_another_dtype_and_back() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        layer(x)
        torch.testing.assert_close(layer.double()(x.double()), dense(layer, x.double()))
        layer.factors["output"].mul_(2)
        torch.testing.assert_close(layer.float()(x), dense(layer, x))


def test_gradients_of_weights_are_never_folded_away() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        layer(x)
    layer(x).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_a_frozen_layer_passes_gradients_on() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval().requires_grad_(False)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(F.conv2d(x, layer.to_tensor(), layer.bias, padding=1).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_an_input_that_requires_a_gradient_where_none_is_taken() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), dense(layer, x))


def test_one_weight_thawed() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval().requires_grad_(False)
    x = torch.randn(2, 4, 6, 6)
    layer(x)
    layer.factors["input"].requires_grad_()
    layer(x).sum().backward()
    assert layer.factors["input"].grad is not None


def test_what_inference_mode_folded_serves_training_of_the_input() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval().requires_grad_(False)
    x = torch.randn(2, 4, 6, 6)
    with torch.inference_mode():
        layer(x)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
        x = torch.randn(2, 4, 6, 6)
        layer(x)
        layer.factors["output"].mul_(2)
        torch.testing.assert_close(layer(x), dense(layer, x))


def test_nan_weights_do_not_hide_changes() -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        layer.factors["output"][0] = torch.nan
        layer(x)
        layer.factors["output"].data[1:] *= 2
        torch.testing.assert_close(layer(x), dense(layer, x), equal_nan=True)


def test_the_fold_is_kept_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = TensorizedConv(4, 6, 3, rank=3, padding=1).eval()
    x = torch.randn(2, 4, 6, 6)
    folds = []
    fold = TensorizedConv._fold
    monkeypatch.setattr(TensorizedConv, "_fold", lambda *arguments: folds.append(1) or fold(*arguments))
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        assert len(folds) == 1
        layer(x[:1])
        assert len(folds) == 2
        layer.factors["input"].add_(1)
        layer(x)
        assert len(folds) == 3


def test_many_shapes_do_not_pile_up() -> None:
    layer = TensorizedConv(2, 2, 1, rank=1).eval()
    with torch.no_grad():
        for size in range(1, 150):
            layer(torch.zeros(1, 2, 1, size))
    assert 0 < len(layer._kept) <= 64
