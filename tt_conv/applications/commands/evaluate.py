"""``tt-conv evaluate``."""

from typing import Any

from tt_conv.applications.commands.options import Option, TaskOptions, subcommand

TEXT = """Evaluate a trained network: tt-conv evaluate --checkpoint run/best.ckpt --out results.

The checkpoint says what is evaluated: predicted frames, or recognized actions.
"""
CHECKPOINT = "Of tt-conv train, or the folder of tt-conv compress; or published weights, with --recipe."
RECIPE = Option(
    "recipe", str | None, "For weights that do not tell their architecture: a recipe or YAML file that does.", None
)
CHANNELS = Option("channels", int | None, "For such weights: channels of a frame, by default 1.", None)
_OPTIONS = TaskOptions("EvaluationSettings")


def _run(
    checkpoint: str,
    out: str | None,
    data: dict[str, Any] | None,
    recipe: str | None,
    channels: int | None,
    **settings: Any,
) -> None:
    from tt_conv.applications.training.applications import application_of_file

    about = application_of_file(checkpoint, recipe)
    chosen = _OPTIONS.settings(about.task, settings, checkpoint)
    about.evaluate(checkpoint, out, chosen, data=data, recipe=recipe, channels=channels)


evaluate_command = subcommand(
    "evaluate",
    TEXT,
    [
        Option("checkpoint", str, CHECKPOINT),
        Option(
            "out",
            str | None,
            "Folder for results.json, table.md and pictures, new or empty; by default tt-conv-evaluation, or "
            "tt-conv-evaluation-2, ...",
            None,
        ),
        *_OPTIONS,
        Option(
            "data",
            dict[str, Any] | None,
            "Data settings that differ from those of the training: --data.path videos/ --data.test_sequences 100.",
            None,
        ),
        RECIPE,
        CHANNELS,
    ],
    _run,
)
