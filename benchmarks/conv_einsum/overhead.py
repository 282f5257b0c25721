"""What planning takes, and what a call costs over the same PyTorch operations written by hand.

An expression is compiled beforehand; ``conv_einsum`` finds its plan in memory. The smaller the operands, the more what
comes on top counts. A plan is made once per equation and shapes; the easiest one here takes as long as a few hundred
calls of a small matrix product.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.guarded import guarded
from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum.cache import network_of

CALLS = 20
"""Calls per timing, since one is too short to be timed."""

ROUNDS = 300

PLANNING_MILLISECONDS = 20.0
EXPRESSION_MICROSECONDS = 10.0
CONV_EINSUM_MICROSECONDS = 30.0

# Six operands each: ordinary ones, and the most expensive kinds to plan.
PLANNED: dict[str, tuple[str, list[tuple[int, ...]], dict]] = {
    "matrix chain": ("ab,bc,cd,de,ef,fg->ag", [(9, 9)] * 6, {}),
    "tucker": (
        "bihw,rstq,ir,os,ht,wq->bohw|hw",
        [(8, 64, 32, 32), (8, 9, 3, 3), (64, 8), (64, 9), (3, 3), (3, 3)],
        {"padding": "same"},
    ),
    "cp in three modes": (
        "bithw,or,ir,tr,hr,wr->bothw|thw",
        [(8, 32, 8, 32, 32), (64, 5), (32, 5), (3, 5), (3, 5), (3, 5)],
        {"padding": "same"},
    ),
    "five kernels on two modes": (
        "bihw,ahw,bhw,chw,dhw,ehw->bihwacde|hw",
        [(2, 3, 32, 32)] + [(2, 3, 3)] * 5,
        {"padding": "same"},
    ),
    "five circular kernels on three modes": (
        "bihwx,ahwx,bhwx,chwx,dhwx,ehwx->bihwxacde|hwx",
        [(2, 3, 32, 32, 9)] + [(2, 3, 3, 2)] * 5,
        {"padding": "same", "padding_mode": "circular"},
    ),
}


def _tucker(x: Tensor, core: Tensor, out: Tensor, into: Tensor) -> Tensor:
    y = F.conv2d(x, into.permute(1, 0).reshape(8, 16, 1, 1))
    y = F.conv2d(y, core, None, 1, 1)
    return F.conv2d(y, out.reshape(16, 8, 1, 1))


def _cp(x: Tensor, out: Tensor, into: Tensor, height: Tensor, width: Tensor) -> Tensor:
    y = F.conv2d(x, into.permute(1, 0).reshape(8, 16, 1, 1))
    y = F.conv2d(y, height.permute(1, 0).reshape(8, 1, 3, 1), None, 1, (1, 0), 1, 8)
    y = F.conv2d(y, width.permute(1, 0).reshape(8, 1, 1, 3), None, 1, (0, 1), 1, 8)
    return F.conv2d(y, out.reshape(16, 8, 1, 1))


# Name -> equation, shapes, options, path, and the same operations by hand.
CALLED: dict[str, tuple[str, list[tuple[int, ...]], dict, list, Callable[..., Tensor]]] = {
    "matrix product": ("ij,jk->ik", [(8, 8), (8, 8)], {}, [(0, 1)], torch.mm),
    "convolution": (
        "bihw,oihw->bohw|hw",
        [(1, 16, 8, 8), (16, 16, 3, 3)],
        {"padding": 1},
        [(0, 1)],
        lambda x, w: F.conv2d(x, w, None, 1, 1),
    ),
    "tucker": (
        "bihw,pqhw,op,iq->bohw|hw",
        [(1, 16, 8, 8), (8, 8, 3, 3), (16, 8), (16, 8)],
        {"padding": 1},
        [(0, 3), (0, 2), (0, 1)],
        _tucker,
    ),
    "cp": (
        "bihw,or,ir,hr,wr->bohw|hw",
        [(1, 16, 8, 8), (16, 8), (16, 8), (3, 8), (3, 8)],
        {"padding": 1},
        [(0, 2), (1, 3), (1, 2), (0, 1)],
        _cp,
    ),
}


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield the planning time of each equation, then the overhead of each call."""
    for name, (equation, shapes, options) in PLANNED.items():
        for train in (False, True):
            case = f"planning: {name}, {'training' if train else 'inference'}"
            if wanted(case):
                milliseconds = _planning(equation, shapes, {**options, "train": train})
                yield {"case": case, "milliseconds": milliseconds, "ok": milliseconds <= PLANNING_MILLISECONDS}
    for name in CALLED:
        for train in (False, True):
            case = f"call: {name}, {'training' if train else 'inference'}"
            if wanted(case):
                yield guarded(case, partial(_calls, name, device, train))


