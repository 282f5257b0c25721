"""Equations with shapes, a ladder from a matrix product to tensor networks that meet in odd ways."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracle.conv_einsum import conv_einsum as oracle


@dataclass(frozen=True)
class Case:
    """One equation and the shapes of its operands."""

    name: str
    equation: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def convolved(self) -> str:
        return self.equation.partition("|")[2]


@dataclass
class Reference:
    """Operands and the oracle's answers for them."""

    operands: list[Tensor]
    weight: Tensor
    value: Tensor
    gradients: tuple[Tensor, ...]


def case(name: str, equation: str, *shapes: tuple[int, ...]) -> Case:
    return Case(name, equation, shapes)


PRODUCTS = [
    case("matrix product", "ij,jk->ik", (2, 3), (3, 4)),
    case("transposed product", "ji,jk->ki", (3, 2), (3, 4)),
    case("matrix chain", "ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    case("chain of four", "ij,jk,kl,lm->im", (2, 3), (3, 1), (1, 4), (4, 2)),
    case("batched", "bij,bjk->bik", (2, 3, 2), (2, 2, 4)),
    case("two batch modes apart", "aibj,bkaj->kabi", (2, 3, 2, 2), (2, 4, 2, 2)),
    case("leading modes unnamed", "...ij,...jk->...ik", (2, 2, 3, 2), (2, 2, 2, 4)),
    case("leading modes of one", "...ij,jk->...ik", (2, 2, 3, 2), (2, 4)),
    case("an empty ellipsis", "...ij,jk->...ik", (3, 2), (2, 4)),
    case("permutation", "ijk->kij", (2, 3, 4)),
    case("sum", "ijk->j", (2, 3, 4)),
    case("sum of all", "ij->", (2, 3)),
    case("inner product", "ij,ij->", (2, 3), (2, 3)),
    case("elementwise", "ij,ji->ij", (2, 3), (3, 2)),
    case("elementwise of three", "ij,j,i->ji", (2, 3), (3,), (2,)),
    case("outer", "i,j->ji", (2,), (3,)),
    case("outer of three", "i,jk,l->kilj", (2,), (3, 2), (2,)),
    case("no common mode but summed", "ij,kl->ik", (2, 3), (3, 2)),
    case("one operand sums a mode", "ijx,jk->ik", (2, 3, 2), (3, 4)),
    case("both operands sum a mode", "ijx,yjk->ik", (2, 3, 2), (2, 3, 4)),
    case("a scalar operand", "ij,,jk->ik", (2, 3), (), (3, 2)),
    case("size 1 everywhere", "ij,jk,k->i", (1, 1), (1, 1), (1,)),
    case("one mode in four operands", "ar,br,cr,r->abc", (2, 3), (2, 3), (2, 3), (3,)),
    case("mttkrp", "ijk,jr,kr->ir", (3, 2, 4), (2, 3), (4, 3)),
]

CONVOLUTIONS = [
    case("1-d", "bil,oil->bol|l", (2, 3, 6), (4, 3, 3)),
    case("2-d", "bihw,oihw->bohw|hw", (2, 2, 5, 4), (3, 2, 3, 2)),
    case("3-d", "bithw,oithw->bothw|thw", (1, 2, 3, 4, 3), (2, 2, 2, 3, 1)),
    case("4-d", "bixthw,oixthw->boxthw|xthw", (1, 2, 2, 3, 2, 3), (2, 2, 2, 2, 1, 2)),
    case("other layouts", "hbwi,wioh->owbh|wh", (5, 2, 4, 3), (2, 3, 2, 3)),
    case("channels last", "bhwi,hwio->bhwo|hw", (2, 5, 4, 2), (3, 2, 2, 3)),
    case("no batch, no channels", "hw,hw->hw|hw", (5, 4), (2, 3)),
    case("vector", "h,h->h|h", (6,), (3,)),
    case("outer with a convolved mode", "bh,ch->bch|h", (2, 5), (3, 2)),
    case("a second batch mode", "abih,oih->aboh|h", (2, 2, 3, 5), (2, 3, 3)),
    case("leading modes unnamed", "...ih,oih->...oh|h", (2, 2, 3, 5), (2, 3, 3)),
    case("leading modes unnamed in both", "...ih,...oih->...oh|h", (2, 3, 5), (2, 2, 3, 3)),
    case("grouped", "bgihw,goihw->bgohw|hw", (2, 2, 3, 4, 5), (2, 2, 3, 2, 3)),
    case("depthwise", "bchw,chw->bchw|hw", (2, 3, 5, 4), (3, 3, 2)),
    case("depthwise with a multiplier", "bchw,cmhw->bmchw|hw", (2, 3, 5, 4), (3, 2, 2, 2)),
    case("a kernel per sample", "bihw,boihw->bohw|hw", (2, 3, 4, 4), (2, 2, 3, 3, 2)),
    case("pointwise kernel", "bihw,oihw->bohw|hw", (2, 3, 4, 3), (2, 3, 1, 1)),
    case("even kernels", "bihw,oihw->bohw|hw", (1, 2, 5, 6), (2, 2, 2, 4)),
    case("kernel as large as the feature", "bih,oih->boh|h", (2, 3, 4), (2, 3, 4)),
    case("size 1 everywhere", "bihw,oihw->bohw|hw", (1, 1, 1, 1), (1, 1, 1, 1)),
    case("feature of size 1", "bihw,oihw->bohw|hw", (2, 3, 1, 4), (2, 3, 1, 3)),
    case("feature of size 1 amid groups", "ghc,gch->hg|h", (2, 1, 2), (2, 2, 2)),
    case("kernel of size 1 amid groups", "bwhgi,bghwi->ghwb|hw", (1, 1, 6, 2, 2), (1, 2, 1, 1, 2)),
    case("the feature sums a mode", "bihx,oih->boh|h", (2, 3, 5, 2), (2, 3, 3)),
    case("the kernel sums a mode", "bih,oihx->boh|h", (2, 3, 5), (2, 3, 3, 2)),
    case("both sum a mode", "bihx,oihy->ohb|h", (2, 3, 5, 2), (2, 3, 3, 2)),
    case("a batch mode is summed", "bih,oih->oh|h", (2, 3, 5), (2, 3, 3)),
    case("an output channel is summed", "bih,oih->bh|h", (2, 3, 5), (2, 3, 3)),
    case("a group is summed", "bgih,goih->boh|h", (2, 2, 3, 5), (2, 2, 3, 3)),
]

# With at most four operands: every pairwise path of these is tried.
SMALL_NETWORKS = [
    case("svd", "bihw,rihw,or->bohw|hw", (2, 3, 4, 5), (2, 3, 3, 2), (4, 2)),
    case("two separable kernels", "bihw,rih,orw->bohw|hw", (2, 3, 5, 4), (2, 3, 3), (3, 2, 2)),
    case("one channel, separable", "hw,h,w->hw|hw", (5, 4), (3,), (2,)),
    case("depthwise separable", "bihw,ih,iw,oi->bohw|hw", (2, 3, 5, 4), (3, 3), (3, 2), (2, 3)),
    case("two kernels on one mode", "bih,rih,orh->boh|h", (2, 2, 7), (3, 2, 2), (2, 3, 3)),
    case("three kernels on one mode", "bih,rih,srh,osh->boh|h", (2, 2, 9), (2, 2, 3), (3, 2, 2), (2, 3, 4)),
    case("three vectors on one mode", "h,h,h,h->h|h", (9,), (2,), (3,), (4,)),
    case("kernels that share a batch mode", "bgih,gih,goh->bgoh|h", (2, 2, 3, 6), (2, 3, 2), (2, 3, 3)),
    case("kernels share a mode that is kept", "bih,gioh,go->bgoh|h", (2, 2, 5), (3, 2, 2, 3), (3, 2)),
    case("kernels share a mode that is summed", "bih,gioh,go->boh|h", (2, 2, 5), (3, 2, 2, 3), (3, 2)),
    case("three share a mode", "rbh,rh,rh->bh|h", (3, 2, 6), (3, 2), (3, 3)),
    case("a convolution amid products", "bj,jih,oih->boh|h", (2, 3), (3, 2, 5), (2, 2, 3)),
    case("the feature is a product", "bir,rh,oih->boh|h", (2, 3, 2), (2, 5), (2, 3, 3)),
    case("tucker-2", "bihw,pqhw,op,iq->bohw|hw", (2, 3, 4, 3), (2, 2, 3, 2), (3, 2), (3, 2)),
    case("tucker-2 of a 1-d kernel, dense second", "bih,pqh,iq,po->boh|h", (2, 3, 5), (2, 2, 3), (3, 2), (2, 3)),
    case("3-d, one kernel per mode", "bthw,t,h,w->bthw|thw", (2, 3, 4, 3), (2,), (3,), (2,)),
    case("4-d, two modes per kernel", "xthw,xt,hw->xthw|xthw", (3, 2, 3, 3), (2, 2), (2, 3)),
    case("4-d, mixed kernels", "bxthw,oxt,othw,w->boxthw|xthw", (1, 3, 3, 2, 4), (2, 2, 2), (2, 2, 1, 2), (2,)),
    case("a feature per mode", "h,w,hw->hw|hw", (5,), (4,), (3, 2)),
    case("a feature per mode, with channels", "ah,bw,cabhw->hcw|hw", (2, 5), (3, 4), (2, 2, 3, 2, 3)),
    case("kernel on one mode, feature on another", "ah,ahw,bw->bhw|hw", (2, 5), (2, 3, 4), (3, 2)),
    case("features that cross", "ah,aw,bh,bw->hw|hw", (2, 5), (2, 4), (3, 2), (3, 3)),
    case("features that cross, kept apart", "ah,bw,bh,aw->abhw|hw", (2, 5), (2, 4), (2, 2), (2, 3)),
    case("features that cross in three modes", "ht,wt,wh->wth|wht", (5, 4), (4, 2), (2, 3)),
    case("features in a ring of three", "ahw,bwt,cth->abcwht|hwt", (2, 4, 3), (2, 2, 4), (2, 3, 2)),
    case("summed in one operand, three kernels", "bihx,ih,yoih->boh|h", (1, 2, 6, 2), (2, 2), (2, 3, 2, 3)),
    case("outer with a kernel", "bh,h,o->boh|h", (2, 5), (3,), (3,)),
    case("a scalar operand", "bih,,oih->boh|h", (2, 3, 5), (), (2, 3, 3)),
    case("kernel sizes 1", "bih,rih,orh->boh|h", (2, 3, 4), (2, 3, 1), (2, 2, 1)),
    case("kernels sum to the feature", "bh,h,h->bh|h", (2, 4), (3,), (2,)),
    case("leading modes unnamed", "...ih,rih,...or->...oh|h", (2, 2, 5), (2, 2, 3), (2, 3, 2)),
]

LARGER_NETWORKS = [
    case("cp without weights", "bihw,or,ir,hr,wr->bohw|hw", (2, 3, 4, 5), (2, 2), (3, 2), (3, 2), (2, 2)),
    case("cp", "bihw,r,or,ir,hr,wr->bohw|hw", (1, 3, 4, 4), (2,), (2, 2), (3, 2), (3, 2), (2, 2)),
    case("tucker", "bihw,pqrs,op,iq,hr,ws->bohw|hw", (1, 2, 4, 4), (2, 2, 2, 1), (2, 2), (2, 2), (3, 2), (2, 1)),
    case("tensor train", "bihw,ia,ahb,bwc,co->bohw|hw", (2, 3, 4, 4), (3, 2), (2, 3, 2), (2, 2, 2), (2, 2)),
    case(
        "tensor ring",
        "bihw,aoc,cid,dhe,ewa->bohw|hw",
        (1, 2, 4, 4),
        (2, 2, 2),
        (2, 2, 2),
        (2, 3, 2),
        (2, 2, 2),
    ),
    case("cp in three modes", "bithw,or,ir,tr,hr,wr->bothw|thw", (1, 2, 3, 3, 3), *((2, 2),) * 5),
    case("two layers", "bih,ra,iar,hs,srh,or->boh|h", (1, 2, 7), (2, 2), (2, 2, 2), (2, 2), (2, 2, 3), (2, 2)),
]

NETWORKS = SMALL_NETWORKS + LARGER_NETWORKS
CASES = PRODUCTS + CONVOLUTIONS + NETWORKS


def options_for(convolved: str) -> list[dict]:
    """Options for an equation with these convolved modes; some may leave an output empty or be too much."""
    if not convolved:
        return [{}]
    first, last = convolved[0], convolved[-1]
    return [
        {},
        {"stride": 2},
        {"padding": 1},
        {"padding": "same"},
        {"padding": "full", "stride": 3},
        {"padding": "full", "dilation": 2},
        {"padding": {first: (0, 5), last: (3, 2)}, "stride": {last: 2}, "dilation": {first: 3}},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": "same", "padding_mode": "circular", "dilation": {last: 2}},
        {"padding": {first: (11, 6)}, "padding_mode": "circular", "stride": {first: 2}},
        {"padding": "full", "padding_mode": "circular", "stride": 2, "dilation": 2},
    ]


def make_operands(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Standard-normal operands that require gradients, the same ones for the same shapes."""
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


_references: dict[str, Reference] = {}


def reference(equation: str, shapes: tuple[tuple[int, ...], ...], options: dict) -> Reference:
    """The oracle's value, and its gradients against a fixed random weight; worked out once."""
    key = repr((equation, shapes, options))
    if key not in _references:
        operands = make_operands(shapes)
        value = oracle(equation, *operands, **options)
        weight = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad(value, operands, weight)
        _references[key] = Reference(operands, weight, value.detach(), gradients)
    return _references[key]


def assert_agrees(value: Tensor, expected: Reference) -> None:
    """Hold a value and the gradients behind it against the oracle's."""
    torch.testing.assert_close(value, expected.value, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(value, expected.operands, expected.weight)
    for actual, wanted in zip(gradients, expected.gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10)
