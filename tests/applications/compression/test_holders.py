"""Layers that a network reaches past its tree of modules, and originals that stay as they are."""

import copy
import functools
import itertools
import random
import weakref
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from tt_conv.applications.compression import compress, load_compressed, save_compressed
from tt_conv.applications.compression.holders import copied, past_the_tree

pytest.importorskip("safetensors.torch")
Pair = namedtuple("Pair", "first second")


class Plan:
    """An object that is no module."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


class Slotted:
    __slots__ = ("__hidden", "layer")

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.__hidden = layer, layer

    def run(self, x: Tensor) -> Tensor:
        return self.__hidden(x)


class Net(nn.Module):
    """Two layers in the tree, called through what ``hold`` makes of them."""

    def __init__(self, hold: Callable[["Net"], Any], run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        self.held, self.run = hold(self), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.held, x)


def _cached(net: Net) -> Any:
    layer = net.one

    @functools.lru_cache(maxsize=4)
    def chosen(_: int) -> nn.Module:
        return layer

    return chosen


def _calling(net: Net) -> Any:
    layers = [net.one, net.two]

    def call(x: Tensor, n: int = 0) -> Tensor:
        return call(layers[n](x).tanh(), n + 1) if n < 2 else x

    return call


HOLDERS: dict[str, tuple[Callable[[Net], Any], Callable[[Any, Tensor], Tensor]]] = {
    "list": (lambda n: [n.one, n.two], lambda h, x: h[1](h[0](x).tanh())),
    "list of lists": (lambda n: [[n.one], [n.two]], lambda h, x: h[1][0](h[0][0](x).tanh())),
    "dict": (lambda n: {"a": n.one, 2: n.two}, lambda h, x: h[2](h["a"](x).tanh())),
    "keys of a dict": (
        lambda n: OrderedDict({n.one: 2.0, n.two: 0.5}),
        lambda h, x: sum(k(x) * v for k, v in h.items()),
    ),
    "tuple": (lambda n: (n.one, n.two), lambda h, x: h[1](h[0](x).tanh())),
    "namedtuple": (lambda n: Pair(n.one, n.two), lambda h, x: h.second(h.first(x).tanh())),
    "set": (lambda n: {n.one}, lambda h, x: next(iter(h))(x)),
    "frozenset": (lambda n: frozenset({n.one}), lambda h, x: next(iter(h))(x)),
    "deque": (lambda n: deque([n.one, n.two]), lambda h, x: h[1](h[0](x).tanh())),
    "object": (lambda n: Plan(n.one), lambda h, x: h.layer(x)),
    "object in a list": (lambda n: [Plan(n.one), Plan(n.one)], lambda h, x: h[1].layer(h[0].layer(x).tanh())),
    "object with slots": (lambda n: Slotted(n.one), lambda h, x: h.run(x) + h.layer(x)),
    "lambda": (lambda n: lambda x: n.two(n.one(x).tanh()), lambda h, x: h(x)),
    "closure over a list": (_calling, lambda h, x: h(x)),
    "default": (lambda n: lambda x, layer=n.one: layer(x), lambda h, x: h(x)),
    "keyword default": (lambda n: eval("lambda x, *, layer=layer: layer(x)", {"layer": n.one}), lambda h, x: h(x)),
    "partial": (lambda n: functools.partial(lambda layer, x: layer(x), n.one), lambda h, x: h(x)),
    "partial of a method": (lambda n: functools.partial(n.one.forward), lambda h, x: h(x)),
    "bound method": (lambda n: n.one.forward, lambda h, x: h(x)),
    "cached function": (_cached, lambda h, x: h(0)(x)),
    "weak reference": (lambda n: weakref.ref(n.one), lambda h, x: h()(x)),
    "weights of a module in a list": (lambda n: [n.one], lambda h, x: F.linear(x, h[0].weight, h[0].bias)),
    "weights by a lambda": (lambda n: lambda x: F.linear(x, n.one.weight), lambda h, x: h(x)),
    "itself": (lambda n: [n], lambda h, x: h[0].two(h[0].one(x).tanh())),
}


def built(name: str) -> Net:
    hold, run = HOLDERS[name]
    return Net(hold, run).eval()


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("name", HOLDERS)
def test_layers_held_past_the_tree_are_replaced_wherever_they_are(name: str, with_data: bool, tmp_path: Path) -> None:
    model, x = built(name), torch.randn(60, 24)
    before, expected = copy.deepcopy(model.state_dict()), model(x)
    smaller, _ = compress(
        model, budget=0.5, data=[x] if with_data else None, force={"one": ("svd", 3), "two": ("svd", 3)}
    )
    # What the network must compute now, said with dense layers.
    truth = built(name)
    truth.load_state_dict(before)
    with torch.no_grad():
        for layer in ("one", "two"):
            getattr(truth, layer).weight.copy_(getattr(smaller, layer).weight)
    torch.testing.assert_close(smaller(x), truth(x))
    assert not torch.allclose(smaller(x), expected, atol=1e-3)
    # The original is untouched, in what it holds past its tree as well.
    assert torch.equal(model(x), expected)
    # A folder of it gives the same in a fresh instance, which has other weights.
    loaded = load_compressed(built(name), save_compressed(smaller, tmp_path / "smaller"))
    assert torch.equal(loaded(x), smaller(x))
    # Training the copy is training what it computes.
    smaller(x).square().sum().backward()
    assert smaller.one.output.grad is not None
    assert model.one.weight.grad is None


class Weights(nn.Module):
    """Holds the weight of a layer by itself as well."""

    def __init__(self, hold: Callable[[nn.Linear], Any], weight: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        self.held, self.weight = hold(self.one), weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.linear(x, self.weight(self.held)))


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize(
    ("hold", "weight"),
    [
        (lambda layer: [layer.weight], lambda h: h[0]),
        (lambda layer: {"w": layer.weight}, lambda h: h["w"]),
        (lambda layer: (lambda w: lambda: w)(layer.weight), lambda h: h()),
        (lambda layer: functools.partial(torch.clone, layer.weight), lambda h: h()),
    ],
    ids=["list", "dict", "lambda", "partial"],
)
def test_a_weight_that_is_held_by_itself_keeps_its_layer_dense(hold: Any, weight: Any, with_data: bool) -> None:
    model, x = Weights(hold, weight), torch.randn(60, 24)
    expected = model(x)
    smaller, report = compress(model, budget=0.8, data=[x] if with_data else None)
    assert "held by themselves as well, in held" in report.left_out["one"]
    assert [row.name for row in report.layers] == ["two"]
    # Its own copy of the weight, not the original's.
    with torch.no_grad():
        smaller.one.weight.zero_()
        torch.testing.assert_close(smaller(x), smaller.two(torch.zeros(60, 24)))
    assert torch.equal(model(x), expected)


SOMEWHERE: list[nn.Module] = []


class Global(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        SOMEWHERE[:] = [self.two]

    def forward(self, x: Tensor) -> Tensor:
        return SOMEWHERE[0](self.one(x))


class Iterated(nn.Module):
    """Reaches a layer through an iterator, whose inside nothing shows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        self.calls = itertools.repeat(self.two)

    def forward(self, x: Tensor) -> Tensor:
        return next(self.calls)(self.one(x))


