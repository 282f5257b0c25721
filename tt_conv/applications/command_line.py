"""The ``tt-conv`` command: one function per subcommand, each importing what it needs when it runs."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from tt_conv._version import __version__

# Installed by the extra `applications`; the name of the module and that of the package differ at times.
_OF_THE_EXTRA = {"lightning", "torchmetrics", "matplotlib", "PIL", "jsonargparse", "docstring_parser"}


def demo(out: str | None = None, steps: int = 600, seed: int = 0) -> None:
    """Train ConvLSTM and ConvTT-LSTM on moving digits, side by side, and show what they learned.

    Takes one to two minutes on two cores. Ctrl-C stops the training and shows what was learned until then.

    Args:
        out: Folder for the table, curves, strips and animation; nothing in an existing one is overwritten.
            By default tt-conv-demo, or tt-conv-demo-2, ... where that exists.
        steps: Optimizer steps.
        seed: Seed of the sequences and the initial weights.
    """
    from tt_conv.applications.video_prediction.demo import DemoSettings, run_demo

    if not run_demo(DemoSettings(steps=steps, seed=seed), out):
        raise KeyboardInterrupt


COMMANDS: Mapping[str, Callable[..., None]] = {"demo": demo}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``tt-conv`` command line with ``arguments``, by default those of the process.

    What a user can mend (a wrong value, an existing folder, a missing package) ends in one line on stderr and
    exit status 2; with ``TT_CONV_TRACEBACK=1`` in the environment, in the whole trace. Ctrl-C gives 130.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"tt-conv {__version__}")
        return
    try:
        from jsonargparse import auto_cli

        auto_cli(dict(COMMANDS), args=given, prog="tt-conv", as_positional=False)
    except KeyboardInterrupt:
        print("tt-conv: interrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("TT_CONV_TRACEBACK"):
            raise
        print(f"tt-conv: error: {_in_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OF_THE_EXTRA:
        return f"this needs {error.name}, which is not installed: pip install 'tt-conv[applications]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
