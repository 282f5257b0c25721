"""Recurrent networks side by side.

The published network of 12 layers, and a single layer of it, on frames of 64x64. *Baseline* is the obvious good
implementation (``benchmarks/recurrence/baseline.py``): NCHW memory, lags concatenated in the channels, one convolution
per projection and core, eager. *Naive* is the layer from its formulas, in loops over the taps, as the tests have it,
timed once. *ConvTT-LSTM* and *ConvLSTM* are the layers of the package, of the same width; *input_rank* is the
ConvTT-LSTM whose input convolution has that rank; *compiled* has had its ``.compile()``, *graphs* on a GPU its
``.use_cuda_graphs()``. bf16 and fp16 are autocast; on a GPU, tf32 is what PyTorch makes of fp32 convolutions unless it
is told otherwise, and fp32 has told it. A training step is the forward and the backward pass of a mean squared error,
without the optimizer.

``time`` is over that of the baseline in fp32, medians of interleaved runs; ``speed`` is its inverse, ``own`` the speed
over the baseline in the same precision. ``memory`` is the most bytes of tensors held at once, over the fp32 baseline's.
``kernels`` counts what PyTorch starts in one call, where a graph counts once. ``MACs`` are the multiply-adds of the
model's convolutions, over the ConvLSTM's; ``of peak`` is the share of the device's measured peak in that precision that
those MACs reach (in training, three times the MACs). A graph keeps the memory of its call, so contenders with graphs
take turns with the baseline one by one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.guarded import failure, fitting, guarded, release_memory
from benchmarks.interleaved import interleaved, seconds
from benchmarks.recurrence.baseline import BaselinePredictor
from benchmarks.recurrence.measure import launches, peak_flops, peak_memory
from tests.oracle.conv_tt import conv_tt_lstm_sequence
from tests.oracle.parameters import conv_tt_parameters
from tt_conv.layers import ConvTTLSTMCell, FramePredictor

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 64
BASELINE = "baseline fp32"
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
    kind: str = ""
    side: int = SIDE

    @property
    def name(self) -> str:
        kind = f", {self.kind}" if self.kind else ""
        return f"{'training' if self.training else 'inference'} {self.network} batch {self.batch}{kind}"


MAIN = (BASELINE, "baseline bf16", "ConvTT-LSTM fp32", "ConvTT-LSTM bf16", "ConvLSTM fp32", "ConvLSTM bf16")
FACTORIZED = tuple(f"input_rank {rank} {precision}" for rank in (8, 12) for precision in ("fp32", "bf16"))
COMPILED = tuple(
    f"{name} compiled {precision}" for name in ("ConvTT-LSTM", "ConvLSTM") for precision in ("fp32", "bf16")
)
ALL = (*MAIN, *COMPILED, *FACTORIZED)
# To compile the steps of twelve layers takes minutes, so they are a case of their own.
SOME_COMPILED = (BASELINE, "baseline bf16", *COMPILED)

BASELINES_ON_GPU = (BASELINE, "baseline tf32", "baseline bf16")
EAGER_ON_GPU = (
    *BASELINES_ON_GPU,
    *(
        f"{name} {precision}"
        for name in ("ConvTT-LSTM", "ConvLSTM", "input_rank 8")
        for precision in ("fp32", "tf32", "bf16")
    ),
    "ConvTT-LSTM fp16",
)
GRAPHS_ON_GPU = (
    *BASELINES_ON_GPU,
    *(
        f"{name} graphs {precision}"
        for name in ("ConvTT-LSTM", "ConvLSTM", "input_rank 8")
        for precision in ("bf16", "tf32")
    ),
    "ConvTT-LSTM graphs fp32",
    "ConvTT-LSTM graphs fp16",
)
COMPILED_ON_GPU = (
    *BASELINES_ON_GPU,
    *(f"{name} compiled {precision}" for name in ("ConvTT-LSTM", "ConvLSTM") for precision in ("bf16", "tf32")),
    "ConvTT-LSTM compiled graphs bf16",
    "ConvLSTM compiled graphs bf16",
)


def settings(device: torch.device) -> list[Setting]:
    """Return what is measured on a device, the cases that say most first."""
    return _settings_on_gpu() if device.type == "cuda" else _settings_on_cpu()


def _settings_on_gpu() -> list[Setting]:
    twelve = [
        Setting("12 layers", training, batch, 10, 10, contenders, kind)
        for batch in (2, 16)
        for training in (True, False)
        for kind, contenders in (("", EAGER_ON_GPU), ("graphs", GRAPHS_ON_GPU))
    ]
    # To compile twelve layers takes longer than all the rest.
    compiled = [
        Setting(network, training, batch, 10, 10, COMPILED_ON_GPU, "compiled")
        for network in ("1 layer", "12 layers")
        for batch in (2, 16)
        for training in (True, False)
    ]
    one = [Setting("1 layer", training, 2, 10, 10, (*EAGER_ON_GPU, NAIVE)) for training in (True, False)]
    return [*twelve, *compiled[:4], *one, *compiled[4:]]


def _settings_on_cpu() -> list[Setting]:
    return [
        Setting("12 layers", True, 2, 4, 3, (*MAIN, *FACTORIZED)),
        Setting("12 layers", False, 2, 4, 3, (*MAIN, *FACTORIZED)),
        Setting("12 layers", True, 1, 4, 3, MAIN),
        Setting("12 layers", False, 1, 4, 3, MAIN),
        Setting("12 layers", False, 4, 4, 3, MAIN),
        Setting("1 layer", True, 2, 5, 5, (*ALL, NAIVE)),
        Setting("1 layer", False, 2, 5, 5, (*ALL, NAIVE)),
        Setting("12 layers", True, 2, 4, 3, SOME_COMPILED, "compiled"),
        Setting("12 layers", False, 2, 4, 3, SOME_COMPILED, "compiled"),
    ]


def _small_settings(device: torch.device) -> list[Setting]:
    """Return what a GPU is asked, with a layer in each block, on few and small frames; a CPU has no graphs."""
    return [
        replace(
            setting,
            network=setting.network.replace("12 layers", "4 layers"),
            batch=2 if setting.batch > 2 else 1,
            given=2,
            future=2,
            side=16,
            contenders=[name for name in setting.contenders if device.type == "cuda" or "graphs" not in name.split()],
        )
        for setting in _settings_on_gpu()
        if device.type == "cuda" or setting.kind != "graphs"
    ]


def network(kind: str, **options: object) -> FramePredictor:
    """Return the published network, one with the first layer of each of its blocks, or its widest kind of layer."""
    torch.manual_seed(0)
    if kind == "12 layers":
        return FramePredictor(1, **options)  # type: ignore[arg-type]
    if kind == "4 layers":
        return FramePredictor(1, layers_per_block=(1, 1, 1, 1), **options)  # type: ignore[arg-type]
    return FramePredictor(48, (48,), (1,), **options)  # type: ignore[arg-type]


def build(contender: str, setting: Setting) -> tuple[nn.Module, int]:
    """Return the module of a contender and the MACs of one frame."""
    name, _ = contender.rsplit(" ", 1)
    options: dict[str, object] = {}
    words = name.split()
    if name.startswith("ConvLSTM"):
        options["cell"] = "conv_lstm"
    if "input_rank" in words:
        options["input_rank"] = int(words[1])
    model = network(setting.network, **options)
    if "compiled" in words:
        model.compile()
    macs = model.macs((setting.side, setting.side))
    return (BaselinePredictor(model) if name == "baseline" else model), macs


@contextmanager
def rounding(precision: str, device: torch.device) -> Iterator[None]:
    """Let a GPU round the factors of fp32 products to TF32, or not."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def runner(contender: str, setting: Setting, device: torch.device) -> Callable[[], object]:
    """Return what is timed."""
    if contender == NAIVE:
        return naive(setting, device)
    model = build(contender, setting)[0].to(device).train(setting.training)
    if "graphs" in contender.split():
        cast(FramePredictor, model).use_cuda_graphs()
    precision = contender.rsplit(" ", 1)[1]
    dtype = DTYPES[precision]
    channels = 48 if setting.network == "1 layer" else 1
    generator = torch.Generator().manual_seed(0)
    size = (setting.side, setting.side)
    frames = torch.rand(setting.batch, setting.given, channels, *size, generator=generator).to(device)

    def predict() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(frames, setting.future)

    def infer() -> None:
        with rounding(precision, device), torch.no_grad():
            predict()

    def train() -> None:
        with rounding(precision, device):
            model.zero_grad()
            predict().float().square().mean().backward()

    return train if setting.training else infer


