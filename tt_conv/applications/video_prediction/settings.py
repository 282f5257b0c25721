"""Everything that a training depends on: what the YAML files of the recipes hold. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from tt_conv.applications.training import settings as common

DataKind = Literal["moving_mnist", "fixed_moving_mnist", "kth", "own"]


@dataclass
class DataSettings:
    """Which sequences: how many frames are given and predicted, and where the data are.

    Parameters
    ----------
    kind : str
        moving_mnist (made on the fly), fixed_moving_mnist (files), kth, or own (videos, frame folders, arrays).
    path : str, optional
        Where the files are; for moving_mnist a folder of IDX files, or nothing for the digits of the package.
    given : int
        Frames that the model is shown.
    future : int
        Frames that it has to predict.
    size : int or (int, int), optional
        Height and width to which frames are brought; by default as they are (64 for moving_mnist, 120 for kth).
    channels : int, optional
        1 (gray) or 3 (RGB); by default as they are.
    sequences : int, optional
        Training sequences in an epoch; by default all, 10,000 for moving_mnist.
    validation_sequences : int, optional
        By default all, 3,000 for moving_mnist.
    test_sequences : int, optional
        By default all, 5,000 for moving_mnist.
    seed : int
        Of made sequences and of random windows.
    fresh : bool
        Other sequences (moving_mnist) or other windows of the clips (kth, own) in every epoch.
    digits : int
        Of moving_mnist.
    digit_size : int
        Of moving_mnist, in pixels.
    speed : float
        Of moving_mnist: step per frame as a share of the free range.
    step : int
        Take every so many frames (own).
    stride : int, optional
        Frames between the starts of sequences (kth, own); by default they do not overlap.
    layout : str, optional
        Axes of arrays, such as NTHWC (own, fixed_moving_mnist); detected by default.
    value_range : (float, float), optional
        Black and white in arrays (own); detected by default.
    array_name : str, optional
        Which array of .npz files.
    validation_persons : list of int
        Of kth: persons of 1 to 16 that are for validation, not training.
    broken : str
        refuse, or skip: what happens to broken and short files.
    cache : str, optional
        Folder for decoded videos.
    workers : int
        Processes that read sequences during training.

    Examples
    --------
    >>> DataSettings(kind="own", path="videos/", given=10, future=20, size=(64, 96)).future
    20
    """

    kind: DataKind = "moving_mnist"
    path: str | None = None
    given: int = 10
    future: int = 10
    size: int | tuple[int, int] | None = None
    channels: int | None = None
    sequences: int | None = None
    validation_sequences: int | None = None
    test_sequences: int | None = None
    seed: int = 0
    fresh: bool = False
    digits: int = 2
    digit_size: int = 28
    speed: float = 0.1
    step: int = 1
    stride: int | None = None
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    array_name: str | None = None
    validation_persons: list[int] = field(default_factory=lambda: [15, 16])
    broken: Literal["refuse", "skip"] = "refuse"
    cache: str | None = None
    workers: int = 0


@dataclass
class ModelSettings:
    """The network: see tt_conv.layers.FramePredictor; what is empty is the default of the cell.

    Parameters
    ----------
    cell : str
        conv_tt_lstm or conv_lstm.
    hidden_channels : list of int
        Hidden channels of the cells, per block.
    layers_per_block : list of int
        Cells in each block.
    kernel_size : int
        Odd size of the kernels.
    skip_stride : int, optional
        Blocks that a skip connection spans.
    sigmoid : bool
        End with a sigmoid.
    patch_size : int
        Side of the patches that are folded into channels.
    order : int, optional
        Cores of the Conv-TT (conv_tt_lstm).
    steps : int, optional
        Past states that a step sees (conv_tt_lstm).
    rank : int, optional
        Of the Conv-TT (conv_tt_lstm).
    input_rank : int, optional
        Rank of the input convolution (conv_tt_lstm).
    window : str, optional
        sliding or fixed (conv_tt_lstm).
    boundary : str, optional
        stagewise, zeros or circular (conv_tt_lstm).

    Examples
    --------
    >>> ModelSettings(hidden_channels=[32], layers_per_block=[1], rank=4).rank
    4
    """

    cell: Literal["conv_tt_lstm", "conv_lstm"] = "conv_tt_lstm"
    hidden_channels: list[int] = field(default_factory=lambda: [32, 48, 48, 32])
    layers_per_block: list[int] = field(default_factory=lambda: [3, 3, 3, 3])
    kernel_size: int = 5
    skip_stride: int | None = 2
    sigmoid: bool = True
    patch_size: int = 1
    order: int | None = None
    steps: int | None = None
    rank: int | None = None
    input_rank: int | None = None
    window: Literal["sliding", "fixed"] | None = None
    boundary: Literal["stagewise", "zeros", "circular"] | None = None


@dataclass
class TrainingSettings(common.TrainingSettings):
    """The recipe: loss, optimizer, schedules, and on what it runs; see also what is common to all tasks.

    Parameters
    ----------
    loss : str
        l1_mse (published) or cross_entropy (needs a model with a sigmoid).
    sampling_ratio : float
        Scheduled sampling: share of the frames beyond the given ones at which the model is fed with the true
        frame instead of its own prediction. It is drawn for every sample and frame; 0 means never.
    sampling_decay : float
        By how much that share falls in each epoch once the validation loss has stalled.
    growth : float
        Share of the training over which the predicted future grows from one frame to all.
    start_at_mean : bool
        Let the output start at the mean pixel (needs a model with a sigmoid).
    pictures_every : int
        Epochs between sample pictures; 0 means none.

    Examples
    --------
    >>> TrainingSettings(epochs=5, batch_size=8).learning_rate
    0.001
    """

    loss: Literal["l1_mse", "cross_entropy"] = "l1_mse"
    sampling_ratio: float = 0.0
    sampling_decay: float = 2e-3
    growth: float = 0.0
    start_at_mean: bool = False
    pictures_every: int = 1


@dataclass
class Settings:
    """A whole training of a frame predictor.

    Parameters
    ----------
    data : DataSettings
    model : ModelSettings
    training : TrainingSettings
    task : str
        Which of the package's applications; always this one.

    Examples
    --------
    >>> Settings(DataSettings(given=8, future=4)).model.hidden_channels
    [32, 48, 48, 32]
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    task: Literal["video_prediction"] = "video_prediction"


