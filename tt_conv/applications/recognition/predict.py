"""Name the action in a video while it runs: ``tt-conv predict``."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from tt_conv.applications.output import OutputFolder
from tt_conv.applications.pictures import draw_strips
from tt_conv.applications.recognition.checkpoint import load_recognizer
from tt_conv.applications.recognition.data import read_clip
from tt_conv.applications.recognition.pictures import draw_labels
from tt_conv.applications.recognition.scores import ranked
from tt_conv.applications.recognition.settings import PredictionSettings
from tt_conv.applications.training.devices import checked_device


def run_prediction(
    checkpoint: Path | str,
    video: Path | str,
    out: Path | str | None = None,
    settings: PredictionSettings | None = None,
) -> list[dict[str, Any]]:
    """Rank the classes after each frame of a video, and write them as JSON, CSV and a picture.

    The frames are those that training takes for evaluation: as many as there, spread over the whole video. They pass
    the network one by one, so what is said after a frame knows nothing of the later ones.

    Parameters
    ----------
    checkpoint : path
        Of ``tt-conv train``.
    video : path
        A video file, a file of several pictures, or a folder of pictures.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-prediction``, or the first free name after it.
    settings : PredictionSettings, optional

    Returns
    -------
    list of dict
        After each frame, what ``labels.json`` holds: the observed part of the video, and classes with probabilities.

    Raises
    ------
    ValueError, OSError
        If the checkpoint or the video cannot be used, with the file, the reason and the remedy.

    Examples
    --------
    >>> import contextlib, io, tempfile
    >>> from tt_conv.applications.recognition.settings import DataSettings, ModelSettings, Settings, TrainingSettings
    >>> from tt_conv.applications.training import run_training
    >>> folder = tempfile.TemporaryDirectory()
    >>> settings = Settings(
    ...     DataSettings(frames=4, size=16, clips=14, validation_clips=14, test_clips=14, cache=folder.name),
    ...     ModelSettings("conv_lstm", encoder_channels=[4], hidden_channels=[4]),
    ...     TrainingSettings(epochs=1, batch_size=14),
    ... )
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     complete = run_training(settings, folder.name + "/run")
    >>> video = next(Path(folder.name).rglob("*.webm"))
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     after = run_prediction(folder.name + "/run/best.ckpt", video, folder.name + "/labels")
    >>> len(after)  # frames
    4
    >>> folder.cleanup()
    """
    settings = settings or PredictionSettings()
    top, device = settings.top, checked_device(settings.device)
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    trained = load_recognizer(checkpoint)
    data, model = trained.settings.data, trained.model.to(device)
    notes: list[str] = []
    clip = read_clip(
        video,
        data.frames,
        size=data.size,
        short_side=data.short_side,
        channels=trained.model.in_channels,
        notes=notes,
    )
    folder = OutputFolder.with_free_name("tt-conv-prediction") if out is None else OutputFolder(out)
    with folder, torch.inference_mode():
        dtype, state, every = next(model.parameters()).dtype, None, []
        for frame in clip.to(device, dtype).unsqueeze(1):
            scores, state = model.step(frame, state)
            every.append(scores[0].cpu())
        if not torch.stack(every).isfinite().all():
            raise ValueError("the scores are not finite: the training of this checkpoint diverged")
        labels: list[dict[str, Any]] = [
            {
                "frame": number + 1,
                "observed": (number + 1) / len(clip),
                "labels": [
                    {"label": name, "probability": probability}
                    for name, probability in ranked(scores, trained.classes, top)
                ],
            }
            for number, scores in enumerate(every)
        ]
        with folder.new_file("labels.json") as file:
            file.write_text(json.dumps({"video": str(video), "after_frame": labels}, indent=2) + "\n")
        with folder.new_file("labels.csv") as file, file.open("w", newline="") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(["frame", "observed", "rank", "label", "probability"])
            for row in labels:
                for rank, entry in enumerate(row["labels"], start=1):
                    probability = f"{entry['probability']:.6f}"
                    writer.writerow([row["frame"], row["observed"], rank, entry["label"], probability])
        with folder.new_file("labels.png") as file:
            draw_labels(file, clip, torch.stack(every).softmax(-1), trained.classes, str(video))
        written = "labels.json, .csv and .png"
        if model.ahead and trained.settings.training.prediction_weight:
            with folder.new_file("future.png") as file:
                _draw_future(file, model, clip, device)
            written += ", future.png"
    for note in notes:
        print(f"  {note}")
    print(_labels_in_words(labels))
    print(f"{written} are in {folder.path}")
    return labels


def _draw_future(path: Path, model: Any, clip: torch.Tensor, device: torch.device) -> None:
    """What the decoder predicts after half of the clip, under what came."""
    given = max(1, len(clip) // 2)
    ahead = min(model.ahead, len(clip) - given)
    shown = clip[: given + ahead]
    _, future = model.with_future(shown[None, :given].to(device, next(model.parameters()).dtype))
    predicted = future[0, -1, :ahead].sigmoid().float().cpu()
    draw_strips(
        path, [{"truth": shown, "predicted": predicted}], given, f"predicted after {given} of {len(clip)} frames"
    )


def _labels_in_words(labels: list[dict[str, Any]]) -> str:
    lines = [f"{'seen':>6}  likeliest"]
    for row in labels:
        first = row["labels"][0]
        lines.append(f"{100 * row['observed']:>4.0f} %  {first['label']} ({100 * first['probability']:.0f} %)")
    return "\n".join(lines)
