"""conv-einsum: einsum in which some modes are convolved, compiled into optimized paths.

parse -> network (shapes) -> plan -> lower -> compile -> expression.
"""

from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.expression import ConvEinsumExpression
from tt_conv.conv_einsum.info import PathInfo, StepInfo
from tt_conv.conv_einsum.interface import conv_einsum, conv_einsum_expression, conv_einsum_path

__all__ = [
    "conv_einsum",
    "conv_einsum_path",
    "conv_einsum_expression",
    "ConvEinsumError",
    "ConvEinsumExpression",
    "PathInfo",
    "StepInfo",
]
