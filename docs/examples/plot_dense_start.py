r"""
Begin dense
===========

A ConvTT-LSTM learns less in as many steps than a ConvLSTM, not because of what its factors can represent but because of
how they are trained. With ``dense_start`` the first share of the steps trains a ConvLSTM of the same shape. It is then
converted with the training's own data, and the training goes on with the ConvTT-LSTM.
"""

# %%
# One digit moves over 24 x 24 pixels; 5 frames are given and 3 predicted. The training has 12 epochs of 16 steps; the
# two settings differ in ``dense_start`` alone, which here gives the first 3 epochs to the ConvLSTM.
import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

from tt_conv.applications.training import load_trained, run_training
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings

settings = Settings(
    DataSettings(
        size=24, digits=1, digit_size=12, given=5, future=3, sequences=64, validation_sequences=32, fresh=True
    ),
    ModelSettings(hidden_channels=[16], layers_per_block=[1], kernel_size=3, patch_size=4, order=3, steps=3, rank=4),
    TrainingSettings(
        epochs=12,
        batch_size=4,
        loss="cross_entropy",
        learning_rate=0.01,
        start_at_mean=True,
        pictures_every=0,
        accelerator="cpu",
    ),
)
recipes = {
    "from scratch": settings,
    "begun dense": replace(settings, training=replace(settings.training, dense_start=0.25)),
}

# %%
# The folder of each training has one history over all its epochs, and checkpoints of an ordinary ConvTT-LSTM.
histories, sizes = {}, {}
with TemporaryDirectory() as folder:
    for name, recipe in recipes.items():
        out = Path(folder) / name.replace(" ", "_")
        run_training(recipe, out)
        with (out / "history.csv").open() as file:
            histories[name] = [float(row["validation_loss"]) for row in csv.DictReader(file)]
        sizes[name] = sum(parameter.numel() for parameter in load_trained(out / "last.ckpt").model.parameters())
print({name: (f"{sizes[name]:,} parameters", losses[-1]) for name, losses in histories.items()})

# %%
# One training of each says little about which is better; :doc:`../benchmarks/generated/video_prediction_frontier` has
# several seeds and sizes.
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, losses in histories.items():
    axes.plot(range(1, len(losses) + 1), losses, "o-", label=name)
axes.axvline(3, color="gray", linestyle="--", label="converted after this epoch")
axes.set_xlabel("epoch")
axes.set_ylabel("validation loss")
axes.legend()
plt.show()
