r"""
Compress a trained ConvLSTM
===========================

The network that comes with the package, two ConvLSTM layers trained on Moving-MNIST, gets smaller step by step. What
does it cost? ``tt-conv compress pretrained --sweep 0.5,0.25,0.125`` does the same from the shell.
"""

# %%
# Its 359,184 parameters are nearly all in two kernels of 5 x 5. It takes ten frames and predicts ten.
import matplotlib.pyplot as plt
import torch

from tt_conv.applications.compression import compress, load_pretrained
from tt_conv.applications.video_prediction import MovingMNIST

torch.set_num_threads(1)
model = load_pretrained()
test = MovingMNIST("test", 16, frames=20)
sequences = torch.stack([test[number] for number in range(len(test))])


@torch.inference_mode()
def mse(network: torch.nn.Module) -> float:
    predicted = network(sequences[:, :10], 10)[:, -10:]
    return float((predicted - sequences[:, 10:]).square().mean())


print(f"MSE of the original: {1e3 * mse(model):.2f} x 1e-3")

# %%
# Eight training sequences for calibration tell which directions of a layer's input matter. With them the same number of
# parameters loses less.
train = MovingMNIST("train", 8, frames=20)
frames = torch.stack([train[number] for number in range(len(train))])
calibration = [(frames[:, :10], 10)]
budgets = (0.5, 0.25, 0.125)
curves: dict[str, list[float]] = {"calibrated": [], "on weights alone": []}
for budget in budgets:
    for name, data in (("calibrated", calibration), ("on weights alone", None)):
        smaller, report = compress(model, budget=budget, data=data, formats=("svd",))
        curves[name].append(1e3 * mse(smaller))
        if budget == 0.25 and data is not None:
            quarter = smaller
            print(report)

# %%
# The curve from which one picks.
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.axhline(1e3 * mse(model), color="gray", linestyle="--", label="original")
for name, values in curves.items():
    axes.plot(budgets, values, "o-", label=name)
axes.set_xlabel("parameters left")
axes.set_ylabel("MSE x 1e-3")
axes.set_ylim(bottom=0)
axes.legend()
plt.show()

# %%
# And what a quarter of the parameters predicts, without any training after the compression. Fine-tuning
# (:func:`tt_conv.applications.video_prediction.fine_tune`) takes some minutes and brings back much of the rest.
with torch.inference_mode():
    rows = {
        "truth": sequences[0, 10:],
        "original": model(sequences[:1, :10], 10)[0, -10:],
        "a quarter": quarter(sequences[:1, :10], 10)[0, -10:],
    }
figure, grid = plt.subplots(3, 10, figsize=(10, 3.2), layout="constrained")
for line, (name, clip) in zip(grid, rows.items(), strict=True):
    for place, frame in zip(line, clip, strict=True):
        place.imshow(frame[0], cmap="gray", vmin=0, vmax=1)
        place.set_xticks([])
        place.set_yticks([])
    line[0].set_ylabel(name)
plt.show()
