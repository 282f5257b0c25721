"""Compression of a trained network under one budget for all layers."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from tt_conv.applications.compression.calibration import (
    Calibration,
    Seen,
    at_work,
    call,
    drawing_alike,
    evaluating,
    in_evaluation,
    relative_error,
    storage_of,
    storages_used,
)
from tt_conv.applications.compression.candidates import (
    Candidate,
    build_layer,
    can_hold,
    factor_shapes,
    smaller_candidates,
)
from tt_conv.applications.compression.choice import Item, choose
from tt_conv.applications.compression.holders import copied, find, past_the_tree, replaced_in
from tt_conv.applications.compression.layers import (
    Layer,
    Layers,
    find_layers,
    nothing_to_compress,
)
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.applications.compression.report import CompressionReport, LayerReport
from tt_conv.checks import one_of
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.kernels.metric import Metric, smooth
from tt_conv.kernels.rank import choose_rank
from tt_conv.kernels.table import FORMATS, kernel_format
from tt_conv.kernels.weighted import WeightedKernel

BUDGETS = ("parameters", "macs", "time", "error")
_TIMED_SECONDS = 3.0
_TRIALS = 6
_TIMED_CALLS = 6
_CORRELATION = 0.7  # of neighbouring positions, without data

Force = Mapping[str, str | tuple[str, int | float | Sequence[int]]]
Quality = Callable[[nn.Module], float]


def compress(
    model: nn.Module,
    *,
    budget: float,
    budget_of: str = "parameters",
    data: Iterable[Any] | None = None,
    formats: Sequence[str] = tuple(FORMATS),
    keep: Sequence[str] = (),
    force: Force | None = None,
    quality: Quality | None = None,
) -> tuple[nn.Module, CompressionReport]:
    """Return a smaller copy of a trained network, and what it cost.

    Every nn.Conv1d, nn.Conv2d, nn.Conv3d and nn.Linear anywhere inside may be stored in another format. Format
    and rank are chosen for all layers together, so that the whole network loses least under the budget; a layer
    may stay dense. The original is left as it is, and the result is the same every time, up to rounding.

    Parameters
    ----------
    model : nn.Module
        Any network; :class:`tt_conv.layers.ConvLSTM` and :class:`tt_conv.layers.FramePredictor` among them.
    budget : float
        What may be left, a fraction in (0, 1] of all parameters of the network, or of the multiply-adds of its
        convolutions and linear layers, or of the time these take; or the largest relative error, in (0, 1).
    budget_of : {"parameters", "macs", "time", "error"}
        "macs" and "time" need ``data``. For "time" every candidate is timed by itself, on the device that the model
        is on, so that the result is no longer the same every time. An "error" is that of the network's output
        on ``data``, and the smallest network within it is sought; without ``data`` it is that of each kernel, all
        entries alike.
    data : iterable, optional
        Calibration batches: tensors, passed as ``model(batch)``, tuples, ``model(*batch)``, or dicts,
        ``model(**batch)``. Then errors are those of layer outputs on these data, weighed by what the network's
        output makes of them, and each layer is fitted to what it sees behind the layers that were compressed
        before it. Without data, the layers count alike, and the error of a convolution's kernel is that on inputs
        whose neighbouring positions have a correlation of 0.7 and whose channels are unrelated.
    formats : sequence of {"svd", "tucker", "tt", "cp", "conv_tt"}
        What to choose from. "conv_tt", two stacked kernels, is for kernel sizes 5, 9, 13, ... only; "cp" and
        "conv_tt" are not tried where their decomposition would take long. A linear layer becomes the product of
        two, "svd". For speed, give ``("svd", "tucker")``: they run as few convolutions with many channels, while
        the others lose less at the same size.
    keep : sequence of str
        Name patterns (as in :mod:`fnmatch`) of layers to leave as they are. A layer that the network holds under
        several names has the first one in the report, and answers to all.
    force : mapping of str to str or tuple, optional
        Name pattern -> format, or (format, rank as :func:`tt_conv.kernels.rank.choose_rank` takes it), for layers that
        must not stay dense.
    quality : callable, optional
        ``quality(model) -> float``, for the report.

    Returns
    -------
    smaller : nn.Module
        A copy with the chosen layers in place, in the modes that ``model`` is in.
    report : CompressionReport

    Raises
    ------
    ValueError
        If there is nothing to compress, the budget can't be met (the message has the smallest that can), a
        pattern matches nothing, or a batch does not fit (the message names the layer).
    TypeError
        If an argument is of another kind.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress
    >>> model = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1))
    >>> smaller, report = compress(model, budget=0.25, data=[torch.randn(4, 8, 16, 16)])
    >>> report.parameters_after <= 0.25 * report.parameters_before
    True
    >>> smaller(torch.randn(1, 8, 16, 16)).shape
    torch.Size([1, 8, 16, 16])

    References
    ----------
    T. Chen et al., "Drone: Data-aware low-rank compression for large NLP models", NeurIPS 2021 (truncation in
    the metric of the input's second moment).
    """
    check_budget(budget, budget_of, data is not None)
    return Survey(model, data=data, formats=formats, keep=keep, force=force, quality=quality).compress(
        budget, budget_of
    )


class Survey:
    """All candidates of all layers of a network, from which one network per budget is made.

    The parameters are those of :func:`compress`; several budgets share what is expensive.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        data: Iterable[Any] | None = None,
        formats: Sequence[str] = tuple(FORMATS),
        keep: Sequence[str] = (),
        force: Force | None = None,
        quality: Quality | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(formats, str) or isinstance(keep, str):
            raise TypeError("formats and keep are sequences of str, not one str")
        for name in formats:
            one_of(name, "formats", tuple(FORMATS))
        # Reading a weight may change a model: a spectral norm in training mode iterates.
        self.model, self.quality = in_evaluation(copied(model)), quality
        self.original = model
        self.training = {name: module.training for name, module in model.named_modules()}
        layers = find_layers(self.model, keep)
        self.layers, self.left_out = dict(layers.found), dict(layers.left_out)
        if not self.layers:
            raise nothing_to_compress(model, self.left_out)
        self.calibration = None if data is None else Calibration(data)
        self.notes: list[str] = []
        self.used: set[str] = set()
        self._formats, self._forced = formats, _forced(force or {}, layers)
        if not formats and not self._forced:
            raise ValueError(f"formats is empty: name at least one of {', '.join(FORMATS)}, or force layers to one")
        with drawing_alike(self.model):
            self._survey()

    def _survey(self) -> None:
        if self.calibration is not None:
            self._leave_out_what_copies_share(self.calibration)
        self.seen: dict[str, Seen] = {}
        self.metrics: dict[str, Metric] = {}
        self.weights = dict.fromkeys(self.layers, 1.0)
        self.seconds_before: dict[str, float] = {}
        if self.calibration is not None:
            self._observe(self.calibration)
        # Without data, inputs are taken as smooth.
        self.assumed = {} if self.calibration is not None else _smooth(self.layers)
        self.candidates = self._candidates({**self.metrics, **self.assumed})
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.quality_before: float | None = None
        if self.quality is not None:
            original = copied(self.model)
            self._set_modes(original)
            self.quality_before = float(self.quality(original))

    def _set_modes(self, model: nn.Module) -> None:
        """Put a copy into the modes that the original is in."""
        for name, module in model.named_modules():
            module.training = self.training.get(name, module.training)

    def _leave_out_what_copies_share(self, calibration: Calibration) -> None:
        """Find the layers that the network reaches past all places where another can be put, such as a global name.

        Each layer is replaced by its copy, and a pass shows whether that is used, and the layer itself no more.
        """
        with torch.no_grad():
            calibration.run(copied(self.model), 0)  # what does not fit is named here
        plain, changed = copied(self.model), copied(self.model)
        old = {name: _storages(changed.get_submodule(name)) for name in self.layers}
        old_layers = [changed.get_submodule(name) for name in self.layers]
        changed = replaced_in(changed, {layer: copied(layer) for layer in old_layers})
        with drawing_alike(self.model):
            used = storages_used(plain, calibration.batches[0])
            used_then = storages_used(changed, calibration.batches[0])
        originals = [*self.original.named_modules(), *self.model.named_modules()]
        shared = [name for name, module in originals if (used | used_then) & _storages(module)]
        if shared:
            raise ValueError(
                f"a copy of this {type(self.model).__name__} still computes with the original's {shared[-1]!r}, which "
                "it reaches by a global name or in another way that copy.deepcopy does not follow; hold it in an "
                "attribute"
            )
        for name in list(self.layers):
            is_used = bool(used & _storages(plain.get_submodule(name)))
            self.used |= {name} if is_used else set()
            if used_then & old[name] or is_used != bool(used_then & _storages(changed.get_submodule(name))):
                del self.layers[name]
                self.left_out[name] = "the network reaches it in a way that no other layer can be put into"
        if not self.layers:
            raise nothing_to_compress(self.model, self.left_out)

    def _observe(self, calibration: Calibration) -> None:
        """Learn from the data what each layer sees, and how much its errors matter."""
        self.seen = calibration.shapes(self.model, self.layers)
        self.metrics = calibration.metrics(self.model, self.layers)
        for name in self.layers:
            if name not in self.metrics:
                self.notes.append(f"the data never reach {name!r}: it is fitted on its weights alone")
        self.reference = calibration.outputs(self.model)
        self.measurable = any(value.numel() for batch in self.reference for value in batch)
        weights = calibration.sensitivities(self.model, self.layers)
        if any(weights.values()):
            # A layer without an effect on this output is not free to be spoiled, and of one that is never called
            # nothing is known: its weight may be read.
            largest = max(weights.values())
            self.weights = {
                name: max(weight, 1e-6 * largest) if name in self.metrics else largest
                for name, weight in weights.items()
            }
        else:
            self.notes.append("the output has no gradient by the layers: their errors count alike")

    def _candidates(self, metrics: Mapping[str, Metric]) -> dict[str, list[Candidate]]:
        found: dict[str, list[Candidate]] = {}
        for name, layer in self.layers.items():
            with _named(name):
                kernel = WeightedKernel(layer.weight, metrics.get(name))
                if name in self._forced:
                    options = _forced_candidates(layer, kernel, *self._forced[name])
                else:
                    dense = Candidate("dense", (), kernel.dense.numel(), 0.0)
                    options = [dense, *smaller_candidates(layer, kernel, self._formats)]
            found[name] = [self._with_macs(name, c) for c in options] if self.calibration is not None else options
        if all(len(options) == 1 and options[0].format == "dense" for options in found.values()):
            reasons = dict.fromkeys(found, "no rank of any format is smaller than the dense kernel")
            raise nothing_to_compress(self.model, {**reasons, **self.left_out})
        return found

    def _with_macs(self, name: str, candidate: Candidate) -> Candidate:
        if name not in self.seen:
            return replace(candidate, macs=0)
        layer = self.layers[name]
        return replace(candidate, macs=_macs_of_calls(_hollow(layer, candidate), self.seen[name]))

    def compress(self, budget: float, budget_of: str = "parameters") -> tuple[nn.Module, CompressionReport]:
        """Return the network for one budget, as :func:`compress` does."""
        check_budget(budget, budget_of, self.calibration is not None)
        with drawing_alike(self.model):
            return self._compress(budget, budget_of)

    def _compress(self, budget: float, budget_of: str) -> tuple[nn.Module, CompressionReport]:
        if budget_of == "time":
            self._time_candidates()
        if budget_of != "error":
            smaller, rows = self._build(self._within(budget, budget_of), self.assumed)
        elif self.calibration is None:
            smaller, rows = self._build(self._each_within(budget), {})
        else:
            smaller, rows = self._within_error(budget, self.calibration)
        return smaller, self._report(smaller, rows, budget, budget_of)

    def smallest_budget(self, budget_of: str = "parameters") -> float:
        """Return the smallest fraction of parameters, MACs or time that can be met."""
        fixed, total = self._fixed(budget_of)
        return (fixed + sum(min(map(_cost_of(budget_of), c)) for c in self.candidates.values())) / total

    def _fixed(self, budget_of: str) -> tuple[int, float]:
        """Return what no choice changes, and the total of the original."""
        if budget_of == "time":
            self._time_candidates()
            return 0, max(1e-9, sum(self.seconds_before.values()))
        if budget_of == "macs":
            return 0, max(1, sum(self._macs_before(name) for name in self.layers))
        return self.parameters - sum(layer.weight.numel() for layer in self.layers.values()), self.parameters

    def _time_candidates(self) -> None:
        """Measure how long each candidate takes for what its layer sees."""
        if self.seconds_before:
            return
        for name, options in self.candidates.items():
            layer = self.layers[name]
            before = self.seconds_before[name] = self._seconds(name, layer)
            self.candidates[name] = [
                replace(c, seconds=before if c.format == "dense" else self._seconds(name, _with_some_values(layer, c)))
                for c in options
            ]

    def _seconds(self, name: str, layer: nn.Module) -> float:
        calls = self.seen[name].shapes if name in self.seen else {}
        return sum(count * seconds_of_call(layer, shape) for shape, count in calls.items())

    def _macs_before(self, name: str) -> int:
        return _macs_of_calls(self.layers[name], self.seen[name]) if name in self.seen else 0

    def _within(self, budget: float, budget_of: str) -> dict[str, Candidate]:
        """Choose the least loss within a fraction of parameters, MACs or time."""
        fixed, total = self._fixed(budget_of)
        cost = _cost_of(budget_of)
        options = {name: [Item(cost(c), self._loss(name, c)) for c in found] for name, found in self.candidates.items()}
        smallest = self.smallest_budget(budget_of)
        if smallest > budget * (1 + 1e-12):
            raise ValueError(
                f"a budget of {budget} of the {budget_of} can't be met: the smallest that can is {_up(smallest)}"
                + (f", since {fixed:,} of {total:,} are not in layers that can be compressed" if fixed else "")
            )
        return self._picked(choose(options, budget * total - fixed))

    def _loss(self, name: str, candidate: Candidate) -> float:
        return self.weights[name] * candidate.error**2

    def _picked(self, indices: Mapping[str, int]) -> dict[str, Candidate]:
        return {name: self.candidates[name][index] for name, index in indices.items()}

    def _each_within(self, error: float) -> dict[str, Candidate]:
        """Choose for each layer the fewest parameters whose relative error is small enough."""
        chosen = {}
        for name, options in self._candidates({}).items():
            kernel, best = WeightedKernel(self.layers[name].weight), min(c.error for c in options)
            # Errors between two ranks that were tried are estimates: what is taken is measured.
            for candidate in sorted((c for c in options if c.error <= error), key=lambda c: c.parameters):
                if candidate.format == "dense" or _measured_error(kernel, candidate) <= error:
                    chosen[name] = candidate
                    break
            else:
                raise ValueError(
                    f"an error of {error} can't be met: the layer {name!r} was forced to a format whose smallest "
                    f"error is {_up(best)}"
                )
        return chosen

    def _within_error(self, error: float, calibration: Calibration) -> tuple[nn.Module, list[LayerReport]]:
        """Search the smallest network whose measured error is small enough, by what is predicted."""
        if not self.measurable:
            raise ValueError(
                'budget_of="error" measures what the model returns, and on these data that holds no floating-point '
                "numbers: return tensors, or tuples, lists or dicts of them, or give a budget of parameters"
            )
        options = {
            name: [Item(self._loss(name, c), c.parameters) for c in found] for name, found in self.candidates.items()
        }
        least = math.sqrt(sum(min(option.cost for option in layer) for layer in options.values()))
        best: tuple[int, nn.Module, list[LayerReport]] | None = None
        closest, aim = math.inf, error
        for _ in range(_TRIALS):
            smaller, rows = self._build(self._picked(choose(options, max(aim, least) ** 2)), {})
            measured = relative_error(calibration.outputs(smaller), self.reference)
            closest = min(closest, measured)
            size = sum(row.parameters_after for row in rows)
            if measured <= error and (best is None or size < best[0]):
                best = (size, smaller, rows)
            if best is not None and 0.9 * error <= measured <= error:
                break
            aim *= min(4.0, 0.95 * error / max(measured, 1e-3 * error))
        if best is None:
            raise ValueError(f"an error of {error} can't be met: the smallest that was reached is {_up(closest)}")
        return best[1], best[2]

    def _build(
        self, chosen: Mapping[str, Candidate], assumed: Mapping[str, Metric]
    ) -> tuple[nn.Module, list[LayerReport]]:
        """Make the network; each layer is fitted to what it sees behind those that were replaced before."""
        smaller = copied(self.model)
        layers = _same_layers(smaller, self.layers)
        elsewhere = past_the_tree(smaller)
        rows: dict[str, LayerReport] = {}
        order = [*self.seen, *(name for name in layers if name not in self.seen)]
        replaced = False
        for name in order:
            candidate, layer = chosen[name], layers[name]
            metric = self.metrics.get(name)
            if candidate.format == "dense":
                rows[name] = self._row(name, candidate, 0.0, None if metric is None else 0.0)
                continue
            if replaced and metric is not None and self.calibration is not None:
                metric = self.calibration.metrics(smaller, {name: layer}).get(name, metric)
            kernel = WeightedKernel(layer.weight, assumed.get(name) if metric is None else metric)
            form = kernel_format(candidate.format, layer.weight.shape)
            factors = form.approximate(kernel, candidate.rank)
            dense = form.rebuild(factors)
            new = build_layer(layer, candidate.format, factors).train(self.training[name])
            smaller = replaced_in(smaller, {layer: new}, everywhere=id(layer) in elsewhere)
            replaced = True
            rows[name] = self._row(
                name, candidate, kernel.plain_error(dense), None if metric is None else kernel.error(dense)
            )
        self._set_modes(smaller)
        self._check_in_use(smaller, {name: layers[name] for name in rows if chosen[name].format != "dense"})
        return smaller, [rows[name] for name in self.layers]

    def _check_in_use(self, smaller: nn.Module, replaced: Mapping[str, nn.Module]) -> None:
        """Refuse a network that does not call its new layers, or in which an old one can still be reached."""
        names = {id(layer): name for name, layer in replaced.items()}
        reached = [names[id(part)] for _, part in find(smaller, lambda part: id(part) in names)]
        if self.calibration is not None and not reached:
            network = in_evaluation(copied(smaller))
            with drawing_alike(network):
                used = storages_used(network, self.calibration.batches[0])
            new = {name: network.get_submodule(name) for name in replaced if name in self.used}
            reached = [name for name, layer in new.items() if not used & _storages(layer)]
        if reached:
            raise ValueError(
                f"the network still uses {reached[0]!r} as it was and not what was put in its place; "
                f"leave it as it is: keep=[{reached[0]!r}]"
            )

    def _row(self, name: str, candidate: Candidate, weight_error: float, output_error: float | None) -> LayerReport:
        known = self.calibration is not None
        return LayerReport(
            name,
            tuple(self.layers[name].weight.shape),
            candidate.format,
            candidate.rank,
            self.layers[name].weight.numel(),
            candidate.parameters,
            self._macs_before(name) if known else None,
            candidate.macs,
            weight_error,
            output_error,
        )

    def _report(self, smaller: nn.Module, rows: list[LayerReport], budget: float, budget_of: str) -> CompressionReport:
        report = CompressionReport(
            rows,
            self.left_out,
            budget,
            budget_of,
            self.parameters,
            sum(p.numel() for p in smaller.parameters()),
            _bytes(self.model),
            _bytes(smaller),
            quality_before=self.quality_before,
            quality_after=None if self.quality is None else float(self.quality(copied(smaller))),
            notes=tuple(self.notes),
        )
        if self.calibration is None:
            return report
        after, before = pass_times(smaller, self.model, self.calibration)
        return replace(
            report,
            macs_before=sum(row.macs_before or 0 for row in rows),
            macs_after=sum(row.macs_after or 0 for row in rows),
            output_error=relative_error(self.calibration.outputs(smaller), self.reference) if self.measurable else None,
            step_time=after / before,
            milliseconds_before=1e3 * before,
            milliseconds_after=1e3 * after,
        )


def check_budget(budget: object, budget_of: object, has_data: bool) -> None:
    """Refuse what is no budget."""
    one_of(budget_of, "budget_of", BUDGETS)
    if isinstance(budget, bool) or not isinstance(budget, Real):
        raise TypeError(f"budget must be a number, got {budget!r}")
    if not 0 < float(budget) <= 1 or (budget_of == "error" and float(budget) == 1):
        what = "a relative error in (0, 1)" if budget_of == "error" else f"a fraction of the {budget_of} in (0, 1]"
        raise ValueError(f"budget must be {what}, got {budget!r}")
    if budget_of in ("macs", "time") and not has_data:
        raise ValueError(f'budget_of="{budget_of}" needs data: it depends on what the layers see')


def pass_times(smaller: nn.Module, original: nn.Module, calibration: Calibration) -> tuple[float, float]:
    """Return the median seconds of a pass of the first batch, and those of the original, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    # Not Calibration.run: with its hooks, a recurrent layer of ours goes frame by frame.
    with at_work(smaller) as (first, _), at_work(original) as (second, _), torch.no_grad():
        began = time.perf_counter()
        for round_ in range(9):
            for model, taken in zip((first, second), seconds, strict=True):
                start = time.perf_counter()
                call(model, calibration.batches[0])
                taken.append(time.perf_counter() - start)
            if round_ >= 3 and time.perf_counter() - began > _TIMED_SECONDS:
                break
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def _smooth(layers: Mapping[str, Layer]) -> dict[str, Metric]:
    """Return what is assumed of the inputs of convolutions without data."""
    found = {name: smooth(conv, _CORRELATION) for name, conv in layers.items() if not isinstance(conv, nn.Linear)}
    return {name: metric for name, metric in found.items() if metric is not None}


def _forced(force: Force, layers: Layers) -> dict[str, tuple[str, Any]]:
    """Return format and rank by layer; of several patterns that match, the last one counts."""
    if not isinstance(force, Mapping):
        raise TypeError(f"force must map name patterns to formats, got {type(force).__name__}")
    forced: dict[str, tuple[str, Any]] = {}
    for pattern, wanted in force.items():
        if not isinstance(wanted, str) and not (isinstance(wanted, tuple | list) and len(wanted) == 2):
            raise TypeError(f"force[{pattern!r}] must be a format, or a pair (format, rank), got {wanted!r}")
        name, rank = (wanted, None) if isinstance(wanted, str) else wanted
        one_of(name, f"force[{pattern!r}]", tuple(FORMATS))
        matching = [layer for layer in layers.matching(pattern) if layer in layers.found]
        if not matching:
            raise ValueError(f"force names {pattern!r}, which matches no layer; there are {', '.join(layers.found)}")
        forced |= dict.fromkeys(matching, (name, rank))
    return forced


def _forced_candidates(layer: Layer, kernel: WeightedKernel, name: str, rank: Any) -> list[Candidate]:
    if isinstance(layer, nn.Linear) and not can_hold(layer, name):
        raise ValueError(f"a kernel of shape {tuple(kernel.dense.shape)} can't be forced to {name!r}")
    form = kernel_format(name, kernel.dense.shape)
    if rank is not None:
        return [Candidate.of(name, form.truncation(kernel, choose_rank(form, rank)))]
    options = smaller_candidates(layer, kernel, [name])
    if not options:
        raise ValueError(f"no rank of {name!r} is smaller than its dense kernel")
    return options


def _measured_error(kernel: WeightedKernel, candidate: Candidate) -> float:
    return kernel_format(candidate.format, kernel.dense.shape).truncation(kernel, candidate.rank).error


def _same_layers(copied: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Any]:
    return {name: copied.get_submodule(name) for name in layers}


def _storages(module: nn.Module) -> set[int]:
    return {storage_of(parameter) for parameter in module.parameters()} - {0}


def _cost_of(budget_of: str) -> Callable[[Candidate], float]:
    if budget_of == "time":
        return lambda c: c.seconds or 0.0
    return lambda c: (c.macs or 0) if budget_of == "macs" else c.parameters


def _up(value: float) -> str:
    """Return a number with four digits that is not below it."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1.0
    return f"{math.ceil(value / step - 1e-9) * step:.4g}"


def _bytes(model: nn.Module) -> int:
    tensors: dict[int, Tensor] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _hollow(layer: Layer, candidate: Candidate) -> nn.Module:
    """Return what a candidate becomes, without values."""
    if candidate.format == "dense":
        return layer
    shapes = factor_shapes(layer, candidate.format, candidate.rank)
    factors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return build_layer(copy.deepcopy(layer).to("meta"), candidate.format, factors)


def _with_some_values(layer: Layer, candidate: Candidate) -> nn.Module:
    """Return what a candidate becomes, with some values: they take as long as the right ones."""
    if candidate.format == "dense":
        return layer
    shapes = factor_shapes(layer, candidate.format, candidate.rank)
    return build_layer(layer, candidate.format, {name: torch.full(shape, 0.01) for name, shape in shapes.items()})


def seconds_of_call(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the least time of a few calls of a layer in evaluation mode, on inputs of a shape."""
    weight = next(layer.parameters())
    x = torch.rand(shape, dtype=weight.dtype, device=weight.device)
    taken = []
    with evaluating(layer), torch.inference_mode():
        for _ in range(_TIMED_CALLS):
            start = time.perf_counter()
            layer(x)
            if x.device.type != "cpu":
                torch.accelerator.synchronize()
            taken.append(time.perf_counter() - start)
    return min(taken[1:])


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of a layer in front of errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the layer {name or '(model)'!r}: {error}") from error


def _macs_of_calls(layer: nn.Module, seen: Seen) -> int:
    """Return the multiply-adds of a layer for the inputs that it saw."""
    return sum(calls * _macs_of_call(layer, shape) for shape, calls in seen.shapes.items())


def _macs_of_call(layer: Any, shape: tuple[int, ...]) -> int:
    if isinstance(layer, LowRankLinear):
        return layer.macs(shape)
    if isinstance(layer, nn.Linear):
        return math.prod(shape[:-1]) * layer.weight.numel()
    if isinstance(layer, TensorizedConv):
        shape = shape if len(shape) == len(layer.kernel_size) + 2 else (1, *shape)
        return int(layer.explain(shape, train=False).opt_cost)
    with torch.device("meta"):
        out = copy.deepcopy(layer).to("meta")(torch.empty(shape, dtype=layer.weight.dtype))
    return out.numel() * layer.weight[0].numel()
