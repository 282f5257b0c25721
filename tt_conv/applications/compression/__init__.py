"""Compression of networks that were trained already; needs torch and TensorLy alone, files also safetensors."""

from tt_conv.applications.compression.compress import compress
from tt_conv.applications.compression.files import load_compressed, save_compressed
from tt_conv.applications.compression.report import CompressionReport, LayerReport

__all__ = ["compress", "CompressionReport", "LayerReport", "save_compressed", "load_compressed"]
