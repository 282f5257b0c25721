"""Compression of networks that were trained already; needs torch and TensorLy alone, files also safetensors."""

from tt_conv.applications.compression.compress import compress
from tt_conv.applications.compression.conversion import higher_order_to_conv_tt_lstm, to_conv_tt_lstm
from tt_conv.applications.compression.files import load_compressed, save_compressed
from tt_conv.applications.compression.foreign_weights import load_conv_lstm_weights
from tt_conv.applications.compression.plain import to_plain
from tt_conv.applications.compression.pretrained import load_pretrained
from tt_conv.applications.compression.report import CompressionReport, LayerReport

__all__ = [
    "compress",
    "CompressionReport",
    "LayerReport",
    "save_compressed",
    "load_compressed",
    "to_plain",
    "to_conv_tt_lstm",
    "higher_order_to_conv_tt_lstm",
    "load_conv_lstm_weights",
    "load_pretrained",
]
