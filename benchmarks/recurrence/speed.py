"""Recurrent networks side by side.

The published network of 12 layers, and a single layer of it, on frames of 64x64. *Baseline* is the obvious good
implementation (``benchmarks/recurrence/baseline.py``): NCHW memory, lags concatenated in the channels, one convolution
per projection and core, eager. *Naive* is the layer from its formulas, in loops over the taps, as the tests have it,
timed once. *ConvTT-LSTM* and *ConvLSTM* are the layers of the package, of the same width; *input_rank* is the
ConvTT-LSTM whose input convolution has that rank; *compiled* has had its ``.compile()``, *graphs* on a GPU its
``.use_cuda_graphs()``. bf16 and fp16 are autocast; fp32 convolutions on a GPU are what PyTorch makes of them, TF32. A
training step is the forward and the backward pass of a mean squared error, without the optimizer.

``time`` is over that of the baseline in fp32, medians of interleaved runs; ``speed`` is its inverse, ``own`` the speed
over the baseline in the same precision. ``memory`` is the most bytes of tensors held at once, over the fp32 baseline's.
``kernels`` counts what PyTorch starts in one call, where a graph counts once. ``MACs`` are the multiply-adds of the
model's convolutions, over the ConvLSTM's; ``of peak`` is the share of the device's measured peak in that precision that
those MACs reach (in training, three times the MACs).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.guarded import failure, guarded
from benchmarks.interleaved import interleaved, seconds
from benchmarks.recurrence.baseline import BaselinePredictor
from benchmarks.recurrence.measure import launches, peak_flops, peak_memory
from tests.oracle.conv_tt import conv_tt_lstm_sequence
from tests.oracle.parameters import conv_tt_parameters
from tt_conv.layers import ConvTTLSTMCell, FramePredictor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 64
NAIVE = "naive fp32"


@dataclass(frozen=True)
class Setting:
    """What is run: a network, on how many frames, with or without gradients."""

    network: str
    training: bool
    batch: int
    given: int
    future: int
    contenders: Sequence[str]

    @property
    def name(self) -> str:
        compiled = ", compiled" if set(self.contenders) == set(SOME_COMPILED) else ""
        return f"{'training' if self.training else 'inference'} {self.network} batch {self.batch}{compiled}"


MAIN = ("baseline fp32", "baseline bf16", "ConvTT-LSTM fp32", "ConvTT-LSTM bf16", "ConvLSTM fp32", "ConvLSTM bf16")
FACTORIZED = tuple(f"input_rank {rank} {precision}" for rank in (8, 12) for precision in ("fp32", "bf16"))
COMPILED = tuple(
    f"{name} compiled {precision}" for name in ("ConvTT-LSTM", "ConvLSTM") for precision in ("fp32", "bf16")
)
ALL = (*MAIN, *COMPILED, *FACTORIZED)
# To compile the steps of twelve layers takes minutes, so they are a case of their own.
SOME_COMPILED = ("baseline fp32", "baseline bf16", *COMPILED)
GRAPHS = tuple(
    f"{name} graphs {precision}"
    for name in ("ConvTT-LSTM", "ConvLSTM", "input_rank 8")
    for precision in ("bf16", "fp32")
)


def settings(device: torch.device) -> list[Setting]:
    """Return what is measured on a device, the cases that say most first."""
    if device.type == "cuda":
        # To compile twelve layers takes longer than all the rest.
        stack = (*MAIN, "ConvTT-LSTM fp16", *GRAPHS, "ConvTT-LSTM graphs fp16")
        layer = (*ALL, "ConvTT-LSTM fp16", *GRAPHS, "ConvTT-LSTM compiled graphs bf16", NAIVE)
        return [
            Setting(network, training, batch, 10, 10, contenders)
            for network, contenders in (("12 layers", stack), ("1 layer", layer))
            for training in (True, False)
            for batch in (2, 16)
        ]
    return [
        Setting("12 layers", True, 2, 4, 3, (*MAIN, *FACTORIZED)),
        Setting("12 layers", False, 2, 4, 3, (*MAIN, *FACTORIZED)),
        Setting("12 layers", True, 1, 4, 3, MAIN),
        Setting("12 layers", False, 1, 4, 3, MAIN),
        Setting("12 layers", False, 4, 4, 3, MAIN),
        Setting("1 layer", True, 2, 5, 5, (*ALL, NAIVE)),
        Setting("1 layer", False, 2, 5, 5, (*ALL, NAIVE)),
        Setting("12 layers", True, 2, 4, 3, SOME_COMPILED),
        Setting("12 layers", False, 2, 4, 3, SOME_COMPILED),
    ]


def network(kind: str, **options: object) -> FramePredictor:
    """Return the published network, or its widest kind of layer alone."""
    torch.manual_seed(0)
    if kind == "12 layers":
        return FramePredictor(1, **options)  # type: ignore[arg-type]
    return FramePredictor(48, (48,), (1,), **options)  # type: ignore[arg-type]


def build(contender: str, kind: str) -> tuple[nn.Module, int]:
    """Return the module of a contender and the MACs of one frame."""
    name, _ = contender.rsplit(" ", 1)
    options: dict[str, object] = {}
    words = name.split()
    if name.startswith("ConvLSTM"):
        options["cell"] = "conv_lstm"
    if "input_rank" in words:
        options["input_rank"] = int(words[1])
    model = network(kind, **options)
    if "compiled" in words:
        model.compile()
    macs = model.macs((SIDE, SIDE))
    return (BaselinePredictor(model) if name == "baseline" else model), macs


def runner(contender: str, setting: Setting, device: torch.device) -> Callable[[], object]:
    """Return what is timed."""
    if contender == NAIVE:
        return naive(setting, device)
    model = build(contender, setting.network)[0].to(device).train(setting.training)
    if "graphs" in contender.split():
        cast(FramePredictor, model).use_cuda_graphs()
    dtype = DTYPES[contender.rsplit(" ", 1)[1]]
    channels = 1 if setting.network == "12 layers" else 48
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(setting.batch, setting.given, channels, SIDE, SIDE, generator=generator).to(device)

    def predict() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(frames, setting.future)

    def train() -> None:
        model.zero_grad()
        predict().float().square().mean().backward()

    return train if setting.training else torch.no_grad()(predict)


def naive(setting: Setting, device: torch.device) -> Callable[[], object]:
    """Return the layer evaluated from its formulas, in loops over the taps of every kernel."""
    cell = cast(ConvTTLSTMCell, network(setting.network).cells()[0].to(device))
    input_weight = cast(nn.Conv2d, cell.input_conv).weight
    frames = torch.rand(setting.batch, setting.given + setting.future - 1, cell.in_channels, SIDE, SIDE, device=device)
    zero = frames.new_zeros(setting.batch, cell.hidden_channels, SIDE, SIDE)

    def run() -> None:
        with torch.set_grad_enabled(setting.training):
            outputs, _ = conv_tt_lstm_sequence(
                frames,
                input_weight,
                conv_tt_parameters(cell.recurrent),
                [zero] * cell.steps,
                zero,
                window="sliding",
                boundary="stagewise",
            )
            if setting.training:
                torch.stack(outputs).square().mean().backward()

    return run


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per network, kind of pass and batch."""
    peaks: dict[str, float] = {}
    for setting in settings(device):
        if wanted(setting.name):
            yield guarded(setting.name, partial(case, setting, device, peaks))


