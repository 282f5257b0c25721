"""The convolutional tensor-train format: tensors, decomposition, programs that evaluate it, and its layer."""

from tt_conv.conv_tt.fit.decompose import conv_tt

__all__ = ["conv_tt"]
