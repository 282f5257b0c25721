"""What an evaluation of any task writes: results as JSON, a table, and what the task draws."""

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tt_conv._version import __version__
from tt_conv.applications.output import OutputFolder, json_text
from tt_conv.applications.training.checkpoint import Trained

MeasuresInto = Callable[[OutputFolder], tuple[dict[str, Any], str]]
"""Measures, prints and draws into the folder; returns what ``results.json`` and ``table.md`` hold."""


def facts_of(trained: Trained, checkpoint: Path | str, device: str) -> dict[str, Any]:
    """What ``results.json`` tells of the network and of the machine."""
    there = torch.device(device)
    return {
        "tt_conv": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(there) if there.type == "cuda" else f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "checkpoint": str(checkpoint),
        "model": asdict(trained.settings.model),
        "epochs_done": trained.epochs_done,
        "sequences_seen": trained.sequences_seen,
    }


def write_evaluation(out: Path | str | None, measure: MeasuresInto, pictures: str) -> dict[str, Any]:
    """Evaluate into a folder, of which nothing stays if that fails.

    Parameters
    ----------
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-evaluation``, or the first free name after it.
    measure : callable
        Takes the folder and returns the results and the text of ``table.md``.
    pictures : str
        What else is in the folder then, in words.

    Returns
    -------
    dict
        What ``results.json`` holds.
    """
    with (
        OutputFolder.with_free_name("tt-conv-evaluation", all_or_nothing=True)
        if out is None
        else OutputFolder(out, all_or_nothing=True)
    ) as folder:
        results, table = measure(folder)
        with folder.new_file("results.json") as file:
            file.write_text(json_text(results))
        with folder.new_file("table.md") as file:
            file.write_text(table)
    print(f"results.json, table.md, {pictures} are in {folder.path}")
    return results
