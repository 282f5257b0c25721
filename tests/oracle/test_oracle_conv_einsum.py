"""The oracle itself, against PyTorch's convolutions, torch.einsum and hand calculations."""

import pytest
import torch
import torch.nn.functional as F

from tests.oracle.conv_einsum import conv_einsum, output_shape


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bjk->bki", [(2, 3, 4), (2, 4, 5)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
        ("ij->j", [(2, 3)]),
        ("ijk->kij", [(2, 3, 4)]),
        ("i,j->ij", [(2,), (3,)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("ij,jkx->i", [(2, 3), (3, 4, 2)]),
        ("...ij,jk->...ik", [(5, 2, 2, 3), (3, 4)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)]),
        ("i,->i", [(3,), ()]),
    ],
)
def test_without_convolved_modes_it_is_einsum(equation, shapes):
    operands = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    same(conv_einsum(equation, *operands), torch.einsum(equation, *operands))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize(("dim", "modes"), [(1, "d"), (2, "de"), (3, "def")])
def test_one_kernel_is_the_convolution_of_pytorch(dim, modes, stride, dilation, padding):
    x = normal(2, 3, *(6, 5, 7)[:dim])
    w = normal(4, 3, *(2, 3, 1)[:dim])
    convolution = (F.conv1d, F.conv2d, F.conv3d)[dim - 1]
    expected = convolution(x, w, stride=stride, dilation=dilation, padding=padding)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    actual = conv_einsum(f"bi{modes},oi{modes}->bo{modes}|{modes}", x, w, **options)
    same(actual, expected)
    assert output_shape(f"bi{modes},oi{modes}->bo{modes}|{modes}", [x.shape, w.shape], **options) == expected.shape


def test_a_dict_sets_each_mode_apart():
    x, w = normal(2, 3, 8, 9), normal(4, 3, 2, 3)
    expected = F.conv2d(F.pad(x, (0, 2, 1, 0)), w, stride=(2, 1), dilation=(1, 3))
    actual = conv_einsum(
        "bihw,oihw->bohw|hw",
        x,
        w,
        stride={"h": 2},
        dilation={"w": 3},
        padding={"h": (1, 0), "w": (0, 2)},
    )
    same(actual, expected)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_same_is_that_of_pytorch(kernel_size, dilation):
    x, w = normal(2, 3, 6), normal(4, 3, kernel_size)
    expected = F.conv1d(x, w, padding="same", dilation=dilation)
    same(conv_einsum("bih,oih->boh|h", x, w, padding="same", dilation=dilation), expected)


def test_same_pads_an_even_kernel_more_on_the_right():
    x, w = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0])
    same(conv_einsum("h,h->h|h", x, w, padding="same"), torch.tensor([21.0, 32.0, 3.0]))


def test_full_by_hand():
    x, w = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0, 100.0])
    # The flipped kernel slides in from the left: 100 x_0, 10 x_0 + 100 x_1, x_0 + 10 x_1, x_1.
    same(conv_einsum("h,h->h|h", x, w, padding="full"), torch.tensor([100.0, 210.0, 21.0, 2.0]))


@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(2, 3, 2), (4, 1, 1)])
def test_a_shared_mode_is_a_group(groups, inputs, outputs):
    x, w = normal(2, groups, inputs, 6, 5), normal(groups, outputs, inputs, 3, 2)
    expected = F.conv2d(x.flatten(1, 2), w.flatten(0, 1), groups=groups, padding=1)
    actual = conv_einsum("bgihw,goihw->bgohw|hw", x, w, padding=1)
    same(actual, expected.reshape(actual.shape))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_several_kernels_are_one_larger_kernel(stride, dilation):
    x, a, b, c = normal(2, 3, 9), normal(4, 3, 2), normal(5, 4, 3), normal(2, 5, 2)
    # Without stride, convolving in turn is the formula; the stride takes every s-th of its outputs.
    expected = x
    for kernel in (a, b, c):
        expected = F.conv1d(expected, kernel, dilation=dilation)
    actual = conv_einsum("bih,pih,qph,oqh->boh|h", x, a, b, c, stride=stride, dilation=dilation)
    same(actual, expected[..., ::stride])


def test_two_kernels_share_one_padding():
    x, a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0]), torch.tensor([1.0, 100.0])
    # x padded once: 0 1 2 0; the kernels together are 1, 110, 1000.
    same(conv_einsum("h,h,h->h|h", x, a, b, padding=1), torch.tensor([2110.0, 221.0]))


def test_circular_wraps_as_often_as_needed():
    x, w = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0])
    # Padded by 4 on the left and 1 on the right: 3 1 2 3 1 2 3 1.
    expected = torch.tensor([13.0, 21.0, 32.0, 13.0, 21.0, 32.0, 13.0])
    same(conv_einsum("h,h->h|h", x, w, padding={"h": (4, 1)}, padding_mode="circular"), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_circular_is_that_of_pytorch(stride):
    x, w = normal(2, 3, 5, 6), normal(4, 3, 3, 3)
    expected = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="circular"), w, stride=stride)
    same(conv_einsum("bihw,oihw->bohw|hw", x, w, padding=2, padding_mode="circular", stride=stride), expected)


def test_a_kernel_larger_than_the_feature():
    x, w = normal(2, 3, 2), normal(4, 3, 5)
    same(conv_einsum("bih,oih->boh|h", x, w, padding=2), F.conv1d(x, w, padding=2))


def test_each_mode_has_its_own_feature():
    x, y, w = normal(5), normal(6), normal(2, 3)
    expected = F.conv2d(torch.outer(x, y)[None, None], w[None, None])[0, 0]
    same(conv_einsum("h,w,hw->hw|hw", x, y, w), expected)


def test_four_convolved_modes_are_a_sum_of_three_dimensional_ones():
    x, w = normal(2, 3, 4, 3, 3, 4), normal(2, 3, 2, 2, 1, 3)
    expected = torch.stack(
        [sum(F.conv3d(x[:, :, u + v], w[:, :, v], padding=(0, 0, 0)) for v in range(2)) for u in range(3)], 2
    )
    same(conv_einsum("nicdef,oicdef->nocdef|cdef", x, w), expected)


def test_a_cp_kernel_is_its_dense_kernel():
    x, r, o, i, h, w = normal(2, 3, 5, 6), normal(2), normal(4, 2), normal(3, 2), normal(3, 2), normal(2, 2)
    dense = torch.einsum("r,or,ir,hr,wr->oihw", r, o, i, h, w)
    actual = conv_einsum("bihw,r,or,ir,hr,wr->bohw|hw", x, r, o, i, h, w, padding=1)
    same(actual, F.conv2d(x, dense, padding=1))


def test_leading_modes_may_stay_unnamed():
    x, w = normal(2, 2, 3, 5), normal(4, 3, 3)
    expected = F.conv1d(x.flatten(0, 1), w).reshape(2, 2, 4, 3)
    same(conv_einsum("...ih,oih->...oh|h", x, w), expected)


def test_gradients_are_those_of_pytorch():
    x, w = normal(2, 3, 6, 5).requires_grad_(), normal(4, 3, 3, 2).requires_grad_()
    weight = normal(2, 4, 3, 6, seed=7)
    actual = conv_einsum("bihw,oihw->bohw|hw", x, w, stride={"h": 2}, padding=1)
    expected = F.conv2d(x, w, stride=(2, 1), padding=1)
    for a, b in zip(
        torch.autograd.grad(actual, (x, w), weight),
        torch.autograd.grad(expected, (x, w), weight),
        strict=True,
    ):
        same(a, b)
