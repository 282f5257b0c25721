"""``tt-conv compress``."""

from typing import Any

from tt_conv.applications.commands.evaluate import CHANNELS, RECIPE
from tt_conv.applications.commands.options import Option, TaskOptions, subcommand
from tt_conv.applications.commands.words import read_budgets, read_force, read_names

TEXT = """Make a trained network smaller: tt-conv compress run/best.ckpt --budget 0.25 --out smaller.

The folder gets model.safetensors and config.json, which load_compressed, tt-conv evaluate and tt-conv predict read;
report.json, table.md and layers.png. A sweep writes such a folder for each budget, sweep.json, table.md and curve.png.
"""
_OPTIONS = TaskOptions("CompressionSettings", without=("budgets", "formats", "keep", "force"))


def _run(
    checkpoint: str,
    budget: float | None,
    sweep: str | None,
    out: str | None,
    formats: str,
    keep: str,
    force: str,
    data: dict[str, Any] | None,
    inputs: str | None,
    recipe: str | None,
    channels: int | None,
    model: str | None,
    **settings: Any,
) -> None:
    from tt_conv.applications.training.applications import application, application_of_file
    from tt_conv.applications.training.settings import FIRST_TASK

    about = application(FIRST_TASK) if model is not None else application_of_file(checkpoint, recipe)
    settings |= {"budgets": read_budgets(budget, sweep), "formats": read_names(formats)}
    settings |= {"keep": read_names(keep), "force": read_force(force)}
    chosen = _OPTIONS.settings(about.task, settings, checkpoint)
    source = {"data": data, "inputs": inputs, "recipe": recipe, "channels": channels, "model": model}
    about.compress(checkpoint, out, chosen, **source)


compress_command = subcommand(
    "compress",
    TEXT,
    [
        Option(
            "checkpoint",
            str,
            "Of tt-conv train; published weights, with --recipe; anybody's, with --model; or pretrained, the network "
            "that comes with the package. It may stand first, unnamed.",
        ),
        Option("budget", float | None, "What may be left, such as 0.25.", None),
        Option("sweep", str | None, "Several budgets: 0.5,0.25,0.125.", None),
        Option(
            "out",
            str | None,
            "Folder to write to, new or empty; by default tt-conv-compressed, or tt-conv-compressed-2, ...",
            None,
        ),
        Option(
            "data",
            dict[str, Any] | None,
            "Data settings that differ from those of the training: --data.path videos/. With --model, those of "
            "sequences that the network takes as model(frames, future).",
            None,
        ),
        Option(
            "inputs",
            str | None,
            "Calibration data of other networks: a .npy array [N, ...], or a tensor of torch.save.",
            None,
        ),
        Option("formats", str, "To choose from, by default all: svd,tucker,tt,cp,conv_tt.", ""),
        Option("keep", str, "Name patterns of layers to leave as they are: output,blocks.0.*", ""),
        Option("force", str, "Formats of layers, with a rank if wanted: blocks.*=svd,output=svd:8", ""),
        *_OPTIONS,
        RECIPE,
        CHANNELS,
        Option(
            "model",
            str | None,
            "For weights of other networks: module:factory, a function that returns the network.",
            None,
        ),
    ],
    _run,
)
