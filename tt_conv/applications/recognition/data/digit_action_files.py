"""The embedded example: a few hundred labelled clips of moving digits, in the form of Something-Something V2."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications.data.cache import cache_folder
from tt_conv.applications.data.mnist import embedded_digits
from tt_conv.applications.data.splits import SPLITS, Split
from tt_conv.applications.data.video_file import write_video
from tt_conv.applications.recognition.data.digit_actions import ACTIONS, UNIFORMS, chosen_digits, draw_action
from tt_conv.checks import positive_int

# The same number for every action.
CLIPS: Mapping[Split, int] = MappingProxyType(
    {"train": 40 * len(ACTIONS), "validation": 10 * len(ACTIONS), "test": 12 * len(ACTIONS)}
)
VIDEOS, LABELS, CLASS_LIST = "20bn-something-something-v2", "labels", "classes.txt"
_VERSION = 1  # goes up with every change of what is written, so that a cached set is never taken for another
_RATE = 12  # frames per second, as of Something-Something V2
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_digit_actions(folder: Path | str, *, clips: Mapping[Split, int] = CLIPS, seed: int = 0) -> Path:
    """Write labelled clips of two moving digits in the on-disk form of Something-Something V2.

    The folder gets ``20bn-something-something-v2/<id>.webm`` (VP9, 16 frames of 64 x 64 pixels, 12 per second);
    ``labels/`` with ``labels.json`` (class to its number as text), ``train.json`` and ``validation.json`` (id, label,
    template, placeholders), ``test.json`` (ids alone) and ``test-answers.csv`` (``id;class``); and ``classes.txt``, a
    list of the classes. All clips show two digits, which differ between the splits; what they do is one of
    :data:`~tt_conv.applications.recognition.data.digit_actions.ACTIONS`.

    Parameters
    ----------
    folder : path
        New or empty; it takes its name once everything is written.
    clips : mapping
        How many, by split; spread evenly over the classes.
    seed : int
        Another seed gives other clips.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If the folder exists and is not empty.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     folder = write_digit_actions(Path(place, "digits"), clips={"train": 14, "validation": 14, "test": 14})
    ...     entry = json.loads((folder / "labels" / "train.json").read_text())[0]
    >>> sorted(entry)
    ['id', 'label', 'placeholders', 'template']
    """
    folder = Path(folder).expanduser()
    counts = {split: positive_int(clips[split], f"clips[{split!r}]") for split in SPLITS}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another")
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    try:
        (partial / VIDEOS).mkdir(parents=True)
        (partial / LABELS).mkdir()
        _write_all(partial, counts, seed)
        partial.replace(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write {folder} ({reason}): choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def digit_actions_folder(*, clips: Mapping[Split, int] = CLIPS, seed: int = 0, cache: Path | str | None = None) -> Path:
    """The folder of :func:`write_digit_actions`, written to the cache if it is not there.

    Parameters
    ----------
    clips, seed
        As of :func:`write_digit_actions`.
    cache : path, optional
        By default ``tt-conv`` in the user's cache folder.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If the cache cannot be written to.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as cache:
    ...     folder = digit_actions_folder(clips={"train": 8, "validation": 8, "test": 8}, cache=cache)
    ...     folder.is_dir()
    True
    """
    counts = [clips[split] for split in SPLITS]
    key = hashlib.sha256(f"{_VERSION} {seed} {counts}".encode()).hexdigest()[:12]
    folder = (cache_folder(None).parent if cache is None else Path(cache).expanduser()) / f"digit-actions-{key}"
    if not folder.is_dir():
        try:
            write_digit_actions(folder, clips=clips, seed=seed)
        except OSError as error:
            if not folder.is_dir():  # otherwise another process was first
                raise type(error)(f"{error}, with cache or in XDG_CACHE_HOME") from error
    return folder


def class_of_clip(split: Split, clips: Mapping[Split, int], seed: int) -> NDArray[np.int64]:
    """Which action each clip of a split shows: all equally often, up to one, in random order."""
    order = np.random.default_rng([seed, SPLITS.index(split), 0]).random(clips[split]).argsort(kind="stable")
    return order % len(ACTIONS)


def uniforms_of_clip(split: Split, seed: int, number: int) -> NDArray[np.float64]:
    """All other random numbers of a clip."""
    return np.random.default_rng([seed, SPLITS.index(split), 1, number]).random(UNIFORMS)


def _write_all(folder: Path, clips: Mapping[Split, int], seed: int) -> None:
    # Ids in random order over all splits, so that they tell nothing.
    ids = iter((1 + np.random.default_rng([seed, 9]).random(sum(clips.values())).argsort(kind="stable")).tolist())
    names = sorted(action.name for action in ACTIONS)
    _write_json(folder / LABELS / "labels.json", {name: str(number) for number, name in enumerate(names)})
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # encoders leave Python's lock
        for split in SPLITS:
            images, digits = embedded_digits(split)
            entries: list[dict[str, Any]] = []
            answers: list[str] = []
            jobs = []
            for number, which in enumerate(class_of_clip(split, clips, seed).tolist()):
                action, uniforms = ACTIONS[which], uniforms_of_clip(split, seed, number)
                things = [f"a {_NAMES[digits[chosen]]}" for chosen in chosen_digits(uniforms, len(images))]
                clip = str(next(ids))
                entries.append(
                    {
                        "id": clip,
                        "label": _filled(action.template, things),
                        "template": action.template,
                        "placeholders": things,
                    }
                )
                answers.append(f"{clip};{action.name}")
                frames = draw_action(action, uniforms, images)
                jobs.append(threads.submit(write_video, folder / VIDEOS / f"{clip}.webm", frames, rate=_RATE))
            for job in jobs:
                job.result()
            if split == "test":  # distributed without labels, the answers beside it
                (folder / LABELS / "test-answers.csv").write_text("\n".join(answers) + "\n")
                entries = [{"id": entry["id"]} for entry in entries]
            _write_json(folder / LABELS / f"{split}.json", entries)
    text = "# Classes of the moving digits, one a line\n" + "".join(f"{action.name}\n" for action in ACTIONS)
    (folder / CLASS_LIST).write_text(text)


def _filled(template: str, things: list[str]) -> str:
    for thing in things:
        template = template.replace("[something]", thing, 1)
    return template[0].lower() + template[1:]


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
