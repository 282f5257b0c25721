"""The ``tt-conv`` command: one function per subcommand, each importing what it needs when it runs."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from tt_conv._version import __version__
from tt_conv.applications.explain import words_of_explain
from tt_conv.applications.video_prediction.recipes import recipe_file, recipe_names, with_recipe_files
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings

# Installed by the extra `applications`; the name of the module and that of the package differ at times.
_OF_THE_EXTRA = {"lightning", "torchmetrics", "matplotlib", "PIL", "av", "tensorboard", "yaml"}
_OF_THE_EXTRA |= {"jsonargparse", "docstring_parser"}


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


def explain(
    equation: str,
    sizes: str = "",
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    padding_mode: str = "zeros",
    optimize: str = "auto",
    memory_limit: int | None = None,
    constants: str = "",
    reuse: int = 1,
    train: bool = False,
) -> None:
    """Show how a conv-einsum is evaluated, and what it costs: tt-conv explain "ij,jk->ik" --sizes 2,3 3,4.

    Args:
        equation: Such as "bihw,oihw->bohw|hw"; the modes after | are convolved. It may stand first, unnamed.
        sizes: Required: one shape per operand, in their order: 8,32,64,64 16,32,3,3.
        stride: One value, or by mode: h=2,w=1.
        padding: An int, valid, same or full; by mode also left:right, as in h=1:2,w=same.
        dilation: One value, or by mode.
        padding_mode: zeros or circular.
        optimize: auto, optimal, greedy, measure, another name that opt_einsum knows,
            left-to-right, or a path: '[(0, 1), (0, 1)]'.
        memory_limit: Largest number of elements of any intermediate.
        constants: Operands that never change, such as 1,2; what they give together is computed once.
        reuse: Calls per weight update.
        train: Choose the path for training: gradients of all operands that are not constants count.
    """
    from tt_conv.applications.explain import explain_equation

    print(
        explain_equation(
            equation,
            sizes,
            stride=stride,
            padding=padding,
            dilation=dilation,
            padding_mode=padding_mode,
            optimize=optimize,
            memory_limit=memory_limit,
            constants=constants,
            reuse=reuse,
            train=train,
        )
    )


def train(
    data: DataSettings,
    model: ModelSettings,
    training: TrainingSettings,
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Train a network to predict the next frames: tt-conv train --config moving_mnist_conv_tt_lstm_small --out run.

    --config takes a YAML file or the name of a recipe (tt-conv recipes lists them); what is given after it on the
    command line counts instead of what it says. The folder gets best.ckpt and last.ckpt, history.csv, sample
    pictures and a TensorBoard log. Ctrl-C stops; --resume goes on from the last complete epoch.

    Args:
        data: Which sequences.
        model: Which network.
        training: By which recipe, on what.
        out: Folder to write to, new or empty; by default tt-conv-training, or tt-conv-training-2, ...
        resume: Folder of a training to go on with, by the settings it has; nothing else counts then.
    """
    from tt_conv.applications.video_prediction.train import resume_training, run_training

    complete = resume_training(resume) if resume is not None else run_training(Settings(data, model, training), out)
    if not complete:
        raise KeyboardInterrupt


def recipes(name: str | None = None) -> None:
    """List the recipes for tt-conv train, or show one of them.

    Args:
        name: Print the YAML of this recipe, to be changed and given to tt-conv train --config.
    """
    if name is not None:
        print(recipe_file(name).read_text(), end="")
        return
    for each in recipe_names():
        print(f"{each:<40} {recipe_file(each).read_text().splitlines()[0].removeprefix('# ')}")


COMMANDS: Mapping[str, Callable[..., None]] = {"demo": demo, "train": train, "recipes": recipes, "explain": explain}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``tt-conv`` command line with ``arguments``, by default those of the process.

    What a user can mend (a wrong value, an existing folder, a missing package) ends in one line on stderr and
    exit status 2; with ``TT_CONV_TRACEBACK=1`` in the environment, in the whole trace. Ctrl-C gives 130.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"tt-conv {__version__}")
        return
    if given[:1] == ["explain"]:
        given = ["explain", *words_of_explain(given[1:])]
    try:
        given = with_recipe_files(given)
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
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in _OF_THE_EXTRA:
        return f"this needs {package}, which is not installed: pip install 'tt-conv[applications]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
