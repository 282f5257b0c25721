"""Decomposition of dense kernels into convolutional tensor-trains."""

from tt_conv.conv_tt.fit.decompose import conv_tt
from tt_conv.conv_tt.fit.fit import PoorFitWarning
from tt_conv.kernels.metric import input_second_moment

__all__ = ["PoorFitWarning", "conv_tt", "input_second_moment"]