def naive(setting: Setting, device: torch.device) -> Callable[[], object]:
    """Return the layer evaluated from its formulas, in loops over the taps of every kernel."""
    cell = cast(ConvTTLSTMCell, network(setting.network).cells()[0].to(device))
    input_weight = cast(nn.Conv2d, cell.input_conv).weight
    size = (setting.side, setting.side)
    frames = torch.rand(setting.batch, setting.given + setting.future - 1, cell.in_channels, *size, device=device)
    zero = frames.new_zeros(setting.batch, cell.hidden_channels, *size)

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


def cases(
    device: torch.device, wanted: Callable[[str], bool] = lambda case: True, small: bool = False
) -> Iterator[dict]:
    """Yield one result per network, kind of pass, batch and kind of contenders."""
    peaks: dict[str, float] = {}
    for setting in _small_settings(device) if small else settings(device):
        if wanted(setting.name):
            yield guarded(setting.name, partial(fitting, setting.batch, _with_batch(setting, device, peaks)))


def _with_batch(setting: Setting, device: torch.device, peaks: dict[str, float]) -> Callable[[int], dict]:
    return lambda batch: case(replace(setting, batch=batch), device, peaks)


def case(setting: Setting, device: torch.device, peaks: dict[str, float]) -> dict:
    """Measure one setting; ``peaks`` remembers the peaks of the device by precision."""
    alone = [name for name in setting.contenders if "graphs" in name.split()]
    turns = [[name for name in setting.contenders if name not in alone], *([BASELINE, name] for name in alone)]
    rows: dict[str, dict] = {}
    failed: dict[str, str] = {}
    for names in turns:
        measured, errors = _side_by_side(names, setting, device, peaks)
        rows = measured | rows
        failed |= errors
        if alone:
            release_memory()
    ordered = {name: rows[name] for name in setting.contenders if name in rows}
    rest = {"failed": failed, "ok": False} if failed else {}
    return {"frames": [setting.given, setting.future], "contenders": ordered, **rest}


