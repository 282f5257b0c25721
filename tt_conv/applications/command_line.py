"""The ``tt-conv`` command: one function per subcommand, each importing what it needs when it runs."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tt_conv._version import __version__
from tt_conv.applications.explain import words_of_explain
from tt_conv.applications.extras import missing_extra
from tt_conv.applications.recognition.settings import DataSettings as ClipSettings
from tt_conv.applications.recognition.settings import ModelSettings as RecognizerSettings
from tt_conv.applications.recognition.settings import Settings as RecognitionSettings
from tt_conv.applications.recognition.settings import TrainingSettings as RecognitionTrainingSettings
from tt_conv.applications.training.recipes import recipe_file, recipe_names, with_recipe_files
from tt_conv.applications.training.settings import task_of_arguments
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings, TrainingSettings


def demo(
    task: Literal["video_prediction", "recognition"] = "video_prediction",
    out: str | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> None:
    """Train ConvLSTM and ConvTT-LSTM on moving digits, side by side, and show what they learned.

    They learn to predict the next frames (one to two minutes on two cores) or, with --task recognition, to name what
    two digits do before they have done it (up to five minutes). Ctrl-C stops the training and shows what was learned
    until then. At the end of video prediction a trained network that comes with the package is compressed.

    Args:
        task: What is learned.
        out: Folder for the table, curves and pictures; nothing in an existing one is overwritten.
            By default tt-conv-demo, or tt-conv-demo-2, ... where that exists.
        steps: Optimizer steps; by default 600, or 2100 of recognition.
        seed: Seed of the data and the initial weights.
    """
    if task == "recognition":
        from tt_conv.applications.recognition import demo as recognition

        complete = recognition.run_demo(recognition.DemoSettings(2100 if steps is None else steps, seed), out)
    else:
        from tt_conv.applications.video_prediction.demo import DemoSettings, run_demo

        complete = run_demo(DemoSettings(steps=600 if steps is None else steps, seed=seed), out)
    if not complete:
        raise KeyboardInterrupt


def explain(
    equation: str,
    sizes: str = "",
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    padding_mode: str = "zeros",
    optimize: str = "auto",
    memory_limit: int | str | None = None,
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
        memory_limit: Largest number of elements of any intermediate, or max_input.
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
    task: Literal["video_prediction"] = "video_prediction",
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Train a network, to predict frames by default: tt-conv train --config moving_mnist_conv_tt_lstm_small --out run.

    --config takes a YAML file or the name of a recipe (tt-conv recipes lists them); what is given after it on the
    command line counts instead of what it says. The folder gets best.ckpt and last.ckpt, history.csv, sample
    pictures and a TensorBoard log. Ctrl-C stops; --resume goes on from the last complete epoch. For the settings of
    recognition: tt-conv train --task recognition --help.

    Args:
        data: Which sequences.
        model: Which network.
        training: By which recipe, on what.
        task: What is trained; "tt-conv train --task recognition --help" has the settings of the other task.
        out: Folder to write to, new or empty; by default tt-conv-training, or tt-conv-training-2, ...
        resume: Folder of a training to go on with, by the settings it has; nothing else counts then.
    """
    from tt_conv.applications.training import resume_training, run_training

    complete = (
        resume_training(resume) if resume is not None else run_training(Settings(data, model, training, task), out)
    )
    if not complete:
        raise KeyboardInterrupt


