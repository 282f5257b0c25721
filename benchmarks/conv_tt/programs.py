"""Programs of ConvTT layers.

Each layer is run by every program that it could choose, and as the dense convolution that it equals, with the dense
kernel as a parameter of its own. ``auto`` is the program that it chooses for its multiply-adds and bytes, ``measure``
the one that it finds by timing. What a byte counts in ``auto`` was chosen on these layers. Inference is with frozen
weights, so everything that weights give together is computed beforehand; training is a forward and a backward pass,
with the gradients of all weights. Numbers are times over that of the program with the fewest multiply-adds, medians of
interleaved runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.guarded import guarded
from benchmarks.interleaved import interleaved
from tt_conv import ConvTT
from tt_conv.conv_tt.program import ChainProgram, DenseProgram, price

LAYERS = [
    # in, out, kernel, order, steps, rank, image, batch
    (16, 32, 3, 2, 2, 4, 32, 8),
    (16, 32, 3, 2, 2, 16, 32, 8),
    (48, 192, 5, 3, 3, 8, 32, 2),
    (32, 128, 3, 3, 3, 8, 16, 8),
    (8, 32, 3, 3, 3, 64, 32, 4),
    (4, 64, 3, 2, 4, 32, 16, 16),
    (8, 16, 3, 2, 2, 2, 8, 1),
]
SMALL_LAYERS = [(4, 8, 3, 2, 2, 2, 8, 1), (4, 8, 3, 3, 3, 2, 8, 1)]
DENSE = "dense convolution"


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per layer and kind of pass."""
    for in_channels, out_channels, kernel, order, steps, rank, image, batch in SMALL_LAYERS if small else LAYERS:
        layer = ConvTT(in_channels, out_channels, kernel, order=order, steps=steps, rank=rank, optimize="measure")
        frames = torch.randn(batch, steps, in_channels, image, image, device=device)
        for train in (False, True):
            case = (
                f"{in_channels}->{out_channels} k{kernel} M{order} N{steps} R{rank} {image}x{image} B{batch} "
                f"{'training' if train else 'inference'}"
            )
            if wanted(case):
                yield guarded(case, partial(_measure, layer.to(device), frames, train=train))


def _measure(layer: ConvTT, frames: Tensor, *, train: bool) -> dict:
    shape = (frames.shape[0], 1, *frames.shape[2:])
    programs = layer.programs(shape, train=train, frozen=not train)
    fewest = min(programs, key=lambda program: program.cost()).name
    contenders = {program.name: _pass(program, layer, frames, train=train) for program in programs}
    contenders[DENSE] = _dense(layer, frames, train=train)
    for run in contenders.values():
        run()
    medians = interleaved(contenders, frames.device)
    return {
        "parameters": layer.to_conv_tt_tensor().n_parameters,
        "dense parameters": layer.to_tensor().numel(),
        "fewest multiply-adds": fewest,
        "auto": min(programs, key=price).name,
        "measure": programs[0].name,
        "time": {name: seconds / medians[fewest] for name, seconds in medians.items()},
        "macs": {program.name: program.cost()[0] for program in programs},
    }


def _pass(program: ChainProgram | DenseProgram, layer: ConvTT, frames: Tensor, *, train: bool) -> Callable[[], object]:
    bind, windows = program.compile().bind, layer.windows(frames.unbind(1))
    if not train:
        with torch.no_grad():
            frozen = bind(layer.weights())

    def run() -> None:
        with torch.set_grad_enabled(train):
            output = (bind(layer.weights()) if train else frozen)(windows)
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


def table(results: Sequence[Mapping]) -> str:
    """Return a line per layer and pass, then every program of it, then how the choices did."""
    lines = [
        f"{'layer, pass':<52}{'parameters':>12}{'auto':>8}{'measure':>9}{'fastest':>9}{'dense':>8}",
        f"{'':<52}{'of dense':>12}{'':>8}{'':>9}{'program':>9}{'conv.':>8}",
    ]
    for result in results:
        time = result["time"]
        fastest = min(value for name, value in time.items() if name != DENSE)
        share = result["parameters"] / result["dense parameters"]
        lines.append(
            f"{result['case']:<52}{share:>12.1%}{time[result['auto']]:>8.2f}{time[result['measure']]:>9.2f}"
            f"{fastest:>9.2f}{time[DENSE]:>8.2f}"
        )
    lines += ["", *_verdict(results, "auto"), *_verdict(results, "measure"), ""]
    for result in results:
        lines.append(f"{result['case']}: auto {result['auto']!r}, measure {result['measure']!r}")
        for name, value in result["time"].items():
            macs = f"{result['macs'][name]:12.4g} MACs" if name in result["macs"] else ""
            lines.append(f"    {name:<24}{value:>8.2f}  {macs}".rstrip())
    return "\n".join(lines)


def _verdict(results: Sequence[Mapping], choice: str) -> list[str]:
    """Say where a choice is more than 5 % slower than another program, and where than the dense convolution."""
    slower, than_dense = [], []
    for result in results:
        time, chosen = result["time"], result["time"][result[choice]]
        best = min((name for name in time if name != DENSE), key=time.__getitem__)
        if chosen > 1.05 * time[best]:
            slower.append(f"    {result['case']}: {chosen / time[best]:.2f} times the time of {best!r}")
        if chosen > 1.05 * time[DENSE]:
            than_dense.append(f"    {result['case']}: {chosen / time[DENSE]:.2f} times")
    return [
        f"optimize={choice!r} is more than 5 % slower than the fastest program in {len(slower)} of {len(results)}:",
        *slower,
        f"optimize={choice!r} is more than 5 % slower than the dense convolution in {len(than_dense)}:",
        *than_dense,
    ]


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure of how fast the chosen programs are against the dense convolution."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.36 * len(results) + 1.2), layout="constrained")
    for choice, marker in (("auto", "o"), ("measure", "x")):
        speeds = [result["time"][DENSE] / result["time"][result[choice]] for result in results]
        axes.plot(
            speeds, range(len(results)), marker, color="tab:blue" if choice == "auto" else "tab:orange", label=choice
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(results)), [result["case"] for result in results], fontsize=8)
    axes.set(xscale="log", xlabel="speed over the dense convolution (left of the line: slower)")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.legend(title="optimize=", frameon=False)
    return figure
