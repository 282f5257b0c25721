"""The tables of an evaluation: for reading, and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tt_conv.tables import text_table


@dataclass(frozen=True)
class Row:
    """What is known about one model or baseline.

    Parameters
    ----------
    name : str
        As printed.
    metrics : dict
        By metric (see :class:`~tt_conv.applications.video_prediction.FrameMetrics`): one value per predicted
        frame.
    parameters, macs_per_frame, milliseconds_per_frame : number, optional
        ``None`` for a baseline.
    """

    name: str
    metrics: Mapping[str, Sequence[float]]
    parameters: int | None = None
    macs_per_frame: int | None = None
    milliseconds_per_frame: float | None = None

    @property
    def is_model(self) -> bool:
        """Whether it has parameters, unlike a baseline."""
        return self.parameters is not None

    def mean(self, metric: str) -> float:
        """Mean of a metric over the predicted frames."""
        return math.fsum(self.metrics[metric]) / len(self.metrics[metric])

    def to_json(self) -> dict[str, Any]:
        """The row, with the mean of each metric, in what JSON can hold."""
        return asdict(self) | {"mean": {metric: self.mean(metric) for metric in self.metrics}}


@dataclass(frozen=True)
class Learned:
    """Whether a model has learned to predict moving things, judged at one predicted frame.

    An empty prediction beats the error of the copied frame, so the error alone proves nothing: what is
    predicted must also have the right mass and stand in the right place.
    """

    frame: int
    mse_to_best_baseline: float
    mass_error: float
    centre_distance: float

    LIMITS: ClassVar[Mapping[str, float]] = {"mse_to_best_baseline": 0.5, "mass_error": 0.3, "centre_distance": 3.0}

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit."""
        return all(getattr(self, figure) <= limit for figure, limit in self.LIMITS.items())

    def to_json(self) -> dict[str, Any]:
        """The figures, their limits and the verdict."""
        return asdict(self) | {"limits": dict(self.LIMITS), "passed": self.passed}


def judge(rows: Sequence[Row], frame: int = 3) -> dict[str, Learned]:
    """Judge every model by its predicted frame number ``frame``, or the last one if there are fewer.

    Parameters
    ----------
    rows : sequence of Row
        Models, and at least one baseline.
    frame : int
        Counted from 1.

    Returns
    -------
    dict
        By the name of the model.
    """
    frame = min(frame, len(rows[0].metrics["mse"]))
    at = frame - 1
    best = min(row.metrics["mse"][at] for row in rows if not row.is_model)
    return {
        row.name: Learned(
            frame, row.metrics["mse"][at] / best, row.metrics["mass_error"][at], row.metrics["centre_distance"][at]
        )
        for row in rows
        if row.is_model
    }


def results_table(rows: Sequence[Row]) -> str:
    """The table of models and baselines, metrics as means over the predicted frames."""
    header = ["", "parameters", "MACs\nper frame", "ms\nper frame", "MSE\nx 1e-3", "PSNR\ndB", "SSIM"]
    return text_table([*header, "mass off\nby", "centre off\nby"], [_row_cells(row) for row in rows])


def learned_table(learned: Mapping[str, Learned]) -> str:
    """The table of what each model has learned, with the limits in its head."""
    header = [
        "",
        "MSE / best baseline's\nat most 0.50",
        "mass off by\nat most 30 %",
        "centre off by\nat most 3 px",
        "learned",
    ]
    return text_table(
        header,
        [
            [
                name,
                f"{figures.mse_to_best_baseline:.3f}",
                f"{figures.mass_error:.1%}",
                f"{figures.centre_distance:.2f} px",
                "yes" if figures.passed else "no",
            ]
            for name, figures in learned.items()
        ],
    )


def _row_cells(row: Row) -> list[str]:
    return [
        row.name,
        "-" if row.parameters is None else f"{row.parameters:,}",
        "-" if row.macs_per_frame is None else f"{row.macs_per_frame / 1e6:.1f} M",
        "-" if row.milliseconds_per_frame is None else f"{row.milliseconds_per_frame:.2f}",
        f"{1e3 * row.mean('mse'):.2f}",
        f"{row.mean('psnr'):.2f}",
        f"{row.mean('ssim'):.3f}",
        f"{row.mean('mass_error'):.0%}",
        f"{row.mean('centre_distance'):.1f} px",
    ]