def train_recognition(
    data: ClipSettings,
    model: RecognizerSettings,
    training: RecognitionTrainingSettings,
    task: Literal["recognition"] = "recognition",
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Train a network to recognize actions early: tt-conv train --config actions_conv_tt_lstm_small --out run.

    --config takes a YAML file or the name of a recipe (tt-conv recipes lists them); what is given after it on the
    command line counts instead of what it says. The folder gets best.ckpt and last.ckpt, history.csv and a TensorBoard
    log. Ctrl-C stops; --resume goes on from the last complete epoch.

    Args:
        data: Which labelled clips.
        model: Which network.
        training: By which recipe, on what.
        task: What is trained; "tt-conv train --help" has the settings of video prediction.
        out: Folder to write to, new or empty; by default tt-conv-training, or tt-conv-training-2, ...
        resume: Folder of a training to go on with, by the settings it has; nothing else counts then.
    """
    from tt_conv.applications.training import resume_training, run_training

    settings = RecognitionSettings(data, model, training, task)
    complete = run_training(settings, out) if resume is None else resume_training(resume)
    if not complete:
        raise KeyboardInterrupt


def evaluate(
    checkpoint: str,
    out: str | None = None,
    future: int | list[int] | None = None,
    split: Literal["train", "validation", "test"] = "test",
    data: dict[str, Any] | None = None,
    recipe: str | None = None,
    channels: int = 1,
    batch_size: int = 16,
    device: str = "cpu",
    lpips: bool = False,
    observed: float | list[float] | None = None,
) -> None:
    """Evaluate a trained network: tt-conv evaluate --checkpoint run/best.ckpt --out results.

    The checkpoint says what is evaluated: predicted frames, or recognized actions.

    Args:
        checkpoint: Of tt-conv train, or the folder of tt-conv compress; or published weights, with --recipe.
        out: Folder for results.json, table.md and pictures, new or empty; by default tt-conv-evaluation, or
            tt-conv-evaluation-2, ...
        future: Number of frames to predict, or several, such as [10,30]; by default as in training. Of video
            prediction.
        split: Part of the data.
        data: Data settings that differ from those of the training: --data.path videos/ --data.test_sequences 100.
        recipe: For weights that do not tell their architecture: a recipe or YAML file that does.
        channels: For such weights: channels of a frame.
        batch_size: Sequences at a time.
        device: Such as cpu or cuda.
        lpips: Compute LPIPS too; needs pip install 'tt-conv[lpips]' and AlexNet's weights. Of video prediction.
        observed: Fraction of the frames that is seen, or several; by default [0.25,0.5,1]. Of recognition.
    """
    if _task_of(checkpoint) == "recognition":
        from tt_conv.applications.recognition import evaluate_trained as recognition

        _refuse(checkpoint, "recognition", future=future, recipe=recipe, lpips=lpips or None)
        fractions = [observed] if isinstance(observed, float) else observed
        chosen = recognition.EvaluationSettings(fractions, split, batch_size, device)
        recognition.run_evaluation(checkpoint, out, chosen, data=data)
        return
    _refuse(checkpoint, "video_prediction", observed=observed)
    from tt_conv.applications.video_prediction.evaluate_trained import EvaluationSettings, run_evaluation

    futures = [future] if isinstance(future, int) else future
    settings = EvaluationSettings(futures, split, batch_size, device, lpips)
    run_evaluation(checkpoint, out, settings, data=data, recipe=recipe, channels=channels)


def predict(
    checkpoint: str,
    video: str,
    future: int | None = None,
    out: str | None = None,
    given: int | None = None,
    start: int | None = None,
    step: int | None = None,
    size: int | tuple[int, int] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    array_name: str | None = None,
    rate: float = 10.0,
    device: str = "cpu",
    recipe: str | None = None,
    channels: int = 1,
    top: int | None = None,
) -> None:
    """Predict how a video goes on, or name its action: tt-conv predict --checkpoint run/best.ckpt --video clip.mp4.

    Which of the two it is depends on what the checkpoint was trained for.

    Args:
        checkpoint: Of tt-conv train, or the folder of tt-conv compress; or published weights, with --recipe.
        video: A video file (mp4, avi, webm, gif, ...), a folder of images, or a .npy or .npz array.
        future: Number of frames to predict, by default 10. This and what follows, but for out, device and top, is of
            video prediction.
        out: Folder for prediction.mp4, .gif, .png and .npy, or labels.json, .csv and .png, new or empty; by default
            tt-conv-prediction, or tt-conv-prediction-2, ...
        given: Number of frames that are shown to the network; by default as many as in its training.
        start: The first of them, counted from 0; by default they are the last ones of the video.
        step: Take every so many frames of the video; by default as in training.
        size: One number, or [height,width], to which the video is brought; by default as in training.
        layout: Axes of an array, such as THWC; detected by default.
        value_range: Black and white in an array, such as [0,255]; by default as in training, or detected.
        array_name: Which array of an .npz file.
        rate: Frames per second of what is written.
        device: Such as cpu or cuda.
        recipe: For weights that do not tell their architecture: a recipe or YAML file that does.
        channels: For such weights: channels of a frame.
        top: How many classes are ranked, by default 5. Of recognition.
    """
    if _task_of(checkpoint) == "recognition":
        from tt_conv.applications.recognition import predict as recognition

        options: dict[str, Any] = {
            "future": future,
            "given": given,
            "start": start,
            "step": step,
            "size": size,
            "layout": layout,
            "recipe": recipe,
        }
        options |= {"value_range": value_range, "array_name": array_name}
        _refuse(checkpoint, "recognition", **options)
        recognition.run_prediction(checkpoint, video, out, top=5 if top is None else top, device=device)
        return
    _refuse(checkpoint, "video_prediction", top=top)
    from tt_conv.applications.video_prediction.predict import run_prediction

    run_prediction(
        checkpoint,
        video,
        out,
        future=10 if future is None else future,
        given=given,
        start=start,
        step=step,
        size=size,
        layout=layout,
        value_range=value_range,
        array_name=array_name,
        rate=rate,
        device=device,
        recipe=recipe,
        channels=channels,
    )


def _task_of(checkpoint: str) -> str:
    from tt_conv.applications.training.checkpoint import task_of_file

    return task_of_file(checkpoint)


def _refuse(checkpoint: str, task: str, **options: Any) -> None:
    """Refuse options that were given and mean nothing for the task of a checkpoint."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{checkpoint} is of the task {task}, which has no {', '.join(given)}: leave that out")


