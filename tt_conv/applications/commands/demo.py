"""``tt-conv demo``."""

from tt_conv.applications.commands.options import Option, subcommand, task_option
from tt_conv.applications.training.settings import settings_class

TEXT = """Train ConvLSTM and ConvTT-LSTM on moving digits, side by side, and show what they learned.

They learn to predict the next frames (one to two minutes on two cores) or, with --task recognition, to name what
two digits do before they have done it (up to five minutes). Ctrl-C stops the training and shows what was learned
until then. At the end of video prediction a trained network that comes with the package is compressed.
"""


def _run(task: str, out: str | None, steps: int | None, seed: int) -> None:
    from tt_conv.applications.training.applications import application

    kind = settings_class(task, "DemoSettings")
    settings = kind(seed=seed) if steps is None else kind(steps=steps, seed=seed)
    if not application(task).demo(settings, out):
        raise KeyboardInterrupt


demo = subcommand(
    "demo",
    TEXT,
    [
        task_option("What is learned."),
        Option(
            "out",
            str | None,
            "Folder for the table, curves and pictures; nothing in an existing one is overwritten. By default "
            "tt-conv-demo, or tt-conv-demo-2, ... where that exists.",
            None,
        ),
        Option("steps", int | None, "Optimizer steps; by default 600, or 2100 of recognition.", None),
        Option("seed", int, "Seed of the data and the initial weights.", 0),
    ],
    _run,
)
