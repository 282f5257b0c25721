"""Everything that a training depends on: what the YAML files of the recipes hold. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from tt_conv.applications.training import settings as common

DataKind = Literal["digit_actions", "something_something", "class_folders"]


@dataclass
class DataSettings:
    """Which labelled clips, and how they are cut from videos.

    Parameters
    ----------
    kind : str
        digit_actions (made on the fly, in the form of Something-Something V2), something_something, or class_folders (a
        folder of videos for each class).
    path : str, optional
        Where the files are; nothing for digit_actions.
    classes : str, optional
        Text file with the name of one class on each line; by default all of them.
    frames : int
        Frames of a clip.
    size : int or (int, int)
        Height and width of a clip.
    short_side : int, optional
        Shorter side of the frames before they are cropped to size; by default as small as size allows.
    channels : int
        1 (gray) or 3 (RGB).
    fresh : bool
        Other frames, crops and mirrored clips in every epoch of training.
    flip : bool
        Mirror clips in training (fresh), but not of classes that speak of left or right.
    clips : int, optional
        Training clips of digit_actions; by default 560.
    validation_clips : int, optional
        Of digit_actions; by default 140.
    test_clips : int, optional
        Of digit_actions; by default 168.
    seed : int
        Of made clips, and of what fresh varies.
    broken : str
        refuse, or skip: what happens to videos that cannot be decoded.
    keep_decoded : bool
        Keep resized frames in the cache, uncompressed: fast, and large.
    cache : str, optional
        Folder for made clips and what is known of videos.
    workers : int
        Processes that decode clips during training.

    Examples
    --------
    >>> DataSettings(kind="class_folders", path="videos/", frames=8, size=(96, 128)).frames
    8
    """

    kind: DataKind = "digit_actions"
    path: str | None = None
    classes: str | None = None
    frames: int = 16
    size: int | tuple[int, int] = 64
    short_side: int | None = None
    channels: int = 1
    fresh: bool = False
    flip: bool = True
    clips: int | None = None
    validation_clips: int | None = None
    test_clips: int | None = None
    seed: int = 0
    broken: Literal["refuse", "skip"] = "skip"
    keep_decoded: bool = False
    cache: str | None = None
    workers: int = 0


@dataclass
class ModelSettings:
    """The network; what is empty is the default of the cell.

    Parameters
    ----------
    kind : str
        conv_tt_lstm, conv_lstm, or conv_3d (the baseline).
    encoder_channels : list of int
        Channels after each layer of the encoder, each of which halves the sides of a frame.
    hidden_channels : list of int
        Of each recurrent cell; of conv_3d, channels after each further layer.
    ahead : int
        Frames that the decoder predicts after each frame; 0 means that there is no decoder.
    dropout : float
        Share of the features that the classifier does without in training.
    kernel_size : int
        Odd size of the kernels of the cells.
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
    >>> ModelSettings(kind="conv_lstm", hidden_channels=[32, 32]).encoder_channels
    [16, 32]
    """

    kind: Literal["conv_tt_lstm", "conv_lstm", "conv_3d"] = "conv_tt_lstm"
    encoder_channels: list[int] = field(default_factory=lambda: [16, 32])
    hidden_channels: list[int] = field(default_factory=lambda: [32])
    ahead: int = 0
    dropout: float = 0.0
    kernel_size: int = 3
    order: int | None = None
    steps: int | None = None
    rank: int | None = None
    input_rank: int | None = None
    window: Literal["sliding", "fixed"] | None = None
    boundary: Literal["stagewise", "zeros", "circular"] | None = None


@dataclass
class TrainingSettings(common.TrainingSettings):
    """The recipe: the joint loss; see also what is common to all tasks.

    Parameters
    ----------
    prediction_weight : float
        Weight of the loss of the predicted frames beside that of the classes; above 0 it needs a decoder
        (model.ahead), at 0 a decoder is never trained: model.ahead 0 saves its time.
    weight_power : float
        The cross-entropy of the classes after frame t of T counts (t / T) to this power: 0 counts all observed parts
        alike, a large one the last frame alone.

    Examples
    --------
    >>> TrainingSettings(epochs=5, prediction_weight=2.0).weight_power
    1.0
    """

    start: Literal["xavier", "default"] = "default"
    prediction_weight: float = 0.0
    weight_power: float = 1.0


@dataclass
class Settings:
    """A whole training of a network that recognizes actions.

    Parameters
    ----------
    data : DataSettings
        Which clips.
    model : ModelSettings
        The network.
    training : TrainingSettings
        The recipe.
    task : str
        recognition, which tells these settings from those of other tasks.

    Examples
    --------
    >>> Settings(DataSettings(frames=8)).model.kind
    'conv_tt_lstm'
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    task: Literal["recognition"] = "recognition"


@dataclass(frozen=True)
class EvaluationSettings(common.EvaluationSettings):
    """How an evaluation is done.

    Parameters
    ----------
    observed : float or list of float, optional
        Fraction of the frames that is seen, or several; by default [0.25,0.5,1].
    """

    observed: float | list[float] | None = None

    @property
    def fractions(self) -> list[float]:
        """The observed fractions, for the table and the confusion matrices."""
        observed = [0.25, 0.5, 1.0] if self.observed is None else self.observed
        return [float(fraction) for fraction in (observed if isinstance(observed, list) else [observed])]


@dataclass(frozen=True)
class PredictionSettings(common.PredictionSettings):
    """How the action in a video is named.

    Parameters
    ----------
    top : int
        How many classes are ranked.
    """

    top: int = 5


@dataclass(frozen=True)
class CompressionSettings(common.CompressionSettings):
    """How a recognizer is compressed.

    Parameters
    ----------
    quality_sequences : int, optional
        Test clips for the accuracy; by default all.
    """

    quality_sequences: int | None = None


@dataclass(frozen=True)
class DemoSettings:
    """Everything that the numbers of a demo depend on; the defaults are sized for two CPU cores."""

    steps: int = 2100
    seed: int = 0
    size: int = 32
    short_side: int = 36
    clips: int | None = None
    test_clips: int | None = None
    encoder_channels: tuple[int, ...] = (16, 32)
    hidden_channels: tuple[int, ...] = (32,)
    kernel_size: int = 3
    order: int = 3
    rank: int = 8
    ahead: int = 0
    prediction_weight: float = 0.0
    batch_size: int = 16
    learning_rate: float = 3e-3
