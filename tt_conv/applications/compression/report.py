"""What a compression did, layer by layer and in total."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tt_conv.kernels.rank import Rank
from tt_conv.tables import text_table


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Of the dense kernel.
    format : str
        "dense" if the layer was left as it is.
    rank : tuple of int
    parameters_before, parameters_after : int
        Of the kernel.
    macs_before, macs_after : int, optional
        Multiply-adds in one pass of the first batch of calibration data.
    weight_error : float
        Norm of the change of the kernel over that of the kernel.
    output_error : float, optional
        The same of the layer's output on calibration data; ``None`` if none reached the layer.

    Examples
    --------
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress
    >>> small, report = compress(nn.Sequential(nn.Conv2d(4, 16, 3)), budget=0.5)
    >>> report.layers[0].name
    '0'
    """

    name: str
    shape: tuple[int, ...]
    format: str
    rank: Rank
    parameters_before: int
    parameters_after: int
    macs_before: int | None
    macs_after: int | None
    weight_error: float
    output_error: float | None


@dataclass(frozen=True)
class CompressionReport:
    """A compression; ``print`` it for a table.

    Parameters
    ----------
    layers : sequence of LayerReport
    left_out : mapping of str to str
        Modules with a kernel that cannot be compressed, or were kept: name -> why.
    budget, budget_of
        As they were asked for.
    parameters_before, parameters_after, bytes_before, bytes_after : int
        Of the whole network; the bytes are those of its parameters and buffers.
    macs_before, macs_after : int, optional
        Multiply-adds of the layers in one pass of the first batch.
    output_error : float, optional
        Norm of the change of the network's output on the calibration data, over that of the output.
    step_time : float, optional
        Median time of a pass of the first batch, over that of the original's.
    milliseconds_before, milliseconds_after : float, optional
        These times.
    disk_before, disk_after : int, optional
        Bytes of the weights as safetensors, once they were written.
    quality_before, quality_after, quality_tuned : float, optional
        What the caller's own measure gave.
    notes : sequence of str
        What else there is to know.

    Examples
    --------
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress
    >>> small, report = compress(nn.Sequential(nn.Conv2d(4, 16, 3)), budget=0.5)
    >>> report.parameters_after < report.parameters_before, len(report.layers)
    (True, 1)
    """

    layers: Sequence[LayerReport]
    left_out: Mapping[str, str]
    budget: float
    budget_of: str
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    macs_before: int | None = None
    macs_after: int | None = None
    output_error: float | None = None
    step_time: float | None = None
    milliseconds_before: float | None = None
    milliseconds_after: float | None = None
    disk_before: int | None = None
    disk_after: int | None = None
    quality_before: float | None = None
    quality_after: float | None = None
    quality_tuned: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def __str__(self) -> str:
        head = ["layer", "kernel", "format", "rank", "parameters\nbefore", "\nafter"]
        head += ["MACs\nbefore", "\nafter"] if self.macs_before is not None else []
        head += ["error of\nkernel", "\noutput"]
        return "\n".join([text_table(head, [self._cells(layer) for layer in self.layers]), "", *self._totals()])

    def _cells(self, layer: LayerReport) -> list[str]:
        cells = [
            layer.name or "(model)",
            "x".join(map(str, layer.shape)),
            layer.format,
            ",".join(map(str, layer.rank)),
            f"{layer.parameters_before:,}",
            f"{layer.parameters_after:,}",
        ]
        if self.macs_before is not None:
            cells += [_count(layer.macs_before), _count(layer.macs_after)]
        return [*cells, f"{layer.weight_error:.3f}", _figure(layer.output_error)]

    def _totals(self) -> list[str]:
        lines = [_change("parameters", self.parameters_before, self.parameters_after)]
        lines.append(_change("bytes", self.bytes_before, self.bytes_after))
        if self.disk_before is not None and self.disk_after is not None:
            lines.append(_change("bytes on disk", self.disk_before, self.disk_after))
        if self.macs_before is not None and self.macs_after is not None:
            lines.append(_change("MACs of one pass", self.macs_before, self.macs_after))
        if self.step_time is not None:
            times = ""
            if self.milliseconds_before is not None and self.milliseconds_after is not None:
                times = f" ({self.milliseconds_before:.1f} -> {self.milliseconds_after:.1f} ms)"
            lines.append(f"time of one pass: {self.step_time:.2f} of the original's{times}")
        if self.output_error is not None:
            lines.append(f"relative error of the output on the calibration data: {self.output_error:.4f}")
        qualities = {"before": self.quality_before, "after": self.quality_after, "tuned": self.quality_tuned}
        if self.quality_before is not None:
            lines.append(
                "quality: " + ", ".join(f"{name} {value:.6g}" for name, value in qualities.items() if value is not None)
            )
        lines += [f"left as it is: {name or '(model)'}: {why}" for name, why in self.left_out.items()]
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts."""
        contents: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return contents


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _change(what: str, before: int, after: int) -> str:
    return f"{what}: {before:,} -> {after:,} ({after / max(before, 1):.3f})"