def case(setting: Setting, device: torch.device, peaks: dict[str, float]) -> dict:
    """Measure one setting; ``peaks`` remembers the peaks of the device by precision."""
    contenders: dict[str, Callable[[], object]] = {}
    memory: dict[str, int] = {}
    failed: dict[str, dict] = {}
    for name in setting.contenders:
        try:
            run = runner(name, setting, device)
            run()
            # A graph is recorded in the second call, and takes the memory of its call for good.
            memory[name] = peak_memory(run, device)
            contenders[name] = run
        except Exception as error:
            if name == "baseline fp32":
                raise
            failed[name] = failure(name, error)
    # It is too slow to take turns.
    slow = {name: seconds(contenders[name], device) for name in contenders if name == NAIVE}
    quick = {name: run for name, run in contenders.items() if name not in slow}
    on_gpu = device.type == "cuda"
    medians = slow | interleaved(quick, device, budget=8 if on_gpu else 20, fewest=3 if on_gpu else 5, most=30)
    passes = (setting.given + setting.future - 1) * setting.batch * (3 if setting.training else 1)
    rows = {}
    for name, run in contenders.items():
        precision = name.rsplit(" ", 1)[1]
        if precision not in peaks:
            peaks[precision] = peak_flops(DTYPES[precision], device)
        _, macs = build(name, setting.network)
        rows[name] = {
            "time": medians[name] / medians["baseline fp32"],
            "memory": memory[name] / memory["baseline fp32"],
            "kernels": launches(run, device),
            "macs": macs,
            "of peak": 2 * macs * passes / medians[name] / peaks[precision],
        }
    rest = {"failed": {name: result["error"] for name, result in failed.items()}, "ok": False} if failed else {}
    return {"frames": [setting.given, setting.future], "contenders": rows, **rest}


def table(results: Sequence[Mapping]) -> str:
    """Return a block of lines per case."""
    lines = []
    for result in (result for result in results if "contenders" in result):
        given, future = result["frames"]
        rows = result["contenders"]
        dense = next((row["macs"] for name, row in rows.items() if name.startswith("ConvLSTM")), None)
        lines.append(f"{result['case']}, {given} frames given and {future} predicted")
        lines.append(
            f"    {'':<30}{'time':>7}{'speed':>7}{'own':>7}{'memory':>8}{'kernels':>9}{'MACs':>7}{'of peak':>9}"
        )
        for name, row in rows.items():
            own = rows.get(f"baseline {name.rsplit(' ', 1)[1]}")
            lines.append(
                f"    {name:<30}{row['time']:>7.2f}{1 / row['time']:>7.2f}"
                + (f"{own['time'] / row['time']:>7.2f}" if own else f"{'':>7}")
                + f"{row['memory']:>8.2f}{row['kernels']:>9}"
                + (f"{row['macs'] / dense:>7.2f}" if dense else f"{'':>7}")
                + f"{row['of peak']:>9.0%}"
            )
        lines += [f"    {name:<30} failed: {error}" for name, error in result.get("failed", {}).items()]
        lines.append("")
    return "\n".join(lines)


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure of the speeds of the first case of each pass, over the baseline in fp32."""
    import matplotlib.pyplot as plt

    measured = [result for result in results if "contenders" in result]
    shown = [next((r for r in measured if r["case"].startswith(mode)), None) for mode in ("training", "inference")]
    figure, grid = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    names: list[str] = []
    for axes, result in zip(grid, shown, strict=True):
        for contender, row in (result or {"contenders": {}})["contenders"].items():
            name, precision = contender.rsplit(" ", 1)
            if name not in names:
                names.append(name)
            lower = precision != "fp32"
            place = names.index(name) + (0.2 if lower else -0.2)
            axes.barh(place, 1 / row["time"], height=0.4, color="tab:orange" if lower else "tab:blue")
            axes.annotate(f" {1 / row['time']:.2f} {precision}", (1 / row["time"], place), va="center", fontsize=8)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(title=result["case"] if result else "", xlabel="speed over the baseline in fp32")
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_yticks(range(len(names)), names)
    grid[0].invert_yaxis()
    return figure
