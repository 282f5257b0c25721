"""The ``tt-conv`` command: one function per subcommand, each importing what it needs when it runs."""

import sys
from collections.abc import Sequence
from typing import Any

from tt_conv._version import __version__


def demo(out: str = "tt-conv-demo", steps: int = 0, seed: int = 0) -> None:
    """Train ConvLSTM and ConvTT-LSTM on moving digits, side by side, and show what they learned.

    Args:
        out: Folder for the table, curves, strips and animation; it must not exist yet.
        steps: Optimizer steps; 0 takes the default.
        seed: Seed of the data, the initial weights and the order of the batches.
    """


COMMANDS: dict[str, Any] = {"demo": demo}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``tt-conv`` command line with ``arguments``, by default those of the process."""
    from jsonargparse import auto_cli

    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"tt-conv {__version__}")
        return
    auto_cli(COMMANDS, args=given, prog="tt-conv", as_positional=False)
