"""The ``tt-conv`` command line."""

import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from tt_conv._version import __version__
from tt_conv.applications.extras import missing_extra

# Subcommand -> what is called, in the order of the help; each file is read when the command line runs.
COMMANDS: Mapping[str, str] = {
    "demo": "demo.demo",
    "train": "train.train",
    "evaluate": "evaluate.evaluate_command",
    "predict": "predict.predict",
    "data": "data.DATA",
    "compress": "compress.compress_command",
    "recipes": "recipes.recipes",
    "explain": "explain.explain",
}


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
        commands = {name: _command(place) for name, place in COMMANDS.items()}
        auto_cli(_prepared(given, commands), args=given, prog="tt-conv", as_positional=False, parser_class=_Parser)
    except KeyboardInterrupt:
        print("tt-conv: interrupted", file=sys.stderr)
        sys.exit(130)
    except _to_be_mended() as error:
        if os.environ.get("TT_CONV_TRACEBACK"):
            raise
        print(f"tt-conv: error: {_in_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _command(place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"tt_conv.applications.commands.{module}"), name)


def _prepared(given: list[str], commands: dict[str, Any]) -> dict[str, Any]:
    """Bring a command line into the form that the parser knows, in place; return the subcommands for it."""
    from tt_conv.applications.commands.explain import words_of_explain
    from tt_conv.applications.training.recipes import with_recipe_files
    from tt_conv.applications.training.settings import FIRST_TASK, task_of_arguments

    if given[:1] == ["explain"]:
        given[1:] = words_of_explain(given[1:])
    if given[:1] == ["compress"] and given[1:] and not given[1].startswith("-"):
        given.insert(1, "--checkpoint")
    if given[:1] == ["train"]:
        _check_resume(given[1:])
    given[:] = with_recipe_files(given)
    # The settings that a training has depend on its task.
    commands["train"] = commands["train"](task_of_arguments(given[1:]) if given[:1] == ["train"] else FIRST_TASK)
    return commands


def _check_resume(words: list[str]) -> None:
    """Refuse what stands beside ``--resume``: a training goes on by the settings that it has."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    others = [name for name in options if name not in ("--resume", "--help")]
    if "--resume" in options and others:
        raise ValueError(
            f"--resume goes on by the settings of the training, {', '.join(others)} would not count: leave that out, "
            "or change settings.yaml in its folder (where the data are, the devices, and more epochs if "
            "training.schedule is plateau)"
        )


class _Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        self.exit(2, f"tt-conv: error: {' '.join(message.split())}{_nearest(message, parser)}\n")


def _nearest(message: str, parser: ArgumentParser) -> str:
    """Name the options that a mistyped one resembles, and where all of them are listed."""
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    typed = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
    near = [name for word in typed if word not in known for name in get_close_matches(word, known, n=1)]
    said = f"; did you mean {' '.join(near)}?" if near else ""
    return f"{said} ({parser.prog.replace(' [options]', '')} --help lists what there is)"


def _to_be_mended() -> tuple[type[Exception], ...]:
    return (ValueError, OSError, ImportError, RecursionError, *_memory_errors())


def _memory_errors() -> tuple[type[Exception], ...]:
    """What PyTorch raises when memory runs out, if it was imported at all."""
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ImportError) and (message := missing_extra(error)):
        return message
    if isinstance(error, _memory_errors()):
        return (
            f"the memory does not suffice ({' '.join(str(error).split())[:200] or 'MemoryError'}): give smaller sizes"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
