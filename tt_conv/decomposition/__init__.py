"""Decomposition of dense kernels into convolutional tensor-trains."""

from tt_conv.decomposition.decompose import conv_tt
from tt_conv.decomposition.poor_fit import PoorFitWarning
from tt_conv.decomposition.second_moment import input_second_moment

__all__ = ["PoorFitWarning", "conv_tt", "input_second_moment"]