def data_inspect(data: DataSettings, out: str | None = None) -> None:
    """Say what a data set holds: tt-conv data inspect --data.kind own --data.path videos/ --out sheets.

    Args:
        data: Which sequences; --config takes a YAML file with them.
        out: Folder for contact sheets, new or empty; by default no pictures.
    """
    from tt_conv.applications.video_prediction.inspect_data import inspect_data

    print(inspect_data(data, out))


def data_moving_mnist(
    out: str,
    train: int = 10_000,
    validation: int = 3_000,
    test: int = 5_000,
    frames: int = 20,
    test_frames: int = 40,
    idx_folder: str | None = None,
    seed: int = 0,
) -> None:
    """Make the fixed sets of Moving-MNIST as files: tt-conv data moving_mnist --out moving_mnist.

    Args:
        out: Folder for train.npy, validation.npy and test.npy; files that are complete are kept.
        train: Number of training sequences.
        validation: Number of validation sequences.
        test: Number of test sequences.
        frames: Frames of a training or validation sequence.
        test_frames: Frames of a test sequence.
        idx_folder: IDX files of MNIST or Fashion-MNIST whose images move; by default the digits of this package.
        seed: Another seed gives other sequences.
    """
    from tt_conv.applications.video_prediction.data.fixed_moving_mnist import write_fixed_moving_mnist

    for path in write_fixed_moving_mnist(
        out,
        sequences={"train": train, "validation": validation, "test": test},
        frames={"train": frames, "validation": frames, "test": test_frames},
        idx_folder=idx_folder,
        seed=seed,
    ):
        print(path)


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


