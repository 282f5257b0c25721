"""Train the small ConvLSTM that comes with the package, and store it among the package's files.

``python tools/train_pretrained.py FOLDER`` trains and leaves checkpoints and the history in FOLDER; stopped and called
again, it goes on from there. Two parts: EPOCHS epochs of a one-cycle schedule that would take PLANNED, then a shorter
cycle of COOLING steps at half its rate, which ends with a flat validation loss. About half an hour of one core of a
processor with AVX-512 BF16 instructions.
"""

import argparse
import csv
import json
import multiprocessing
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tt_conv import __version__
from tt_conv.applications.compression import save_compressed
from tt_conv.applications.compression.pretrained import PRETRAINED_FOLDER, TRAINING
from tt_conv.applications.training import Trained, load_trained, resume_training, run_training, settings_to_dict
from tt_conv.applications.training.callbacks import LAST
from tt_conv.applications.video_prediction.evaluation import evaluate
from tt_conv.applications.video_prediction.fine_tuning import Tuned, batches, fine_tune
from tt_conv.applications.video_prediction.open_data import open_data
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings

TARGET, FIRST = PRETRAINED_FOLDER, "first.ckpt"
STEPS_PER_EPOCH, BATCH, SEED = 500, 8, 0
PLANNED, EPOCHS, COOLING, CHECKS, LEARNING_RATE = 20, 9, 2000, 8, 3e-3
SETTINGS = Settings(
    data=DataSettings(sequences=STEPS_PER_EPOCH * BATCH, validation_sequences=256, test_sequences=256, fresh=True),
    model=ModelSettings(cell="conv_lstm", hidden_channels=[32], layers_per_block=[2], kernel_size=5, patch_size=4),
    training=TrainingSettings(
        epochs=PLANNED,
        batch_size=BATCH,
        loss="cross_entropy",
        learning_rate=LEARNING_RATE,
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
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    if not (folder / FIRST).exists():
        first_part(folder)
    store(folder, *second_part(folder / FIRST))


def first_part(folder: Path) -> None:
    """Train until the end of epoch EPOCHS, and keep its checkpoint."""
    training = multiprocessing.get_context("spawn").Process(target=_train, args=(folder,))
    training.start()
    while training.is_alive() and epochs_done(folder) < EPOCHS:
        time.sleep(1)
    training.kill()
    training.join()
    if epochs_done(folder) != EPOCHS:
        raise SystemExit(f"{folder / LAST} is not that of epoch {EPOCHS}")
    shutil.copy(folder / LAST, folder / FIRST)


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    if folder.exists():
        resume_training(folder)
    else:
        run_training(SETTINGS, folder)


def epochs_done(folder: Path) -> int:
    return len(history(folder)) if (folder / LAST).exists() else 0


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def second_part(checkpoint: Path) -> tuple[Trained, Tuned]:
    """Train on from a checkpoint, at rates that fall to nothing."""
    trained = load_trained(checkpoint)
    data = trained.settings.data
    tuned = fine_tune(
        trained.model,
        batches(open_data(data, "train"), BATCH, COOLING, epoch=EPOCHS),
        batches(open_data(data, "validation"), 32),
        given=data.given,
        learning_rate=LEARNING_RATE / 2,
        checks=CHECKS,
        precision="bf16-mixed",
    )
    return trained, tuned


def store(folder: Path, trained: Trained, tuned: Tuned) -> None:
    """Put the best weights among the package's files, with how they came about."""
    data = trained.settings.data
    sequences = DataLoader(open_data(data, "test"), batch_size=32)
    figures = evaluate({"model": tuned.model}, sequences, data.given)["model"]
    first = STEPS_PER_EPOCH * EPOCHS
    curve = [[int(row["step"]), row["validation_loss"]] for row in history(folder)[:EPOCHS]]
    curve += [[first + steps, loss] for steps, loss in tuned.validation[1:]]
    contents = {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "settings": settings_to_dict(trained.settings),
        "seed": SEED,
        "steps": first + tuned.steps,
        "cooling_steps": tuned.steps,
        "epochs_done": EPOCHS + COOLING // STEPS_PER_EPOCH,
        "sequences_seen": BATCH * (first + tuned.steps),
        "validation_loss": curve,
        "test": {name: statistics.fmean(figures[name]) for name in ("mse", "psnr", "ssim")},
    }
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as place:
        made = save_compressed(tuned.model, Path(place, TARGET.name))
        (made / TRAINING).write_text(json.dumps(contents, indent=1) + "\n")
        shutil.rmtree(TARGET, ignore_errors=True)
        made.rename(TARGET)
    size = sum(file.stat().st_size for file in TARGET.iterdir())
    print(f"{TARGET}: {size:,} bytes; test {contents['test']}")


if __name__ == "__main__":
    main()
