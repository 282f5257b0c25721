"""Every place that looks up a format of kernels by its name has all of them, and refuses any other name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tt_conv import TensorizedConv
from tt_conv.applications.compression import compress
from tt_conv.applications.compression.kernels import _SEARCHES, FORMATS, Kernel, build_layer, factor_shapes
from tt_conv.kernels.chain import _CHAINS, factor_chains
from tt_conv.kernels.decompose import _METHODS, decompose
from tt_conv.kernels.exchange import _WRITERS, write
from tt_conv.kernels.factorization import FACTORIZATIONS, kernel_factorization
from tt_conv.kernels.rank import CPFormat

CONV = nn.Conv2d(4, 6, 3)
FACTORS = {name: torch.rand(shape) for name, shape in kernel_factorization("cp", (6, 4, 3, 3)).shapes((2,)).items()}


class RingFormat(CPFormat):
    """A format that nothing else was told of."""

    name = "ring"


RING = replace(kernel_factorization("cp", (6, 4, 3, 3)), form=RingFormat((6, 4, 3, 3)))


def test_every_table_has_every_format() -> None:
    assert {*FACTORIZATIONS} == {*_CHAINS} == {*_METHODS} == {*_WRITERS}
    assert {*FORMATS} == {*_SEARCHES} == {*FACTORIZATIONS, "conv_tt"}


@pytest.mark.parametrize("name", ["ring", "CP", "dense", "", None, ["cp"]])
@pytest.mark.parametrize(
    "look_up",
    [
        lambda name: kernel_factorization(name, (6, 4, 3, 3)),
        lambda name: factor_chains(name, FACTORS),
        lambda name: TensorizedConv(4, 6, 3, factorization=name, rank=2),
        lambda name: TensorizedConv.from_conv(CONV, name, rank=2),
        lambda name: TensorizedConv.with_factors(CONV, name, FACTORS),
        lambda name: compress(nn.Sequential(CONV), budget=0.5, formats=[name]),
        lambda name: compress(nn.Sequential(CONV), budget=0.5, force={"0": (name, 1)}),
        lambda name: Kernel(CONV).candidates([name]),
        lambda name: Kernel(CONV).search(name),
        lambda name: Kernel(CONV).at(name, (1,)),
        lambda name: Kernel(CONV).form(name),
        lambda name: Kernel(CONV).rebuild(name, FACTORS),
        lambda name: factor_shapes(CONV, name, (1,)),
        lambda name: build_layer(CONV, name, FACTORS),
        lambda name: build_layer(nn.Linear(4, 6), name, FACTORS),
    ],
)
def test_an_unknown_format_is_refused_with_those_that_there_are(
    look_up: Callable[[object], object], name: object
) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*'tucker', 'tt', .*, got "):
        look_up(name)


def test_a_format_without_a_decomposition_or_a_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="one of 'cp', 'tucker', 'tt', 'svd', got 'ring'"):
        decompose(RING, torch.rand(6, 4, 3, 3), 2)
    with pytest.raises(ValueError, match="one of 'cp', 'tucker', 'tt', 'svd', got 'ring'"):
        write(RING, FACTORS)


def test_a_linear_layer_has_no_spatial_factors() -> None:
    with pytest.raises(ValueError, match="a linear layer has the format 'svd' only, got 'cp'"):
        build_layer(nn.Linear(4, 6), "cp", FACTORS)