def compress(
    checkpoint: str,
    budget: float | None = None,
    sweep: str | None = None,
    budget_of: Literal["parameters", "macs", "error"] = "parameters",
    out: str | None = None,
    data: dict[str, Any] | None = None,
    inputs: str | None = None,
    calibration: int = 32,
    formats: str = "",
    keep: str = "",
    force: str = "",
    finetune: int = 0,
    distill: float = 0.0,
    learning_rate: float = 3e-4,
    batch_size: int = 8,
    quality_sequences: int | None = None,
    onnx: bool = False,
    recipe: str | None = None,
    channels: int = 1,
    model: str | None = None,
) -> None:
    """Make a trained network smaller: tt-conv compress run/best.ckpt --budget 0.25 --out smaller.

    The folder gets model.safetensors and config.json, which load_compressed, tt-conv evaluate and tt-conv predict
    read; report.json, table.md and layers.png. A sweep writes such a folder for each budget, sweep.json, table.md and
    curve.png. Of a network that recognizes actions the report compares the accuracy on test clips; there are no
    sweep, fine-tuning, ONNX and layers.png for it.

    Args:
        checkpoint: Of tt-conv train; published weights, with --recipe; anybody's, with --model; or pretrained, the
            network that comes with the package. It may stand first, unnamed.
        budget: What may be left, such as 0.25.
        sweep: Several budgets: 0.5,0.25,0.125.
        budget_of: Of what: a fraction of the parameters or MACs, or the largest relative error of the output.
        out: Folder to write to, new or empty; by default tt-conv-compressed, or tt-conv-compressed-2, ...
        data: Data settings that differ from those of the training: --data.path videos/. With --model, those of
            sequences that the network takes as model(frames, future).
        inputs: Calibration data of other networks: a .npy array [N, ...], or a tensor of torch.save.
        calibration: Number of training sequences, or inputs, that the layers are fitted to; 0 for weights alone.
        formats: To choose from, by default all: svd,tucker,tt,cp,conv_tt.
        keep: Name patterns of layers to leave as they are: output,blocks.0.*
        force: Formats of layers, with a rank if wanted: blocks.*=svd,output=svd:8
        finetune: Steps of fine-tuning; the best weights of the validation are kept.
        distill: Share of the loss of fine-tuning, from 0 to 1, that is taken against the original's predictions.
        learning_rate: Of fine-tuning, the largest one.
        batch_size: Sequences, or inputs, at a time.
        quality_sequences: Test sequences for the quality, and validation sequences for fine-tuning; by default 64, or
            all test clips of recognition.
        onnx: Write one step as step.onnx too; needs pip install 'tt-conv[onnx]'.
        recipe: For weights that do not tell their architecture: a recipe or YAML file that does.
        channels: For such weights: channels of a frame.
        model: For weights of other networks: module:factory, a function that returns the network.
    """
    from tt_conv.applications.compression.kernels import FORMATS
    from tt_conv.applications.compression.run import CompressionSettings, run_compression
    from tt_conv.applications.compression.words import read_budgets, read_force, read_names

    if model is None and _task_of(checkpoint) == "recognition":
        from tt_conv.applications.recognition import compress_trained

        options: dict[str, Any] = {"sweep": sweep, "inputs": inputs, "recipe": recipe, "onnx": onnx or None}
        _refuse(checkpoint, "recognition", **options, finetune=finetune or None, distill=distill or None)
        compress_trained.run_compression(
            checkpoint,
            out,
            budget=read_budgets(budget, None)[0],
            budget_of=budget_of,
            data=data,
            calibration=calibration,
            formats=read_names(formats) or FORMATS,
            keep=read_names(keep),
            force=read_force(force) or None,
            batch_size=batch_size,
            quality_clips=quality_sequences,
        )
        return
    settings = CompressionSettings(
        budgets=read_budgets(budget, sweep),
        budget_of=budget_of,
        calibration=calibration,
        formats=read_names(formats) or FORMATS,
        keep=read_names(keep),
        force=read_force(force),
        finetune=finetune,
        distill=distill,
        learning_rate=learning_rate,
        batch_size=batch_size,
        quality_sequences=64 if quality_sequences is None else quality_sequences,
        onnx=onnx,
    )
    run_compression(checkpoint, out, settings, recipe=recipe, channels=channels, model=model, data=data, inputs=inputs)


_TRAIN: Mapping[str, Any] = {"video_prediction": train, "recognition": train_recognition}

COMMANDS: Mapping[str, Any] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "data": {
        "_help": "Inspect a data set, or make the fixed sets of Moving-MNIST.",
        "inspect": data_inspect,
        "moving_mnist": data_moving_mnist,
    },
    "compress": compress,
    "recipes": recipes,
    "explain": explain,
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
    if given[:1] == ["explain"]:
        given = ["explain", *words_of_explain(given[1:])]
    if given[:1] == ["compress"] and given[1:] and not given[1].startswith("-"):
        given.insert(1, "--checkpoint")
    try:
        given = with_recipe_files(given)
        from jsonargparse import auto_cli

        commands = dict(COMMANDS)
        if given[:1] == ["train"]:  # whose settings depend on the task
            commands["train"] = _TRAIN[task_of_arguments(given[1:])]
        auto_cli(commands, args=given, prog="tt-conv", as_positional=False)
    except KeyboardInterrupt:
        print("tt-conv: interrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("TT_CONV_TRACEBACK"):
            raise
        print(f"tt-conv: error: {_in_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ImportError) and (message := missing_extra(error)):
        return message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
