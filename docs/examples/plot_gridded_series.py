r"""
Forecast a gridded series
=========================

Your own data: a series of fields on a grid, in physical units and not square. Here a field of temperatures is carried
by a wind and blurred as it goes. The series is simulated, so that the script needs no download; a file of measurements
in an array is used in the same way.
"""

# %%
# The simulation: warm and cold patches drift over a periodic 32 x 48 grid and spread by diffusion, while random sources
# keep them going. The result is an array ``[T, H, W]`` in degrees Celsius.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch

from tt_conv.applications.training import load_trained, run_training
from tt_conv.applications.video_prediction import copy_last
from tt_conv.applications.video_prediction.data import OwnVideos
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings


def simulate(steps, height=32, width=48, seed=0):
    random = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    squared = rows**2 + columns**2
    drift = np.exp(-2j * np.pi * (0.5 * rows + 1.0 * columns) - 8 * squared)  # half a row and one column per step
    smooth = np.exp(-300 * squared)
    field, fields = np.zeros((height, width), complex), []
    for _ in range(steps):
        field = 0.97 * drift * field + smooth * np.fft.fft2(random.standard_normal((height, width)))
        fields.append(np.fft.ifft2(field).real)
    series = np.stack(fields[40:])
    return (15 + 5 * series / series.std()).astype(np.float32)


series = simulate(640)
print(series.shape, series.min(), series.max())

# %%
# Temperatures have no usual range of values, so the values that become 0 and 1 must be stated. A single series is cut
# in time: the first 80 % of it is for training. What was decided is said in ``notes``.
value_range = (float(np.floor(series.min())), float(np.ceil(series.max())))
with TemporaryDirectory() as folder:
    np.save(Path(folder, "temperature.npy"), series)
    test = OwnVideos(Path(folder, "temperature.npy"), frames=12, split="test", value_range=value_range, stride=4)
    test_sequences = torch.stack([test[number] for number in range(len(test))])
    print(*test.notes, sep="\n")
    settings = Settings(
        DataSettings(
            "own",
            str(Path(folder, "temperature.npy")),
            given=8,
            future=4,
            value_range=value_range,
            stride=2,
            fresh=True,
        ),
        ModelSettings(hidden_channels=[24], layers_per_block=[1], kernel_size=3, patch_size=2, boundary="circular"),
        TrainingSettings(
            epochs=8,
            batch_size=8,
            learning_rate=0.01,
            growth=0.5,
            start_at_mean=True,
            accelerator="cpu",
            pictures_every=0,
        ),
    )
    run_training(settings, Path(folder, "run"))
    model = load_trained(Path(folder, "run", "best.ckpt")).model

# %%
# The error in degrees, by steps ahead, against persistence: the forecast that nothing changes.
scale = value_range[1] - value_range[0]
with torch.inference_mode():
    forecast = model(test_sequences[:, :8], 4)[:, -4:]
persistence = copy_last(test_sequences[:, :8], 4)
for name, predicted in (("ConvTT-LSTM", forecast), ("persistence", persistence)):
    errors = scale * (predicted - test_sequences[:, 8:]).square().mean(dim=(0, 2, 3, 4)).sqrt()
    print(f"{name:<12} root mean square error: " + "  ".join(f"{value:.2f} °C" for value in errors.tolist()))

# %%
figure, axes = plt.subplots(3, 4, figsize=(10, 5), layout="constrained")
for column in range(4):
    for row, fields in enumerate((test_sequences[0, 8:], forecast[0], persistence[0])):
        picture = axes[row, column].imshow(
            value_range[0] + scale * fields[column, 0], cmap="coolwarm", vmin=value_range[0], vmax=value_range[1]
        )
        axes[row, column].set(xticks=[], yticks=[])
    axes[0, column].set_title(f"+{column + 1}")
for axis, label in zip(axes[:, 0], ("simulated", "forecast", "persistence"), strict=True):
    axis.set_ylabel(label)
figure.colorbar(picture, ax=axes, label="°C")
plt.show()