def test_what_no_copy_follows_is_refused_or_left_alone() -> None:
    x = torch.randn(60, 24)
    with pytest.raises(ValueError, match=r"still computes with the original's 'two'.*hold it in an attribute"):
        compress(Global(), budget=0.5, data=[x])
    model = Iterated()
    expected = model.two(model.one(x))
    smaller, report = compress(model, budget=0.8, data=[x], formats=("svd",))
    assert "no other layer can be put into" in report.left_out["two"]
    with torch.no_grad():
        error = float((smaller(x) - expected).norm() / expected.norm())
    assert error == pytest.approx(report.output_error, rel=1e-4)


class Unregistered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.others = nn.Linear(24, 24), [nn.Linear(24, 24)]

    def forward(self, x: Tensor) -> Tensor:
        return self.others[0](self.one(x))


def test_layers_outside_the_state_dict_are_named_and_not_written(tmp_path: Path) -> None:
    model, x = Unregistered(), torch.randn(60, 24)
    smaller, report = compress(model, budget=0.5, data=[x])
    assert "nn.ModuleList" in report.left_out["others[0]"]
    assert smaller.others[0] is not model.others[0]
    with pytest.raises(ValueError, match=r"its state dict lacks others\[0\]\.weight"):
        save_compressed(smaller, tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.again = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.one(x).tanh())


def test_a_layer_used_twice_stays_one(tmp_path: Path) -> None:
    smaller, report = compress(Twice(), budget=0.5, data=[torch.randn(60, 24)])
    assert smaller.one is smaller.again
    assert len(report.layers) == 1
    loaded = load_compressed(Twice(), save_compressed(smaller, tmp_path / "smaller"))
    x = torch.randn(3, 24)
    assert torch.equal(loaded(x), smaller(x))
    assert loaded.one is loaded.again


