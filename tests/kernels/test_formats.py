"""What holds for every format, and what is refused: a name that is not known, and what a format cannot have."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv import TensorizedConv
from tt_conv.applications.compression import compress
from tt_conv.applications.compression.candidates import build_layer, can_hold, factor_shapes, smaller_candidates
from tt_conv.kernels.chain import KernelChain, merged
from tt_conv.kernels.format import KernelFactors, KernelFormat
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.table import FORMATS, kernel_format
from tt_conv.kernels.weighted import WeightedKernel
from tt_conv.runtime.formats import CONVOLUTIONS

CONV = nn.Conv2d(4, 6, 3)
KERNEL = WeightedKernel(CONV.weight)
FACTORS = {name: torch.rand(shape) for name, shape in kernel_format("cp", (6, 4, 3, 3)).shapes((2,)).items()}


@pytest.mark.parametrize("name", ["ring", "CP", "dense", "", None, ["cp"]])
@pytest.mark.parametrize(
    "look_up",
    [
        lambda name: kernel_format(name, (6, 4, 3, 3)),
        lambda name: TensorizedConv(4, 6, 3, factorization=name, rank=2),
        lambda name: TensorizedConv.from_conv(CONV, name, rank=2),
        lambda name: TensorizedConv.with_factors(CONV, name, FACTORS),
        lambda name: compress(nn.Sequential(CONV), budget=0.5, formats=[name]),
        lambda name: compress(nn.Sequential(CONV), budget=0.5, force={"0": (name, 1)}),
        lambda name: smaller_candidates(CONV, KERNEL, [name]),
        lambda name: can_hold(CONV, name),
        lambda name: factor_shapes(CONV, name, (1,)),
        lambda name: build_layer(CONV, name, FACTORS),
        lambda name: build_layer(nn.Linear(4, 6), name, FACTORS),
    ],
)
def test_an_unknown_format_is_refused_with_those_that_there_are(
    look_up: Callable[[object], object], name: object
) -> None:
    with pytest.raises(ValueError, match=r"must be one of 'svd', 'tucker', 'tt', 'cp', 'conv_tt', got "):
        look_up(name)


def test_a_linear_layer_has_no_spatial_factors() -> None:
    with pytest.raises(ValueError, match="a linear layer has the format 'svd' only, got 'cp'"):
        build_layer(nn.Linear(4, 6), "cp", FACTORS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_names_of_the_table_are_those_of_the_classes(name: str) -> None:
    assert FORMATS[name].name == name


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_shapes_parameters_rank_and_chains_agree(name: str, dim: int) -> None:
    form = kernel_format(name, (6, 4, *(5, 5, 1)[:dim]))
    rank = form.uniform(3)
    shapes = form.shapes(rank)
    factors = {key: torch.randn(shape).double() for key, shape in shapes.items()}
    assert form.rank(factors) == rank
    assert form.parameters(rank) == sum(factor.numel() for factor in factors.values())
    dense = form.rebuild(factors)
    assert dense.shape == form.shape
    x = torch.randn(2, 4, *(6, 7, 3)[:dim]).double()
    expected = CONVOLUTIONS[dim](x, dense)
    for chain in form.chains(factors):
        y = x
        for link in chain:
            y = CONVOLUTIONS[dim](y, link.kernel, groups=link.groups)
        torch.testing.assert_close(y, expected)


class TestStacked:
    @pytest.mark.parametrize("size", [(3, 3), (7, 7), (5, 4), (1, 1)])
    def test_sizes_that_two_odd_kernels_do_not_span_are_refused(self, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"spans the sizes 2k - 1 = 5, 9, 13"):
            TensorizedConv(3, 4, size, factorization="conv_tt", rank=2)

    def test_rank_is_clipped_to_what_either_kernel_can_carry(self) -> None:
        assert TensorizedConv(3, 40, 5, factorization="conv_tt", rank=500).rank == 27
        assert TensorizedConv(30, 4, (5, 1), factorization="conv_tt", rank=500).rank == 12

    @pytest.mark.parametrize("stride", [1, 2])
    def test_a_planted_pair_is_found(self, stride: int) -> None:
        projection, core = torch.randn(2, 3, 3, 3).double(), torch.randn(4, 2, 3, 3).double()
        conv = nn.Conv2d(3, 4, 5, stride, padding=2, padding_mode="circular").double()
        # An impulse through both, mirrored, is the kernel of both.
        impulse = torch.eye(3).double()[:, :, None, None] * F.pad(torch.ones(1, 1).double(), [2] * 4)
        response = F.conv2d(F.conv2d(F.pad(impulse, [2] * 4), projection), core)
        conv.weight.data = response.transpose(0, 1).flip(2, 3).contiguous()
        layer = TensorizedConv.from_conv(conv, "conv_tt", rank=2)
        x = torch.randn(2, 3, 9, 9).double()
        torch.testing.assert_close(layer(x), conv(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x[0]), conv(x[0]), rtol=1e-5, atol=1e-5)
        assert TensorizedConv.from_conv(conv, "conv_tt", tol=1e-3).rank == 2

    def test_older_state_dicts_load(self) -> None:
        layer = TensorizedConv(3, 4, 5, factorization="conv_tt", rank=2)
        older = {name.removeprefix("factors."): value.clone() for name, value in layer.state_dict().items()}
        assert set(older) == {"projection", "core", "bias"}
        model = nn.Sequential(TensorizedConv(3, 4, 5, factorization="conv_tt", rank=2))
        model.load_state_dict({f"0.{name}": value for name, value in older.items()})
        assert torch.equal(model[0].to_tensor(), layer.to_tensor())

    def test_tensorly_has_no_such_tensor(self) -> None:
        with pytest.raises(TypeError, match="no tensor for the format 'conv_tt'"):
            TensorizedConv(3, 4, 5, factorization="conv_tt", rank=2).to_factorized()


class MeanFormat(KernelFormat):
    """The mean of all taps, for each pair of channels: a format that takes the fewest lines."""

    name = "mean"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.largest, self.ranks = (1,), "r"
        self.terms, self.contracted = {"channels": "oir"}, {"channels": "ir"}

    def parameters(self, rank: Rank) -> int:
        return self.shape[0] * self.shape[1] * rank[0]

    def rebuild(self, factors: Mapping[str, Tensor]) -> Tensor:
        mean = factors["channels"][(..., *(None,) * (len(self.shape) - 3))]
        return mean.expand(*self.shape[:2], *self.shape[2:])

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        return merged([self.rebuild(factors)])

    def decomposed(self, kernel: WeightedKernel, rank: Rank) -> KernelFactors:
        return {"channels": kernel.dense.flatten(2).mean(2, keepdim=True)}


def test_a_new_format_is_one_class_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "mean", MeanFormat)
    conv = nn.Conv1d(4, 6, 3)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.mean(2, keepdim=True).expand_as(conv.weight))
    smaller, report = compress(nn.Sequential(conv), budget=0.5, formats=["mean"])
    assert [(row.format, row.rank) for row in report.layers] == [("mean", (1,))]
    torch.testing.assert_close(smaller[0].to_tensor(), conv.weight)
    torch.testing.assert_close(TensorizedConv.from_conv(conv, "mean", tol=0.1).to_tensor(), conv.weight)
