"""Train the small ConvLSTM that comes with the package, and store it among the package's files.

``python tools/train_pretrained.py FOLDER`` trains and leaves checkpoints and the history in FOLDER; called again, it
goes on from there. At the end of every epoch the training can be stopped; ``--store`` then writes what was learned.
About 45 minutes of one core of a processor with AVX-512 BF16 instructions.
"""

import argparse
import csv
import json
import platform
import shutil
import statistics
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tt_conv import __version__
from tt_conv.applications.compression import save_compressed
from tt_conv.applications.compression.pretrained import PRETRAINED_FOLDER, TRAINING
from tt_conv.applications.video_prediction.callbacks import BEST
from tt_conv.applications.video_prediction.checkpoint import load_trained
from tt_conv.applications.video_prediction.evaluation import evaluate
from tt_conv.applications.video_prediction.open_data import open_data, settings_to_dict
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings
from tt_conv.applications.video_prediction.train import resume_training, run_training

TARGET = PRETRAINED_FOLDER
STEPS_PER_EPOCH, BATCH, EPOCHS, SEED = 500, 8, 20, 0
SETTINGS = Settings(
    data=DataSettings(sequences=STEPS_PER_EPOCH * BATCH, validation_sequences=256, test_sequences=256, fresh=True),
    model=ModelSettings(cell="conv_lstm", hidden_channels=[32], layers_per_block=[2], kernel_size=5, patch_size=4),
    training=TrainingSettings(
        epochs=EPOCHS,
        batch_size=BATCH,
        loss="cross_entropy",
        learning_rate=3e-3,
        growth=0.5,
        start_at_mean=True,
        precision="bf16",
        seed=SEED,
        accelerator="cpu",
        pictures_every=0,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", action="store_true", help="only store what was learned so far")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.store:
        complete = (
            resume_training(options.folder) if options.folder.exists() else run_training(SETTINGS, options.folder)
        )
        if not complete:
            return
    store(options.folder)


def store(folder: Path) -> None:
    """Put the best weights so far among the package's files, with how they came about."""
    trained = load_trained(folder / BEST)
    with (folder / "history.csv").open() as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    best = min(history, key=lambda row: row["validation_loss"])
    data = trained.settings.data
    sequences = DataLoader(open_data(data, "test"), batch_size=32)
    figures = evaluate({"model": trained.model}, sequences, data.given)["model"]
    contents = {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "settings": settings_to_dict(trained.settings),
        "seed": trained.settings.training.seed,
        "steps": int(best["step"]),
        "epochs_done": int(best["epoch"]),
        "sequences_seen": int(best["sequences"]),
        "test": {name: statistics.fmean(figures[name]) for name in ("mse", "psnr", "ssim")},
        "history": history,
    }
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as place:
        made = save_compressed(trained.model, Path(place, TARGET.name))
        (made / TRAINING).write_text(json.dumps(contents, indent=1) + "\n")
        shutil.rmtree(TARGET, ignore_errors=True)
        made.rename(TARGET)
    size = sum(file.stat().st_size for file in TARGET.iterdir())
    print(f"{TARGET}: {size:,} bytes; test {contents['test']}")


if __name__ == "__main__":
    main()
