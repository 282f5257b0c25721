"""conv-einsum on a device against the literal evaluation of its formula: values, gradients, layouts, types."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.guarded import NEEDS_CUDA, guarded
from tt_conv import ConvEinsumError, conv_einsum, conv_einsum_expression

# What the tests hold conv-einsum against; imported by name, since tests are not type-checked.
_cases = import_module("tests.conv_einsum.cases")
_judge = import_module("tests.oracle.conv_einsum_validity").judge

OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding": "full", "stride": 2, "dilation": 2},
    {"padding": "same", "padding_mode": "circular"},
]
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
# Largest difference over the largest value.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per equation: the largest relative difference for each way of evaluating it."""
    for problem in _cases.CASES:
        if wanted(problem.name):
            yield guarded(problem.name, partial(_compare, problem, device))
    for case, measure in {"two devices are refused": _refusal, "torch.compile(fullgraph=True)": _compiled}.items():
        if wanted(case):
            yield guarded(case, partial(measure, device))


def _compare(problem: Any, device: torch.device) -> dict:
    worst: dict[str, float] = {}
    ok = True
    for options in OPTIONS if problem.convolved else [{}]:
        if _judge(problem.equation, problem.shapes, **options).refused:  # they leave the output empty
            continue
        expected = _cases.reference(problem.equation, problem.shapes, options)
        for name, dtype, value in _ways(problem, options, expected, device):
            difference = _difference(value, expected)
            worst[name] = max(worst.get(name, 0.0), difference)
            ok = ok and difference <= TOLERANCES[dtype]
    return {"largest relative difference": worst, "ok": ok}


def _ways(
    problem: Any, options: dict[str, Any], expected: Any, device: torch.device
) -> Iterator[tuple[str, torch.dtype, tuple[Tensor, ...]]]:
    """Yield a name, the type, and the value with its gradients, for every way of evaluating a problem."""

    def way(name: str, dtype: torch.dtype, call: Callable[..., Tensor], channels_last: bool = False) -> tuple:
        operands = [_on(x, device, dtype, channels_last) for x in expected.operands]
        value = call(*operands)
        gradients = torch.autograd.grad(value, operands, expected.weight.to(device, value.dtype))
        return name, dtype, (value, *gradients)

    def call(*operands: Tensor, **more: Any) -> Tensor:
        return conv_einsum(problem.equation, *operands, **options, **more)

    for dtype in TOLERANCES:
        yield way(str(dtype).removeprefix("torch."), dtype, call)
    yield way("left to right", torch.float64, lambda *x: call(*x, optimize=False))
    yield way("channels_last", torch.float64, call, channels_last=True)
    yield way("measured", torch.float64, lambda *x: call(*x, optimize="measure"))
    expression = conv_einsum_expression(problem.equation, *problem.shapes, train=True, **options)
    yield way("bound", torch.float64, lambda x, *rest: expression.bind(dict(enumerate(rest, 1)))(x))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        name, _, values = way("autocast", torch.float32, call)
    yield name, torch.bfloat16, values


def _on(x: Tensor, device: torch.device, dtype: torch.dtype, channels_last: bool) -> Tensor:
    layout = LAYOUTS.get(x.dim(), torch.contiguous_format) if channels_last else torch.contiguous_format
    return x.detach().to(device, dtype).contiguous(memory_format=layout).requires_grad_()


def _difference(values: tuple[Tensor, ...], expected: Any) -> float:
    pairs = zip(values, (expected.value, *expected.gradients), strict=True)
    return max(
        ((value.detach().cpu().double() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-3)).item()
        for value, wanted in pairs
    )


def _refusal(device: torch.device) -> dict:
    """Return whether operands on two devices are refused."""
    if device.type == "cpu":
        return {"skipped": NEEDS_CUDA}
    try:
        conv_einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 4, device=device))
        refused = False
    except ConvEinsumError:
        refused = True
    return {"ok": refused}


def _compiled(device: torch.device) -> dict:
    """Return whether a compiled call computes the same."""
    problem = _cases.NETWORKS[0]
    expected = _cases.reference(problem.equation, problem.shapes, {"padding": "same"})
    operands = [x.detach().to(device) for x in expected.operands]
    layer = torch.compile(
        lambda *x: conv_einsum(problem.equation, *x, padding="same"), fullgraph=True, backend="aot_eager"
    )
    difference = (layer(*operands).cpu() - expected.value).abs().max().item()
    return {"largest difference": difference, "ok": difference < 1e-10}