def test_places_past_the_tree_are_named() -> None:
    net = built("list of lists")
    assert past_the_tree(net)[id(net.one)] == ["held[0][0]"]
    assert past_the_tree(nn.Sequential(nn.Linear(2, 2))) == {}


def test_functions_of_a_copy_share_what_they_shared() -> None:
    net = built("lambda")

    def both(net: Net) -> tuple[Any, Any]:
        count, layer = [0], net.one

        def add(x: Tensor) -> Tensor:
            count[0] += 1
            return layer(x)

        return add, lambda: (count, layer)

    net.add, net.look = both(net)
    other = copied(net)
    other.add(torch.zeros(1, 24))
    assert other.look()[1] is other.one
    assert other.add.__name__ == "add"
    assert net.look()[1] is net.one


class Noisy(nn.Module):
    """Draws from every generator that there is, in evaluation mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.one(x), 0.5) * (1 + random.random() + float(np.random.rand()))  # noqa: NPY002


def _parametrized(function: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return nn.Sequential(function(nn.Linear(24, 24), **options), nn.ReLU(), nn.Linear(24, 24))

    return make


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(24, 24), nn.BatchNorm1d(24), nn.Linear(24, 24))
    model[1].register_forward_hook(lambda module, _, __: module.num_batches_tracked.add_(1) and None)
    return model


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(24, 24), nn.BatchNorm1d(24), nn.Dropout(), nn.Linear(24, 24))
    model[0].requires_grad_(False)
    model[1].eval()
    model.register_buffer("table", torch.randn(3), persistent=False)
    model[3].weight.grad = torch.randn(24, 24)
    return model


KINDS: dict[str, Callable[[], nn.Module]] = {
    "spectral norm": _parametrized(nn.utils.parametrizations.spectral_norm),
    "spectral norm of both": lambda: nn.Sequential(
        *(nn.utils.parametrizations.spectral_norm(nn.Conv1d(60, 60, 1), n_power_iterations=3) for _ in range(2))
    ),
    "spectral norm by a hook": _parametrized(nn.utils.spectral_norm),
    "weight norm": _parametrized(nn.utils.parametrizations.weight_norm),
    "orthogonal": _parametrized(nn.utils.parametrizations.orthogonal),
    "pruned": _parametrized(prune.l1_unstructured, name="weight", amount=0.3),
    "noisy": Noisy,
    "hooked": _hooked,
    "frozen": _frozen,
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_original_stays_as_it_is_in_every_bit(kind: str, with_data: bool) -> None:
    model, x = KINDS[kind]().train(), torch.randn(60, 24)
    if kind == "frozen":
        model[1].eval()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    modes = {name: module.training for name, module in model.named_modules()}
    gradients = {name: (p.requires_grad, p.grad is not None) for name, p in model.named_parameters()}
    attributes = {name: sorted(vars(module)) for name, module in model.named_modules()}
    hooks = {
        name: [len(module._forward_hooks), len(module._forward_pre_hooks)] for name, module in model.named_modules()
    }
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    smaller, _ = compress(
        model, budget=0.9, data=[x] if with_data else None, quality=lambda m: float(m(x).detach().mean())
    )
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert states[1] == after[1]
    np.testing.assert_array_equal(states[2], after[2])
    now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert [id(value) for value in now.values()] == [id(value) for value in tensors.values()]
    for name, value in before.items():
        assert torch.equal(now[name], value), name
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: (p.requires_grad, p.grad is not None) for name, p in model.named_parameters()} == gradients
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == attributes
    counted = {
        name: [len(module._forward_hooks), len(module._forward_pre_hooks)] for name, module in model.named_modules()
    }
    assert counted == hooks
    # What is in the new network stands in the modes of the original.
    for name, module in smaller.named_modules():
        if name in modes:
            assert module.training == modes[name]


def test_generators_stay_where_they_were_and_what_is_drawn_is_alike() -> None:
    model, x = Noisy(), torch.randn(60, 24)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    _, report = compress(model, budget=1.0, data=[x], force={"one": ("svd", 11)})
    assert torch.equal(torch.get_rng_state(), state)
    # The same noise in both, or the error would be that of two draws, 1 and more.
    smaller, _ = compress(model.one, budget=1.0, data=[x], force={"": ("svd", 11)})
    with torch.no_grad():
        error = float((smaller(x) - model.one(x)).norm() / model.one(x).norm())
    assert report.output_error == pytest.approx(error, rel=0.2)
