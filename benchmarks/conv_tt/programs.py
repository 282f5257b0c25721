"""The program that a ConvTT layer chooses against each fixed one and against the dense convolution."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.interleaved import interleaved
from tt_conv import ConvTT
from tt_conv.program import Evaluate

LAYERS = [
    # in, out, kernel, order, steps, rank, image, batch
    (16, 32, 3, 2, 2, 4, 32, 8),
    (16, 32, 3, 2, 2, 16, 32, 8),
    (48, 192, 5, 3, 3, 8, 32, 2),
    (32, 128, 3, 3, 3, 8, 16, 8),
    (8, 32, 3, 3, 3, 64, 32, 4),
    (4, 64, 3, 2, 4, 32, 16, 16),
]


def table(results: Sequence[Mapping]) -> str:
    """Return what was chosen, and how much faster or slower each alternative is."""
    lines = ["time of the chosen program over the time of each (below 1: the chosen one is faster)", ""]
    for result in results:
        lines.append(f"{result['case']}: chosen {result['chosen']}, fastest {result['fastest']}")
        for name, value in result["time of chosen over time of"].items():
            macs = result["macs of"].get(name)
            cost = f"{macs:12.4g} MACs" if macs is not None else ""
            lines.append(f"    {name:<24}{value:>8.2f}  {cost}".rstrip())
    return "\n".join(lines)


def cases(device: torch.device) -> Iterator[dict]:
    """Yield one result per layer and kind of pass."""
    for in_channels, out_channels, kernel, order, steps, rank, image, batch in LAYERS:
        layer = ConvTT(in_channels, out_channels, kernel, order=order, steps=steps, rank=rank).to(device)
        frames = torch.randn(batch, steps, in_channels, image, image, device=device)
        for train in (False, True):
            yield {
                "case": f"{in_channels}->{out_channels} k{kernel} M{order} N{steps} R{rank} {image}x{image} B{batch} "
                f"{'training' if train else 'inference'}",
                **_measure(layer, frames, train=train),
            }


def _measure(layer: ConvTT, frames: Tensor, *, train: bool) -> dict:
    shape = (frames.shape[0], 1, *frames.shape[2:])
    programs = layer.programs(shape, train=train)
    contenders = {program.name: _pass(program.compile().bind, layer, frames, train=train) for program in programs}
    contenders["dense convolution"] = _dense(layer, frames, train=train)
    for run in contenders.values():
        run()
    medians = interleaved(contenders, frames.device)
    chosen = programs[0].name
    fastest = min((name for name in contenders if name != "dense convolution"), key=medians.__getitem__)
    return {
        "chosen": chosen,
        "fastest": fastest,
        "time of chosen over time of": {name: medians[chosen] / value for name, value in medians.items()},
        "macs of": {program.name: program.cost()[0] for program in programs},
    }


def _pass(bind: Callable[..., Evaluate], layer: ConvTT, frames: Tensor, *, train: bool) -> Callable[[], object]:
    def run() -> None:
        with torch.set_grad_enabled(train):
            output = bind(layer.weights())(layer.windows(frames.unbind(1)))
            if train:
                output.sum().backward()

    return run


def _dense(layer: ConvTT, frames: Tensor, *, train: bool) -> Callable[[], object]:
    """Convolve with a dense kernel that is a parameter itself, as a layer without factors would."""
    weight = layer.to_tensor().detach().transpose(1, 2).flatten(1, 2).requires_grad_(train)
    padding = [(k - 1) // 2 for k in weight.shape[2:]]

    def run() -> None:
        with torch.set_grad_enabled(train):
            output = F.conv2d(frames.flatten(1, 2), weight, layer.bias, padding=padding)
            if train:
                output.sum().backward()

    return run