def _side_by_side(
    names: Sequence[str], setting: Setting, device: torch.device, peaks: dict[str, float]
) -> tuple[dict[str, dict], dict[str, str]]:
    """Return the figures of contenders that take turns, and the errors of those that failed."""
    contenders: dict[str, Callable[[], object]] = {}
    memory: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            run = runner(name, setting, device)
            run()
            # A graph is recorded in the second call, and takes the memory of its call for good.
            memory[name] = peak_memory(run, device)
            contenders[name] = run
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if name == BASELINE:
                raise
            failed[name] = failure(name, error)["error"]
    # It is too slow to take turns.
    slow = {name: seconds(contenders[name], device) for name in contenders if name == NAIVE}
    quick = {name: run for name, run in contenders.items() if name not in slow}
    on_gpu = device.type == "cuda"
    budget, fewest = (min(6.0, 0.7 * len(quick)), 3) if on_gpu else (20.0, 5)
    if setting.side < SIDE:
        budget, fewest = 0.0, 1
    medians = slow | interleaved(quick, device, budget=budget, fewest=fewest, most=30)
    passes = (setting.given + setting.future - 1) * setting.batch * (3 if setting.training else 1)
    rows = {}
    for name, run in contenders.items():
        precision = name.rsplit(" ", 1)[1]
        if precision not in peaks:
            with rounding(precision, device):
                peaks[precision] = peak_flops(DTYPES[precision], device, small=setting.side < SIDE)
        _, macs = build(name, setting)
        rows[name] = {
            "time": medians[name] / medians[BASELINE],
            "memory": memory[name] / memory[BASELINE],
            "kernels": launches(run, device),
            "macs": macs,
            "of peak": 2 * macs * passes / medians[name] / peaks[precision],
        }
    return rows, failed


def table(results: Sequence[Mapping]) -> str:
    """Return a block of lines per case."""
    lines = []
    for result in (result for result in results if "contenders" in result):
        given, future = result["frames"]
        rows = result["contenders"]
        dense = next((row["macs"] for name, row in rows.items() if name.startswith("ConvLSTM")), None)
        lines.append(f"{result['case']}, {given} frames given and {future} predicted")
        lines += [f"    {result['note']}"] if "note" in result else []
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
