r"""
Name an action before it is over
================================

A small ConvTT-LSTM learns, on the CPU, what two digits do: it names the action after every frame. ``tt-conv demo --task
recognition`` does the same with all actions and more training.
"""

# %%
# The package makes labelled clips of two MNIST digits, as WebM files with lists of labels in JSON. Four of the actions
# here begin like another one: going to the right like going there and back, moving up like moving up and then down.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from tt_conv.applications.recognition.evaluation import accuracy_of
from tt_conv.applications.recognition.open_data import open_data
from tt_conv.applications.recognition.settings import DataSettings, ModelSettings, Settings, TrainingSettings
from tt_conv.applications.training import load_trained, run_training

names = [
    "Moving something and something from left to right",
    "Moving something and something from left to right and back again",
    "Moving something and something from right to left",
    "Moving something and something down",
    "Moving something and something up",
    "Moving something and something up, then down again",
]
place = TemporaryDirectory()
Path(place.name, "classes.txt").write_text("\n".join(names))
data = DataSettings(
    classes=f"{place.name}/classes.txt", size=32, short_side=36, fresh=True, keep_decoded=True, cache=place.name
)
test = open_data(data, "test")
print(len(test), "test clips:", tuple(test[0][0].shape))

# %%
# Clips are cut out at another place in every epoch. The loss counts the answer after every frame, so one network learns
# to answer for every observed part of a clip.
settings = Settings(
    data,
    ModelSettings(kind="conv_tt_lstm", encoder_channels=[16, 32], hidden_channels=[32], rank=8),
    TrainingSettings(epochs=36, batch_size=16, learning_rate=5e-3, accelerator="cpu"),
)
run_training(settings, Path(place.name, "run"))
trained = load_trained(Path(place.name, "run", "last.ckpt"))

# %%
# The dashed line is the best that anyone could do: as long as two actions have shown the same, there is only a guess
# between them. One pair parts after 5 frames, the other one after 10.
accuracy = accuracy_of(trained.model, test)
best = [4 / 6 if seen <= 5 else 5 / 6 if seen <= 10 else 1 for seen in range(2, 17)]
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(range(1, 17), accuracy.top1, "o-", label="ConvTT-LSTM")
axes.step(range(2, 17), best, "--", where="mid", color="gray", label="best possible")
axes.axhline(1 / 6, ls=":", color="gray", label="chance")
axes.set(xlabel="frames seen, of 16", ylabel="accuracy", ylim=(0, 1.05))
axes.legend()
plt.show()

# %%
# A clip frame by frame, with the state in hand. Up and down again: half-way the network changes its mind.
clip = next(clip for clip, label in (test[number] for number in range(len(test))) if label == 5)
state, chances = None, []
with torch.inference_mode():
    for frame in clip.unsqueeze(1):
        scores, state = trained.model.step(frame, state)
        chances.append(scores[0].softmax(-1))
figure = plt.figure(figsize=(9, 3.6), layout="constrained")
strip, below = figure.subfigures(2, 1, height_ratios=(1, 3.4))
for axis, frame in zip(strip.subplots(1, 16), clip, strict=True):
    axis.imshow(frame[0], cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
axes = below.subplots()
for number in (4, 5, 3):
    name = trained.classes[number].removeprefix("Moving something and something ")
    axes.plot(range(1, 17), torch.stack(chances)[:, number], "o-", label=name)
axes.set(xlabel="frames seen", ylabel="probability", ylim=(0, 1.05))
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
place.cleanup()
