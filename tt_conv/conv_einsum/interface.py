"""The public functions."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_einsum.compile import compile_steps
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.expression import ConvEinsumExpression, check_tensors
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.network import Network, bind
from tt_conv.conv_einsum.options import Options, checked_options, is_int
from tt_conv.conv_einsum.parse import Equation, parse
from tt_conv.conv_einsum.plan import Optimize, Path, plan
