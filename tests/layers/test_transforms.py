"""torch.func over recurrent layers: what it gives equals the stacked results of single calls, or finite differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from tests.layers.test_cells import CASES, SIZES, make
from tt_conv.layers import FramePredictor

# Every walk and every boundary: joined, registers with and without a factorized input, windows, an input apart.
SOME = [CASES[n] for n in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13, 15)]


def _predictor(cell: str) -> FramePredictor:
    options = {"rank": 2} if cell == "conv_tt_lstm" else {}
    return FramePredictor(
        2, (3, 3), (1, 1), cell=cell, kernel_size=3, skip_stride=1, sigmoid=True, dtype=torch.float64, **options
    )


def problem(case: dict | str) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    """Return a module, what is computed with its weights of a batch of sequences, and four samples."""
    torch.manual_seed(0)
    if isinstance(case, str):
        model = _predictor(case)
        return model, lambda weights, x: functional_call(model, weights, (x, 2)), _samples(2)
    layer = make(case)
    return layer, lambda weights, x: functional_call(layer, weights, (x,))[0], _samples(case["dim"])


def _samples(dim: int) -> Tensor:
    return torch.randn(3, 1, 2, 2, *SIZES[dim], dtype=torch.float64)


EVERY = [*SOME, "conv_lstm", "conv_tt_lstm"]
# Forward-mode derivatives of torch 2.13 compile rules of its own by what it deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

every_case = pytest.mark.parametrize("case", EVERY, ids=str)
a_few_cases = pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[7], "conv_tt_lstm"], ids=str)
both_modes = pytest.mark.parametrize("training", [True, False])


@both_modes
@every_case
def test_vmap_over_samples(case: dict | str, training: bool) -> None:
    module, call, samples = problem(case)
    weights = dict(module.train(training).named_parameters())
    expected = torch.stack([call(weights, x) for x in samples])
    torch.testing.assert_close(vmap(lambda x: call(weights, x))(samples), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(vmap(lambda x: call(weights, x))(samples), expected, rtol=0, atol=1e-12)


@every_case
def test_vmap_over_calls_of_the_module_itself(case: dict | str) -> None:
    module, _, samples = problem(case)
    call = (lambda x: module(x, 2)) if isinstance(case, str) else (lambda x: module(x)[0])
    with torch.no_grad():
        expected = torch.stack([call(x) for x in samples])
        torch.testing.assert_close(vmap(call)(samples), expected, rtol=0, atol=1e-12)


@both_modes
@every_case
def test_vmap_over_single_frames_with_their_states(case: dict | str, training: bool) -> None:
    module, _, samples = problem(case)
    module.train(training)
    frames = samples[:, :, 0]
    if isinstance(case, str):
        first, second = (lambda x: module.step(x)), (lambda x, s: module.step(x, s)[0])
    else:
        first, second = (lambda x: module.cell(x)), (lambda x, s: module.cell(x, s)[0])
    with torch.no_grad():
        singles = [second(x, first(x)[1]) for x in frames]
        _, states = vmap(first)(frames)
        torch.testing.assert_close(vmap(second)(frames, states), torch.stack(singles), rtol=0, atol=1e-12)


@a_few_cases
def test_vmap_over_an_ensemble_of_weights(case: dict | str) -> None:
    _, call, samples = problem(case)
    members = [problem(case)[0] for _ in range(2)]
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.mul_(0.5)
    weights, _ = stack_module_state(members)
    expected = torch.stack([call(dict(member.named_parameters()), samples[0]) for member in members])
    torch.testing.assert_close(vmap(call, (0, None))(weights, samples[0]), expected, rtol=0, atol=1e-12)


@every_case
def test_gradients_by_sample(case: dict | str) -> None:
    module, call, samples = problem(case)
    weights = {name: value.detach() for name, value in module.named_parameters()}
    by_sample = vmap(grad(lambda weights, x: call(weights, x).sin().sum()), (None, 0))(weights, samples)
    for n, x in enumerate(samples):
        parameters = dict(module.named_parameters())
        single = torch.autograd.grad(call(parameters, x).sin().sum(), list(parameters.values()))
        for name, expected in zip(parameters, single, strict=True):
            torch.testing.assert_close(by_sample[name][n], expected, rtol=1e-9, atol=1e-10)


@every_case
def test_derivatives_along_a_direction_are_those_of_differences(case: dict | str) -> None:
    module, call, samples = problem(case)
    weights = {name: value.detach() for name, value in module.named_parameters()}
    along = {name: torch.randn_like(value) for name, value in weights.items()}
    x, dx = samples[0], torch.randn_like(samples[0])
    value, tangent = jvp(call, (weights, x), (along, dx))
    torch.testing.assert_close(value, call(weights, x))
    step = 1e-6
    ahead, behind = (
        call({name: w + sign * step * along[name] for name, w in weights.items()}, x + sign * step * dx)
        for sign in (1, -1)
    )
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
    # The same with dual numbers outside of torch.func, with and without recording gradients.
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(w, along[name]) for name, w in weights.items()}
            result = forward_ad.unpack_dual(call(duals, forward_ad.make_dual(x, dx)))
            torch.testing.assert_close(result.tangent, tangent, rtol=1e-9, atol=1e-10)


@a_few_cases
def test_jacobians(case: dict | str) -> None:
    module, call, samples = problem(case)
    weights = dict(module.named_parameters())
    x = samples[0]
    expected = torch.autograd.functional.jacobian(lambda x: call(weights, x), x)
    vectorized = torch.autograd.functional.jacobian(lambda x: call(weights, x), x, vectorize=True)
    for got in (jacrev(call, 1)(weights, x), jacfwd(call, 1)(weights, x), vectorized):
        torch.testing.assert_close(got.detach(), expected, rtol=1e-9, atol=1e-10)
    _, pull = vjp(lambda x: call(weights, x), x)
    probe = torch.randn_like(call(weights, x))
    torch.testing.assert_close(pull(probe)[0], torch.tensordot(probe, expected, probe.ndim), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=str)
def test_second_derivatives(case: dict) -> None:
    module, call, samples = problem(case)
    weights, x = dict(module.named_parameters()), samples[0, :, :, :, :3]
    expected = torch.autograd.functional.hessian(lambda x: call(weights, x).sin().sum(), x)
    got = hessian(lambda x: call(weights, x).sin().sum())(x)
    torch.testing.assert_close(got.detach(), expected, rtol=1e-8, atol=1e-9)
