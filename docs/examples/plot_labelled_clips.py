"""
Clips whose actions part late
=============================

The embedded set for activity recognition: two digits do one of 14 things, some of which look the same for a while. So
how well anyone can do depends on how much of a clip has been seen.
"""

# %%
# Written to files in the form of Something-Something V2, and read from there. The set that recognition learns from is
# larger: ``digit_actions_folder()`` makes it once and keeps it in the cache.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from tt_conv.applications.recognition.data import ACTIONS, SomethingSomething, best_accuracy, write_digit_actions

FRAMES = 16

with TemporaryDirectory() as place:
    one_of_each = {"train": len(ACTIONS), "validation": 1, "test": 1}
    folder = write_digit_actions(Path(place, "digits"), clips=one_of_each, seed=5)
    data = SomethingSomething(folder, FRAMES, "train", channels=1, cache=place)
    clips = {data.classes[label]: frames[:, 0] for frames, label in (data[n] for n in range(len(data)))}

# %%
# Every other frame of one clip of each. A single one of them says little about what happens.

figure, rows = plt.subplots(len(clips), 1, figsize=(8, 15))
for axes, action in zip(rows, ACTIONS, strict=True):
    axes.imshow(np.concatenate(list(np.pad(clips[action.name][::2], ((0, 0), (0, 0), (0, 2)), constant_values=0.4)), 1))
    axes.set_title(action.name.replace("Moving something and something ", ""), fontsize=9, loc="left")
    axes.axis("off")
    axes.images[0].set_cmap("gray")
figure.tight_layout()

# %%
# The best accuracy that anyone could reach after a part of the frames is known exactly, because actions that have not
# parted yet have the same distribution of frames. From one frame it is an upper bound.

seen = np.arange(1, FRAMES + 1)
figure, axes = plt.subplots(figsize=(6, 3.5))
for top in (1, 2):
    axes.step(seen, [best_accuracy(frames / FRAMES, top) for frames in seen], where="post", label=f"best, top {top}")
axes.axhline(1 / len(ACTIONS), color="gray", linestyle="--", label="chance")
axes.set(xlabel="observed frames", ylabel="accuracy", ylim=(0, 1.05), xlim=(1, FRAMES))
for part in (0.25, 0.5):
    axes.axvline(part * FRAMES, color="gray", linewidth=0.5)
axes.legend()
figure.tight_layout()
