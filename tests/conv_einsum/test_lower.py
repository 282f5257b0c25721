"""Which PyTorch operation a step becomes, what it costs, and that the memory format survives."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.conv_einsum.paths import pairwise_paths
from tests.oracle.conv_einsum import conv_einsum as oracle
from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum.info import PathInfo


class Calls(TorchDispatchMode):
    """Count the operations that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


COPIES = {"clone", "copy_", "_to_copy", "contiguous", "_unsafe_view", "constant_pad_nd", "cat"}


def operations(equation: str, *shapes: tuple[int, ...], **options: object) -> list[str]:
    info = conv_einsum_path(equation, *shapes, shapes=True, **options)[1]
    return [step.operation for step in info.steps]


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], "mm"),
        ("ji,kj->ki", [(3, 2), (4, 3)], "mm"),
        ("i,i->", [(5,), (5,)], "mm"),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], "bmm"),
        ("i,j->ij", [(2,), (3,)], "multiply"),
        ("ij,j->ij", [(2, 3), (3,)], "multiply"),
        ("bih,oih->boh|h", [(2, 3, 9), (4, 3, 3)], "conv1d"),
        ("bihw,oihw->bohw|hw", [(2, 3, 9, 8), (4, 3, 3, 3)], "conv2d"),
        ("bithw,oithw->bothw|thw", [(2, 3, 5, 9, 8), (4, 3, 2, 3, 3)], "conv3d"),
        ("bihw,oihw->bohw|hw", [(2, 3, 9, 8), (4, 3, 1, 1)], "1x1 conv2d"),
        ("brh,rh->brh|h", [(2, 3, 9), (3, 3)], "depthwise conv1d"),
        ("brhw,rh->brhw|h", [(2, 3, 9, 8), (3, 3)], "depthwise conv2d"),
        ("bgihw,goihw->bgohw|hw", [(2, 2, 3, 9, 8), (2, 4, 3, 3, 3)], "grouped conv2d"),
        # The modes that the kernel does not see are one spatial axis.
        ("brthw,rt->brthw|t", [(2, 3, 5, 9, 8), (3, 3)], "depthwise conv2d"),
        ("brthw,rh->brthw|h", [(2, 3, 5, 9, 8), (3, 3)], "depthwise conv3d"),
        ("bixyzt,oixyzt->boxyzt|xyzt", [(1, 2, 3, 3, 3, 3), (2, 2, 2, 2, 2, 2)], "unfold + mm"),
        ("ahw,bhw->abhw|hw", [(2, 5, 3), (2, 2, 2)], "conv2d"),
    ],
)
def test_one_step(equation: str, shapes: list, expected: str) -> None:
    assert operations(equation, *shapes) == [expected]


def test_two_steps() -> None:
    x, column, row, mix = (2, 3, 9, 8), (3, 3), (3, 3), (4, 3)
    assert operations("bihw,ih,iw,oi->bohw|hw", x, column, row, mix, padding="same", optimize=False) == [
        "depthwise conv2d",
        "depthwise conv2d",
        "1x1 conv2d",
    ]
    # Kernels that meet first: by full convolution if they share a convolved mode, else by products.
    assert operations("bih,rih,orh->boh|h", (2, 3, 9), (4, 3, 3), (5, 4, 2), optimize=[(1, 2), (0, 1)]) == [
        "conv_transpose1d",
        "conv1d",
    ]
    assert operations("bihw,ri,rh,rw->brhw|hw", x, (4, 3), (4, 3), (4, 3), optimize=[(2, 3), (0, 1), (0, 1)]) == [
        "multiply",
        "1x1 conv2d",
        "depthwise conv2d",
    ]
    # One operand is the feature on h, the other on w.
    assert operations("h,w,hw->hw|hw", (5,), (4,), (3, 2), optimize=[(0, 1), (0, 1)]) == ["multiply", "conv2d"]
    assert operations("ah,aw,bh,bw->hw|hw", (2, 5), (2, 4), (3, 2), (3, 3), optimize=[(0, 3), (0, 1), (0, 1)])[1:] == [
        "multiply",
        "unfold + mm",
    ]