def _planning(equation: str, shapes: list[tuple[int, ...]], options: dict) -> float:
    """Return the median milliseconds of planning and lowering, without anything remembered."""
    times = []
    for _ in range(9):
        network_of.cache_clear()
        start = perf_counter()
        conv_einsum_path(equation, *shapes, shapes=True, **options)
        times.append(perf_counter() - start)
    return 1e3 * median(times)


def _calls(name: str, device: torch.device, train: bool) -> dict:
    """Return microseconds by hand, and how many more an expression and conv_einsum take, on one thread."""
    equation, shapes, options, path, by_hand = CALLED[name]
    operands = [torch.randn(shape, device=device, requires_grad=train) for shape in shapes]
    expression = conv_einsum_expression(equation, *shapes, optimize=path, train=train, **options)
    torch.testing.assert_close(expression(*operands), by_hand(*operands), rtol=1e-3, atol=1e-3)
    contenders: dict[str, Callable[[], object]] = {
        "by hand": lambda: by_hand(*operands),
        "expression": lambda: expression(*operands),
        "conv_einsum": lambda: conv_einsum(equation, *operands, optimize=path, **options),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        microseconds = _microseconds(contenders)
    finally:
        torch.set_num_threads(threads)
    extra = {contender: microseconds[contender] - microseconds["by hand"] for contender in microseconds}
    return {
        "microseconds by hand": microseconds["by hand"],
        "expression adds": extra["expression"],
        "conv_einsum adds": extra["conv_einsum"],
        "ok": extra["expression"] <= EXPRESSION_MICROSECONDS and extra["conv_einsum"] <= CONV_EINSUM_MICROSECONDS,
    }


def _microseconds(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median time of each call, in turns.

    It is the time of this thread, which does not run on when another program takes the processor; on a GPU it
    is what the calls cost beside the work on the device.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            start = thread_time()
            for _ in range(CALLS):
                call()
            times[name].append(thread_time() - start)
    return {name: 1e6 * median(values) / CALLS for name, values in times.items()}


def table(results: Sequence[Mapping]) -> str:
    """Return ratios: calls over the same operations by hand, planning over that of the first equation."""
    lines = [f"{'call, over the same operations by hand':<56}{'expression':>12}{'conv_einsum':>13}"]
    for result in results:
        if "microseconds by hand" in result:
            hand = result["microseconds by hand"]
            ratios = [1 + result[f"{way} adds"] / hand for way in ("expression", "conv_einsum")]
            lines.append(f"{result['case'].removeprefix('call: '):<56}{ratios[0]:>11.2f}x{ratios[1]:>12.2f}x")
    planned = [result for result in results if "milliseconds" in result]
    if planned:
        lines += ["", f"{'planning of six operands, over the first':<56}{'time':>12}"]
    for result in planned:
        ratio = result["milliseconds"] / planned[0]["milliseconds"]
        lines.append(f"{result['case'].removeprefix('planning: '):<56}{ratio:>11.2f}x")
    return "\n".join(lines)
