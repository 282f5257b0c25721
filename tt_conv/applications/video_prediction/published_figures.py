"""The figures that others have published for the same tasks, and how our protocol differs from theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tt_conv.applications import gate
from tt_conv.applications.video_prediction.settings import DataSettings
from tt_conv.tables import markdown_table

# Su et al.: up to 500 epochs of 10,000 sequences.
PUBLISHED_TRAINING = 500 * 10_000


@dataclass(frozen=True)
class PublishedTable:
    """One table of published figures.

    Parameters
    ----------
    data : str
        Which data set: ``moving_mnist`` or ``kth``.
    given, future : int
        Frames given and predicted.
    source, protocol : str
        Where it stands, and how the figures came about.
    columns : sequence of str
        Heads of all columns but the first, which is the name.
    rows : sequence of sequences
        As published; ``None`` where nothing is stated.
    """

    data: str
    given: int
    future: int
    source: str
    protocol: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | None]]

    def markdown(self) -> str:
        """The table, its source above it."""
        cells = [["" if cell is None else cell for cell in row] for row in self.rows]
        return "\n".join(
            [
                f"Published, {self.given} -> {self.future} ({self.source}). Their protocol: {self.protocol}.",
                "",
                markdown_table(["", *self.columns], cells),
            ]
        )


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables that ship with the package."""
    source = files("tt_conv.applications.video_prediction") / "published_figures.json"
    return tuple(PublishedTable(**table) for table in gate.read_json(str(source)))


def tables_for(data: DataSettings, future: int) -> list[PublishedTable]:
    """The published tables of the same task: data set, digits, and frames given and predicted."""
    kind = {"fixed_moving_mnist": "moving_mnist"}.get(data.kind, data.kind)
    if kind == "moving_mnist" and data.digits != 2:
        return []
    return [t for t in published_tables() if (t.data, t.given, t.future) == (kind, data.given, future)]


def differences(data: DataSettings, sequences: int, size: Sequence[int], sequences_seen: int | None) -> list[str]:
    """What must be known before a figure of ours is held against a published one.

    Parameters
    ----------
    data : DataSettings
        Of the evaluation.
    sequences : int
        Sequences that were evaluated.
    size : sequence of int
        Height and width of the frames.
    sequences_seen : int, optional
        In training; ``None`` where that is not known.
    """
    said = []
    if sequences_seen is None:
        said.append("It is not known for how long these weights were trained.")
    else:
        share = sequences_seen / PUBLISHED_TRAINING
        said.append(
            f"Trained on {sequences_seen:,} sequences: {share:.2%} of the {PUBLISHED_TRAINING:,} "
            "(500 epochs of 10,000) of the published training of ConvTT-LSTM."
        )
    if data.kind == "moving_mnist":
        digits = "the 5,000 MNIST digits of this package" if data.path is None else f"the images in {data.path}"
        said.append(f"Sequences made from {digits} by the rule of the published generator; not the published files.")
    if data.kind == "moving_mnist" and sequences != 5_000:
        said.append(f"{sequences:,} test sequences; ConvTT-LSTM was tested on 5,000.")
    if data.kind == "fixed_moving_mnist":
        said.append(f"{sequences:,} sequences from {data.path}; every source has a test set of its own.")
    if data.kind == "kth":
        persons = ", ".join(map(str, data.validation_persons)) or "none"
        said.append(
            f"{sequences:,} windows of {size[0]} x {size[1]} pixels, one after the other in each clip; "
            f"persons {persons} of 1 to 16 held out for validation."
        )
    return said