@dataclass(frozen=True)
class EvaluationSettings(common.EvaluationSettings):
    """How an evaluation is done.

    Parameters
    ----------
    future : int or list of int, optional
        Number of frames to predict, or several, such as [10,30]; by default as in training.
    lpips : bool
        Compute LPIPS too; needs pip install 'tt-conv[lpips]' and AlexNet's weights.
    """

    future: int | list[int] | None = None
    lpips: bool = False

    @property
    def futures(self) -> list[int] | None:
        """The horizons, each once; ``None`` for the one of the training."""
        if self.future is None:
            return None
        return list(dict.fromkeys([self.future] if isinstance(self.future, int) else self.future))


@dataclass(frozen=True)
class PredictionSettings(common.PredictionSettings):
    """Which frames are shown to a network, and what it predicts.

    Parameters
    ----------
    future : int
        Number of frames to predict.
    given : int, optional
        Number of frames that are shown to the network; by default as many as in its training.
    start : int, optional
        The first of them, counted from 0; by default they are the last ones of the video.
    step : int, optional
        Take every so many frames of the video; by default as in training.
    size : int or (int, int), optional
        One number, or [height,width], to which the video is brought; by default as in training.
    layout : str, optional
        Axes of an array, such as THWC; detected by default.
    value_range : (float, float), optional
        Black and white in an array, such as [0,255]; by default as in training, or detected.
    array_name : str, optional
        Which array of an .npz file.
    rate : float
        Frames per second of what is written, 0.1 to 100.
    """

    future: int = 10
    given: int | None = None
    start: int | None = None
    step: int | None = None
    size: int | tuple[int, int] | None = None
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    array_name: str | None = None
    rate: float = 10.0


@dataclass(frozen=True)
class CompressionSettings(common.CompressionSettings):
    """How a frame predictor is compressed, and tuned afterwards.

    Parameters
    ----------
    quality_sequences : int, optional
        Test sequences for the quality, and validation sequences for fine-tuning; by default 64.
    finetune : int
        Steps of fine-tuning; the best weights of the validation are kept.
    distill : float
        Share of the loss of fine-tuning, from 0 to 1, that is taken against the original's predictions.
    learning_rate : float
        Of fine-tuning, the largest one.
    onnx : bool
        Write one step as step.onnx too; needs pip install 'tt-conv[onnx]'.
    """

    quality_sequences: int | None = None
    finetune: int = 0
    distill: float = 0.0
    learning_rate: float = 3e-4
    onnx: bool = False


@dataclass(frozen=True)
class DemoSettings:
    """Everything that the numbers of a demo depend on; the defaults are sized for two CPU cores."""

    steps: int = 600
    seed: int = 0
    size: int = 64
    digits: int = 1
    digit_size: int = 28
    speed: float = 0.05
    given: int = 8
    future: int = 4
    hidden_channels: tuple[int, ...] = (32,)
    layers_per_block: tuple[int, ...] = (1,)
    kernel_size: int = 3
    order: int = 3
    rank: int = 8
    patch_size: int = 4
    batch_size: int = 4
    learning_rate: float = 1e-2
    growth: float = 0.7
    test_sequences: int = 256
    budgets: tuple[float, ...] = (0.5, 0.25, 0.125)
    compression_sequences: int = 16
