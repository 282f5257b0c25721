r"""
Predict moving digits
=====================

A small ConvTT-LSTM network learns, on the CPU, how a handwritten digit goes on to move: data, training and
evaluation from Python. ``tt-conv train``, ``evaluate`` and ``predict`` do the same from the shell.
"""

# %%
# Real MNIST digits move over 64 x 64 pixels. Every sequence is a function of the seed and its number, and the digits of
# training and test are different ones.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from tt_conv.applications.training import load_trained, run_training
from tt_conv.applications.video_prediction import MovingMNIST, copy_last
from tt_conv.applications.video_prediction.metrics import FrameMetrics
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings

given, future = 8, 4
test = MovingMNIST("test", 64, frames=given + future, digits=1, speed=0.05)
print(test[0].shape, float(test[0].min()), float(test[0].max()))

# %%
# The settings are those of the recipe ``moving_mnist_conv_tt_lstm_small``, made shorter: one recurrent layer, 4 x 4
# patches of pixels folded into channels, 400 steps of 4 sequences.
settings = Settings(
    DataSettings(given=given, future=future, digits=1, speed=0.05, sequences=800, validation_sequences=32, fresh=True),
    ModelSettings(hidden_channels=[32], layers_per_block=[1], kernel_size=3, patch_size=4, rank=8),
    TrainingSettings(
        epochs=2,
        batch_size=4,
        loss="cross_entropy",
        learning_rate=0.01,
        growth=0.7,
        start_at_mean=True,
        accelerator="cpu",
        pictures_every=0,
    ),
)
with TemporaryDirectory() as folder:
    run_training(settings, Path(folder, "run"))
    model = load_trained(Path(folder, "run", "best.ckpt")).model

# %%
# How good is it? A copy of the last given frame is the least that must be beaten.
sequences = torch.stack([test[number] for number in range(len(test))])
with torch.inference_mode():
    predictions = {"ConvTT-LSTM": model(sequences[:, :given], future)[:, -future:]}
predictions["copy the last frame"] = copy_last(sequences[:, :given], future)
for name, predicted in predictions.items():
    metrics = FrameMetrics()
    metrics.update(predicted, sequences[:, given:])
    per_frame = metrics.compute()
    print(f"{name:<20} SSIM by frame: " + "  ".join(f"{value:.3f}" for value in per_frame["ssim"]))

# %%
# What it predicts: the last three given frames, then the truth above the prediction.
figure, axes = plt.subplots(2, 3 + future, figsize=(10, 3.2), layout="constrained")
for column in range(3 + future):
    axes[0, column].imshow(sequences[0, given - 3 + column, 0], cmap="gray", vmin=0, vmax=1)
    axes[0, column].set_title(f"given {given - 2 + column}" if column < 3 else f"+{column - 2}", fontsize=9)
    if column >= 3:
        axes[1, column].imshow(predictions["ConvTT-LSTM"][0, column - 3, 0], cmap="gray", vmin=0, vmax=1)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
for axis in axes[1, :3]:
    axis.axis("off")
axes[0, 0].set_ylabel("truth")
axes[1, 3].set_ylabel("predicted")
plt.show()
