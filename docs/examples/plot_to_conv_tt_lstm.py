r"""
A ConvLSTM goes on as a ConvTT-LSTM
===================================

The kernel of a trained ConvLSTM's hidden state becomes the newest level of a Conv-TT, and older states come in as
training goes on. How many of them are worth it, and what does the truncation cost at the start?
"""

# %%
# The network that comes with the package, and eight training sequences for calibration.
import matplotlib.pyplot as plt
import torch

from tt_conv.applications.compression import load_pretrained, to_conv_tt_lstm
from tt_conv.applications.video_prediction import MovingMNIST

model = load_pretrained()
train, test = MovingMNIST("train", 8, frames=20), MovingMNIST("test", 8, frames=20)
frames = torch.stack([train[number] for number in range(len(train))])
sequences = torch.stack([test[number] for number in range(len(test))])
calibration = [(frames[:, :10], 2)]


@torch.inference_mode()
def mse(network: torch.nn.Module) -> float:
    predicted = network(sequences[:, :10], 10)[:, -10:]
    return 1e3 * float((predicted - sequences[:, 10:]).square().mean())


# %%
# With data, order and steps are chosen: states count as long as they tell of what the truncated kernels lose.
converted, report = to_conv_tt_lstm(model, rank=16, data=calibration)
cell = converted.cells()[0]
print(f"order {cell.recurrent.order}, steps {cell.recurrent.steps}")
print(report)

# %%
# The smaller the rank, the worse the start; with data it is much better. Kernels of the frames stay as they are here.
ranks = (4, 8, 16)
starts = {
    "fitted to data": [mse(to_conv_tt_lstm(model, order=3, steps=3, rank=rank, data=calibration)[0]) for rank in ranks],
    "fitted to weights": [mse(to_conv_tt_lstm(model, order=3, steps=3, rank=rank)[0]) for rank in ranks],
}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.axhline(mse(model), color="gray", linestyle="--", label="the ConvLSTM")
for name, values in starts.items():
    axes.plot(ranks, values, "o-", label=name)
axes.set_xscale("log", base=2, nonpositive="clip")
axes.set_xticks(ranks, map(str, ranks))
axes.set_xlabel("rank")
axes.set_ylabel("MSE x 1e-3 before any training")
axes.set_ylim(bottom=0)
axes.legend()
plt.show()

# %%
# The older levels are silent at first, and gradients reach them one after the other: after two steps all of them learn.
levels = converted.cells()[0].recurrent
optimizer = torch.optim.Adam(converted.parameters(), lr=1e-4)
for step in range(4):
    optimizer.zero_grad()
    loss = (converted(frames[:, :10], 2)[:, -2:] - frames[:, 10:12]).square().mean()
    loss.backward()
    optimizer.step()
    sizes = [f"{float(core.detach().norm()):.4f}" for core in levels.cores]
    print(f"step {step + 1}: norms of the cores, oldest level first: {', '.join(sizes)}")
