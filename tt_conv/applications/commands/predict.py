"""``tt-conv predict``."""

from typing import Any

from tt_conv.applications.commands.evaluate import CHANNELS, CHECKPOINT, RECIPE
from tt_conv.applications.commands.options import Option, TaskOptions, subcommand

TEXT = """Predict how a video goes on, or name its action: tt-conv predict --checkpoint run/best.ckpt --video clip.mp4.

Which of the two it is depends on what the checkpoint was trained for.
"""
_OPTIONS = TaskOptions("PredictionSettings")


def _run(
    checkpoint: str, video: str, out: str | None, recipe: str | None, channels: int | None, **settings: Any
) -> None:
    from tt_conv.applications.training.applications import application_of_file

    about = application_of_file(checkpoint, recipe)
    chosen = _OPTIONS.settings(about.task, settings, checkpoint)
    about.predict(checkpoint, video, out, chosen, recipe=recipe, channels=channels)


predict = subcommand(
    "predict",
    TEXT,
    [
        Option("checkpoint", str, CHECKPOINT),
        Option("video", str, "A video file (mp4, avi, webm, gif, ...), a folder of images, or a .npy or .npz array."),
        Option(
            "out",
            str | None,
            "Folder for prediction.mp4, .gif, .png and .npy, or labels.json, .csv and .png, new or empty; by default "
            "tt-conv-prediction, or tt-conv-prediction-2, ...",
            None,
        ),
        *_OPTIONS,
        RECIPE,
        CHANNELS,
    ],
    _run,
)
