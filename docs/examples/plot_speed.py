r"""
The same numbers, faster
========================

One ConvTT-LSTM layer run as a whole sequence, frame by frame, and in bf16: what stays equal, and what it takes.
"""

# %%
# A layer with the widths of the published network, on frames of 32 x 32.
import time
from collections.abc import Callable
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from benchmarks.recurrence.baseline import BaselinePredictor
from tt_conv.layers import FramePredictor

torch.manual_seed(0)
model = FramePredictor(1, (48,), (1,), skip_stride=None, patch_size=2).eval()
frames = torch.rand(2, 10, 1, 64, 64)


# %%
# **A sequence** is walked through with weights prepared once and one convolution for all levels of the Conv-TT.
@torch.no_grad()
def sequence() -> Tensor:
    return model(frames, future=1)


# %%
# **A stream** takes one frame at a time and carries the state itself.
@torch.no_grad()
def stream() -> Tensor:
    states, predictions = None, []
    for frame in frames.unbind(1):
        prediction, states = model.step(frame, states)
        predictions.append(prediction)
    return torch.stack(predictions, dim=1)


# %%
# **In bf16** are the convolutions and the hidden states; the cell state stays in fp32.
@torch.no_grad()
def low_precision() -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(frames, future=1)


# %%
# Beside them the obvious implementation: one PyTorch convolution per projection and core, eager.
reference = BaselinePredictor(model)


@torch.no_grad()
def obvious() -> Tensor:
    return reference(frames, 1)


# %%
# The first three compute what the last one computes: in fp32 to rounding, in bf16 to the precision of its inputs.
ways: dict[str, Callable[[], Tensor]] = {
    "obvious": obvious,
    "sequence": sequence,
    "stream": stream,
    "bf16": low_precision,
}
expected = obvious()
for name, run in ways.items():
    difference = (run().float() - expected).abs().max() / expected.abs().max()
    print(f"{name:<10} largest difference {difference.item():.0e} of the largest value")

# %%
# Their times, taken in turns, over that of the obvious implementation. Whether bf16 gains depends on the processor.
times: dict[str, list[float]] = {name: [] for name in ways}
for _ in range(7):
    for name, run in ways.items():
        start = time.perf_counter()
        run()
        times[name].append(time.perf_counter() - start)
relative = {name: median(values) / median(times["obvious"]) for name, values in times.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
bars = left.barh(list(relative), list(relative.values()), color=["0.6", "C0", "C0", "C1"])
left.bar_label(bars, fmt="%.2f", padding=3)
left.set(xlabel="time, obvious implementation = 1", xlim=(0, 1.15 * max(relative.values())))
left.invert_yaxis()
errors = (low_precision().float() - expected)[0].flatten(1).norm(dim=1) / expected[0].flatten(1).norm(dim=1)
right.plot(range(1, len(errors) + 1), errors, "o-", color="C1")
right.set(xlabel="frame", ylabel="relative error of bf16", ylim=(0, None))
right.grid(alpha=0.3)
plt.show()

# %%
# The error of bf16 does not grow with the length of the sequence: what adds up over time, the cell state, is in fp32.
# The tables in :doc:`/benchmarks/generated/recurrence` show the published network of 12 layers, in training too.
