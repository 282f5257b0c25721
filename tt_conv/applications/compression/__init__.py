"""Compression of networks that were trained already; needs torch and TensorLy alone, files also safetensors."""

from importlib import import_module
from typing import TYPE_CHECKING

from tt_conv.applications.compression.compress import compress
from tt_conv.applications.compression.conversion import higher_order_to_conv_tt_lstm, to_conv_tt_lstm
from tt_conv.applications.compression.files import load_compressed, save_compressed
from tt_conv.applications.compression.foreign_weights import load_conv_lstm_weights
from tt_conv.applications.compression.pretrained import load_pretrained
from tt_conv.applications.compression.report import CompressionReport, LayerReport

if TYPE_CHECKING:
    from tt_conv.applications.compression.recovery import Tuned, fine_tune

__all__ = [
    "compress",
    "CompressionReport",
    "LayerReport",
    "fine_tune",
    "Tuned",
    "save_compressed",
    "load_compressed",
    "to_conv_tt_lstm",
    "higher_order_to_conv_tt_lstm",
    "load_conv_lstm_weights",
    "load_pretrained",
]


def __getattr__(name: str) -> object:
    if name not in ("fine_tune", "Tuned"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Needs Lightning, unlike the rest.
    value = getattr(import_module(f"{__name__}.recovery"), name)
    globals()[name] = value
    return value
