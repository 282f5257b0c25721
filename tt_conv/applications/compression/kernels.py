"""One layer's kernel in every format: how good each rank is, and the factors of the one that is taken."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from tt_conv.applications.compression.conv_tt_conv import ConvTTConv, inner_kernel_size
from tt_conv.applications.compression.layers import Layer
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.applications.compression.stacked_fit import fitted_pair, largest_stable_rank
from tt_conv.checks import one_of
from tt_conv.conv_tt.rank import ConvTTFormat
from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.decompose import decompose
from tt_conv.kernels.factorization import Factorization, Factors, kernel_factorization
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.kernels.metric import Metric, along_modes, roots
from tt_conv.kernels.rank import Format, Rank
from tt_conv.kernels.tensorly import pytorch_backend

FORMATS = ("svd", "tucker", "tt", "cp", "conv_tt")
_SIZES = 28  # candidates per format; fewer leave much of a budget unused
_MOST_SVD_RANKS = 48
_FEW_SIZES = 4  # of formats whose decomposition is a long iteration
_MOST_WORK = 4_000_000  # kernel entries times rank of such a decomposition: a second or so


@dataclass(frozen=True)
class Candidate:
    """One way to store a layer's kernel.

    Parameters
    ----------
    format : str
        "dense", or one of ``FORMATS``.
    rank : tuple of int
        Complete rank of the format; empty for the dense kernel.
    parameters : int
        Numbers in the kernel's factors.
    error : float
        Relative error: of the kernel, or of the layer's output on the calibration data.
    macs : int, optional
        Multiply-adds in one pass of the calibration data's first batch.
    seconds : float, optional
        What the layer takes of such a pass, once it was timed.
    """

    format: str
    rank: Rank
    parameters: int
    error: float
    macs: int | None = None
    seconds: float | None = None


class Kernel:
    """A layer's kernel, to be approximated in the metric of the layer's input, if that is known.

    Parameters
    ----------
    layer : nn.Conv1d, nn.Conv2d, nn.Conv3d or nn.Linear
    metric : Metric, optional
        Without it, entries of the kernel count alike.
    """

    def __init__(self, layer: Layer, metric: Metric | None = None) -> None:
        self.layer = layer
        weight = layer.weight.detach()
        self.dense = weight.to(torch.float32 if weight.device.type == "mps" else torch.float64).contiguous()
        if not self.dense.isfinite().all():
            raise ValueError("its weight holds infinite or NaN values")
        # Inputs that are always zero tell nothing.
        self.metric = metric.floored() if metric is not None and metric.channels.any() else None
        self.inner_size = None if isinstance(layer, nn.Linear) else inner_kernel_size(layer)

    def formats(self) -> tuple[str, ...]:
        """Return the formats that this kernel can take."""
        if isinstance(self.layer, nn.Linear) or math.prod(self.dense.shape[2:]) == 1:
            return ("svd",)  # without spatial modes the others are products of two matrices as well
        return tuple(name for name in FORMATS if name != "conv_tt" or self.inner_size)

    def dense_candidate(self) -> Candidate:
        """Return the kernel as it is."""
        return Candidate("dense", (), self.dense.numel(), 0.0)

    def candidates(self, formats: Iterable[str]) -> list[Candidate]:
        """Return what each format can do with fewer parameters than the dense kernel has."""
        return [
            candidate
            for name in map(known_format, formats)
            if name in self.formats()
            for candidate in self.search(name)
        ]

    def search(self, name: str) -> list[Candidate]:
        """Return what one format can do with fewer parameters than the dense kernel has."""
        return [c for c in _SEARCHES[known_format(name)](self) if c.parameters < self.dense.numel()]

    def at(self, name: str, rank: Rank) -> Candidate:
        """Return the candidate of one format and complete rank."""
        factors = self.factors(name, rank)
        return Candidate(name, rank, sum(f.numel() for f in factors.values()), self.error(self.rebuild(name, factors)))

    def error(self, approximation: Tensor) -> float:
        """Return the relative error of an approximation of the dense kernel."""
        if self._size == 0:
            return 0.0
        return math.sqrt(self._squared(self.dense - approximation) / self._size)

    def weight_error(self, approximation: Tensor) -> float:
        """Return the relative error with all entries alike."""
        norm = float(self.dense.norm())
        return float((self.dense - approximation).norm()) / norm if norm else 0.0

    def kind(self, name: str) -> Factorization:
        """Return the factorization of a format for this kernel."""
        return kernel_factorization(name, self.dense.shape)

    def form(self, name: str) -> Format:
        """Return what counts the ranks and parameters of a format for this kernel."""
        if known_format(name) != "conv_tt":
            return self.kind(name).form
        assert self.inner_size is not None
        return ConvTTFormat((*self.dense.shape[:2], 1, *self.dense.shape[2:]), (self.inner_size,), 1)

    def rebuild(self, name: str, factors: Factors) -> Tensor:
        """Return the dense kernel of some factors."""
        if known_format(name) == "conv_tt":
            return stacked_kernel(factors["projection"], factors["core"])
        return self.kind(name).rebuild(factors)

    def factors(self, name: str, rank: Rank) -> Factors:
        """Return the factors of a format and rank, in the dtype of the computation."""
        if known_format(name) == "conv_tt":
            factors = self._conv_tt(rank)
        elif name == "svd":
            factors = _split(self._svd, rank[0], self.dense.shape)
        else:
            kind = self.kind(name)
            factors = self._restored(kind, decompose(kind, self._white, rank))
        return self._refitted(name, factors)

    def module(self, name: str, factors: Factors) -> nn.Module:
        """Return the layer that takes the place of the dense one."""
        return build_layer(self.layer, name, factors)

    @cached_property
    def _size(self) -> float:
        return self._squared(self.dense)

    def _squared(self, kernel: Tensor) -> float:
        return float(kernel.square().sum()) if self.metric is None else self.metric.squared(kernel)

    @cached_property
    def _roots(self) -> tuple[list[Tensor], list[Tensor]]:
        """Roots of what the metric says of each mode from the input channels on, and their inverses."""
        if self.metric is None:
            return [], []
        pairs = [roots(moment) for moment in (self.metric.channels, *self.metric.axes)]
        return [root for root, _ in pairs], [inverse for _, inverse in pairs]

    @cached_property
    def _white(self) -> Tensor:
        """The kernel whose plain errors are, as far as channels and single axes go, those of the output."""
        return along_modes(self.dense, self._roots[0])

    def _restored(self, kind: Factorization, factors: Factors) -> Factors:
        """Return the factors of the kernel from those of the white one."""
        restored = dict(factors)
        for letter, inverse in zip(f"i{kind.axes}", self._roots[1], strict=False):
            name = "input" if letter == "i" else letter
            mode = kind.terms[name].index(letter)
            moved = torch.tensordot(factors[name], inverse, ([mode], [0])).movedim(-1, mode)
            restored[name] = moved.contiguous()
        return restored

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Left factor, singular values and right factor; exact for the metric of whole patches."""
        if self.metric is not None and self.metric.patches is not None:
            root, inverse = roots(self.metric.patches)
            left, values, right = torch.linalg.svd(self.dense.flatten(1) @ root, full_matrices=False)
            return left, values, right @ inverse
        left, values, right = torch.linalg.svd(self._white.flatten(1), full_matrices=False)
        right = along_modes(right.reshape(-1, *self.dense.shape[1:]), self._roots[1])
        return left, values, right.flatten(1)

    def _refitted(self, name: str, factors: Factors) -> Factors:
        """Fit the factor of the output channels anew, which is linear, in the metric of whole patches."""
        if self.metric is None or self.metric.patches is None or name in ("conv_tt", "svd"):
            return factors
        rank = factors["output"].shape[1]
        one = {**factors, "output": torch.eye(rank).to(self.dense)}
        basis = kernel_factorization(name, (rank, *self.dense.shape[1:])).rebuild(one).flatten(1)
        weighted = self.metric.times(basis)
        gram = weighted @ basis.mT
        ridge = 1e-10 * gram.diagonal().mean() * torch.eye(rank).to(gram)
        output = torch.linalg.lstsq(gram + ridge, weighted @ self.dense.flatten(1).mT).solution.mT
        refitted = {**factors, "output": output.contiguous()}
        if not output.isfinite().all():
            return factors
        better = self.error(self.rebuild(name, refitted)) <= self.error(self.rebuild(name, factors))
        return refitted if better else factors

    def _conv_tt(self, rank: Rank) -> Factors:
        size = self.inner_size or (1,)
        projection, core = fitted_pair(self.dense, rank[0], size, self.metric)
        return {"projection": projection, "core": core}

    def _search_svd(self) -> Iterator[Candidate]:
        values = self._svd[1].square()
        tails = values.flip(0).cumsum(0).flip(0)
        per_rank = len(self.dense) + self.dense[0].numel()
        total = max(float(tails[0]), torch.finfo(tails.dtype).tiny)
        steps = max(1, len(values) // _MOST_SVD_RANKS)
        for rank in sorted({*range(1, min(9, len(values))), *range(steps, len(values), steps)}):
            yield Candidate("svd", (rank,), rank * per_rank, math.sqrt(float(tails[rank]) / total))

    def _search_tucker(self) -> Iterator[Candidate]:
        """Read all truncations of the higher-order SVD off one table of energies, and keep the best per size."""
        core, bases = self._white, []
        for mode in range(core.ndim):
            unfolding = core.movedim(mode, 0).flatten(1)
            bases.append(torch.linalg.svd(unfolding, full_matrices=False).U)
            core = torch.tensordot(bases[-1], core, ([0], [mode])).movedim(0, mode)
        energy = core.square()
        parameters = torch.ones((), dtype=torch.long, device=core.device)
        linear = torch.zeros((), dtype=torch.long, device=core.device)
        for mode, size in enumerate(core.shape):
            energy = energy.cumsum(mode)
            ranks = torch.arange(1, size + 1, device=core.device).view(-1, *(1,) * (core.ndim - mode - 1))
            parameters, linear = parameters * ranks, linear + self.dense.shape[mode] * ranks
        parameters = parameters + linear
        form = self.kind("tucker").form
        seen = set()
        for size in self._sizes(form.parameters(form.uniform(1)), _SIZES):
            best = int(energy.masked_fill(parameters > size, -1).argmax())
            rank = form.clip(tuple(int(r) + 1 for r in torch.unravel_index(torch.tensor(best), core.shape)))
            if rank in seen:
                continue
            seen.add(rank)
            corner = tuple(slice(r) for r in rank)
            names = list(self.kind("tucker").terms)
            kept = [basis[:, :r] for basis, r in zip(bases, rank, strict=True)]
            factors = dict(zip(names, [core[corner], *kept], strict=True))
            yield self._judged("tucker", rank, self._restored(self.kind("tucker"), factors))

    def _search_tt(self) -> Iterator[Candidate]:
        train = self._white.movedim(0, -1)
        cuts = [math.prod(train.shape[:bond]) for bond in range(1, train.ndim)]
        spectra = [torch.linalg.svdvals(train.reshape(cut, -1)).square() for cut in cuts]
        kind, seen = self.kind("tt"), set()
        for size in self._sizes(kind.form.parameters(kind.form.uniform(1)), _SIZES):
            rank = kind.form.clip(_best_train(spectra, kind.form, size))
            if rank in seen:
                continue
            seen.add(rank)
            with pytorch_backend() as tensorly:
                first, *middle, last = tensorly.tensor_train(train.contiguous(), rank=[1, *rank, 1])
            parts = [first.squeeze(0), *middle, last.squeeze(-1).mT]
            yield self._judged("tt", rank, self._restored(kind, dict(zip(kind.terms, parts, strict=True))))

    def _search_cp(self) -> Iterator[Candidate]:
        return self._interpolated("cp", self.kind("cp").form)

    def _search_conv_tt(self) -> Iterator[Candidate]:
        quick = largest_stable_rank(self.dense, self.inner_size or (1,))
        return self._interpolated("conv_tt", self.form("conv_tt"), quick)

    def _interpolated(self, name: str, form: Format, quick: int = 1) -> Iterator[Candidate]:
        """Decompose at a few ranks of a format with one rank; in between, errors shrink evenly with the rank."""
        per_rank = form.parameters((1,))
        most = min(form.largest[0], max(quick, 1, _MOST_WORK // self.dense.numel()))
        ranks = sorted({min(most, size // per_rank) for size in self._sizes(per_rank, _FEW_SIZES)})
        judged = [self.at(name, (rank,)) for rank in ranks]
        yield from judged
        for low, high in pairwise(judged):
            between = range(low.rank[0] + 1, high.rank[0])
            for rank in between[:: max(1, len(between) // 16)]:
                share = (rank - low.rank[0]) / (high.rank[0] - low.rank[0])
                # By a factor; a bound keeps zero out of it.
                shrinks = max(high.error, 1e-12) / max(low.error, 1e-12)
                yield Candidate(name, (rank,), rank * per_rank, low.error * shrinks**share)

    def _sizes(self, smallest: int, count: int) -> list[int]:
        """Return parameter counts from a format's smallest to just below the dense kernel's."""
        largest = 0.95 * self.dense.numel()
        if smallest >= largest:
            return [smallest] if smallest < self.dense.numel() else []
        ratio = (largest / smallest) ** (1 / (count - 1))
        return sorted({max(smallest, round(smallest * ratio**n)) for n in range(count)})

    def _judged(self, name: str, rank: Rank, factors: Factors) -> Candidate:
        factors = self._refitted(name, factors)
        parameters = sum(factor.numel() for factor in factors.values())
        return Candidate(name, rank, parameters, self.error(self.rebuild(name, factors)))


def known_format(name: str) -> str:
    """Return the name of a format, or refuse it with those that there are."""
    return one_of(name, "format", FORMATS)


def with_macs(candidate: Candidate, macs: int) -> Candidate:
    """Return a candidate with its cost."""
    return replace(candidate, macs=macs)


def factor_shapes(layer: Layer, name: str, rank: Rank) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the factors of a layer's kernel."""
    outputs, inputs, *_ = layer.weight.shape
    if known_format(name) == "conv_tt":
        inner = None if isinstance(layer, nn.Linear) else inner_kernel_size(layer)
        if inner is None or len(rank) != 1:
            raise ValueError(f"a kernel of shape {tuple(layer.weight.shape)} has no Conv-TT of rank {rank}")
        return {"projection": (rank[0], inputs, *inner), "core": (outputs, rank[0], *inner)}
    kind = kernel_factorization(name, tuple(layer.weight.shape))
    return kind.shapes(kind.form.complete(rank))


def build_layer(layer: Layer, name: str, factors: Factors) -> nn.Module:
    """Return the layer with given factors that takes the place of a dense one; gradients and mode are kept."""
    weight = layer.weight
    known_format(name)
    if isinstance(layer, nn.Linear):
        if name != "svd":
            raise ValueError(f"a linear layer has the format 'svd' only, got {name!r}")
        parts = {key: value.to(weight.device, weight.dtype).contiguous() for key, value in factors.items()}
        bias = None if layer.bias is None else layer.bias.detach().clone()
        new: nn.Module = LowRankLinear(parts["output"], parts["kernel"], bias)
    elif name == "conv_tt":
        parts = {key: value.to(weight.device, weight.dtype).contiguous() for key, value in factors.items()}
        new = ConvTTConv(layer, parts["projection"], parts["core"])
    else:
        return TensorizedConv.with_factors(layer, name, factors)
    for key, parameter in new.named_parameters():
        source = layer.bias if key == "bias" and layer.bias is not None else weight
        parameter.requires_grad_(source.requires_grad)
    return new.train(layer.training)


def _split(svd: tuple[Tensor, Tensor, Tensor], rank: int, shape: Sequence[int]) -> Factors:
    left, values, right = svd
    # Symmetric scales train best, but the rows of a restored right factor have scales of their own.
    scale = (values[:rank] / right[:rank].norm(dim=1).clamp_min(1e-300)).sqrt()
    kernel = (values[:rank] / scale.clamp_min(1e-300))[:, None] * right[:rank]
    return {"output": left[:, :rank] * scale, "kernel": kernel.reshape(rank, *shape[1:])}


def _best_train(spectra: Sequence[Tensor], form: Format, size: int) -> Rank:
    """Return the rank that keeps the largest singular values of all cuts, as many as ``size`` parameters allow."""
    everything = torch.cat(list(spectra)).sort(descending=True).values

    def rank(kept: int) -> Rank:
        threshold = everything[kept - 1]
        return tuple(max(1, int((spectrum >= threshold).sum())) for spectrum in spectra)

    low, high = 1, len(everything)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if form.parameters(form.clip(rank(middle))) <= size else (low, middle - 1)
    return rank(low)


_SEARCHES: dict[str, Callable[[Kernel], Iterator[Candidate]]] = {
    "svd": Kernel._search_svd,
    "tucker": Kernel._search_tucker,
    "tt": Kernel._search_tt,
    "cp": Kernel._search_cp,
    "conv_tt": Kernel._search_conv_tt,
}