def macs_that_pytorch_counts(info: PathInfo) -> int:
    return sum(step.macs for step in info.steps if step.operation != "multiply")


COUNTED = {
    "cp": ("bihw,or,ir,hr,wr->bohw|hw", [(2, 3, 6, 5), (4, 2), (3, 2), (3, 2), (2, 2)]),
    "two layers": ("bih,rih,orh->boh|h", [(2, 2, 9), (3, 2, 2), (2, 3, 3)]),
    "three vectors": ("h,h,h,h->h|h", [(9,), (2,), (3,), (4,)]),
    "features that cross": ("ah,aw,bh,bw->hw|hw", [(2, 5), (2, 4), (3, 2), (3, 3)]),
    "features in a ring": ("ahw,bwt,cth->abcwht|hwt", [(2, 4, 3), (2, 2, 4), (2, 3, 2)]),
    "four modes": ("bxthw,oxt,othw,w->boxthw|xthw", [(1, 3, 3, 2, 4), (2, 2, 2), (2, 2, 1, 2), (2,)]),
    "tucker in groups": ("bgihw,gpqhw,gop,giq->bgohw|hw", [(2, 2, 3, 5, 4), (2, 2, 3, 3, 2), (2, 4, 2), (2, 3, 3)]),
}
OPTIONS = [{}, {"padding": "full", "stride": 2, "dilation": 2}, {"padding": "same", "padding_mode": "circular"}]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_are_those_of_pytorchs_counter(name: str, number: int) -> None:
    equation, shapes = COUNTED[name]
    options = OPTIONS[number]
    operands = [torch.randn(shape) for shape in shapes]
    for path in list(pairwise_paths(len(shapes)))[:: 1 if len(shapes) < 5 else 7]:
        _, info = conv_einsum_path(equation, *operands, optimize=path, **options)
        with FlopCounterMode(display=False) as counter:
            conv_einsum(equation, *operands, optimize=path, **options)
        assert counter.get_total_flops() == 2 * macs_that_pytorch_counts(info), path


def channels_last(x: torch.Tensor) -> bool:
    """Say whether the channels of [batch, channels, *space] are the innermost axis."""
    return x.movedim(1, -1).is_contiguous()


# From left to right, so that every step has the feature.
LAYERS = {
    "dense": ("bihw,oihw->bohw|hw", [(2, 6, 8, 7), (4, 6, 3, 3)]),
    "svd": ("bihw,rihw,or->bohw|hw", [(2, 6, 8, 7), (3, 6, 3, 3), (4, 3)]),
    "cp": ("bihw,ir,hr,wr,or->bohw|hw", [(2, 6, 8, 7), (6, 3), (3, 3), (3, 3), (4, 3)]),
    "cp with weights": ("bihw,ir,r,rhw,or->bohw|hw", [(2, 6, 8, 7), (6, 3), (3,), (3, 3, 3), (4, 3)]),
    "tucker": ("bihw,iq,pqhw,op->bohw|hw", [(2, 6, 8, 7), (6, 4), (3, 4, 3, 3), (5, 3)]),
    "train": ("bihw,ix,xhy,ywz,zo->bohw|hw", [(2, 6, 8, 7), (6, 3), (3, 3, 4), (4, 3, 3), (3, 5)]),
    "scaled": ("bihw,b,oihw,o->bohw|hw", [(2, 6, 8, 7), (2,), (4, 6, 3, 3), (4,)]),
    "groups": ("bgihw,gqi,gpqhw,gop->bgohw|hw", [(2, 3, 2, 8, 7), (3, 4, 2), (3, 3, 4, 3, 3), (3, 5, 3)]),
    "one mode": ("bihw,rih,orh->bohw|h", [(2, 6, 8, 7), (3, 6, 3), (5, 3, 3)]),
    "3-d": ("bithw,ir,tr,hr,wr,or->bothw|thw", [(2, 4, 5, 6, 7), (4, 2), (3, 2), (3, 2), (3, 2), (3, 2)]),
}


def in_layout(x: torch.Tensor, innermost: int) -> torch.Tensor:
    """Return the same tensor with its last axes stored before its channels."""
    return x.flatten(1, -innermost - 1).movedim(1, -1).contiguous().movedim(-1, 1).reshape(x.shape)


@pytest.mark.parametrize("name", LAYERS)
def test_the_memory_format_of_the_feature_is_kept(name: str) -> None:
    equation, (shape, *rest) = LAYERS[name]
    space = 3 if "t" in equation else 2
    x = torch.randn(shape)
    weights = [torch.randn(s) for s in rest]
    plain = conv_einsum(equation, x, *weights, padding="same", optimize=False)
    last = conv_einsum(equation, in_layout(x, space), *weights, padding="same", optimize=False)
    assert plain.is_contiguous()
    assert channels_last(last.flatten(1, -space - 1))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_copied(name: str, layout: str) -> None:
    equation, (shape, *rest) = LAYERS[name]
    x = torch.randn(shape)
    if layout == "channels_last":
        x = in_layout(x, 3 if "t" in equation else 2)
    weights = [torch.randn(s) for s in rest]
    expression = conv_einsum_expression(equation, shape, *rest, padding="same", optimize=False)
    with Calls() as calls:
        expression(x, *weights)
    assert not COPIES & set(calls.names), calls.names
    assert calls.names["convolution"] + calls.names["mul"] == len(rest)


def test_a_summed_mode_goes_first() -> None:
    x, kernel = torch.randn(2, 3, 9, 4), torch.randn(5, 3, 3, 6)
    _, info = conv_einsum_path("bihx,oihy->boh|h", x, kernel)
    assert info.opt_cost == 2 * 5 * 7 * 3 * 3
    with Calls() as calls:
        conv_einsum("bihx,oihy->boh|h", x, kernel)
    assert calls.names["sum"] == 2


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], "mm"),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], "bmm"),
        ("ij,ij->ij", [(2, 3), (2, 3)], "mul"),
    ],
)
def test_plain_products_are_one_operation(equation: str, shapes: list, expected: str) -> None:
    operands = [torch.randn(shape) for shape in shapes]
    with Calls() as calls:
        conv_einsum(equation, *operands)
    assert calls.names == {expected: 1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1, 2])
def test_kernel_gradients_for_strides_that_could_be_channels_last(size: int, dtype: torch.dtype) -> None:
    """PyTorch's own convolution on the CPU refuses to compute some of these."""
    for equation, shapes in {
        "ghc,gch->hg|h": [(2, size, 2), (2, 2, 4)],
        "wcb,cbaw->wa|w": [(size, 2, 2), (2, 2, 3, 2)],
        "hwi,hwoi->hwo|hw": [(size, 1, 2), (1, 2, 2, 2)],
    }.items():
        x, kernel = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
        value = conv_einsum(equation, x, kernel, padding="full")
        expected = oracle(equation, x, kernel, padding="full")
        gradients = torch.autograd.grad(value.sum(), (x, kernel))
        for gradient, wanted in zip(gradients, torch.autograd.grad(expected.sum(), (x, kernel)), strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "taken_out"), [(15, True), (16, False)])
def test_positions_are_taken_out_first_where_pytorch_overruns(channels: int, taken_out: bool) -> None:
    shapes = [(2, channels, 8, 8), (4, channels, 1, 1)]
    expression = conv_einsum_expression("bchw,ochw->bohw|hw", *shapes, stride=2)
    assert ("::2" in expression.source) == taken_out
