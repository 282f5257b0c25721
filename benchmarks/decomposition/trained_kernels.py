"""Trained kernels in four formats.

Two small networks learn to predict the next frame of moving digits through one dense kernel: a causal convolution over
3 frames (``causal``, 9 x 9 taps), and a ConvLSTM whose gates see 2 past hidden states (``recurrent``, 7 x 7 taps). The
trained kernel is then approximated with the parameters of a Conv-TT of some rank with kernels of 3 x 3 and a fixed
window, so that every frame reaches all taps:

- by ``conv_tt`` (with ``restarts=1``, on one thread like everything here), and by ``conv_tt`` with the second moment of
  the patches that the kernel sees on training data, which makes it minimize the error of the output instead;
- by Adam on the same projections and cores from a random start, given the seconds that ``conv_tt`` took for each of
  two learning rates, the better of which is shown;
- as a CP, Tucker and tensor-train decomposition by TensorLy of the kernel ``[O, I, N, K, K]``, through
  ``TensorizedConv.from_conv`` with the share of parameters as its budget, which it may not use up.

``Conv-TT, sliding`` is the train of that rank with a sliding window, which has fewer parameters. In it the newest frame
reaches 5 x 5 taps only, and what these kernels have outside bounds the error from below: these networks learned with
all taps from all frames. On kernels like these CP has a lower error than a Conv-TT of the same size: they have few
independent channels, and wide filters that chains of 3 x 3 kernels with so few channels do not follow. The error of the
kernel is not that of the output, though: most patches show background, so that small errors add up over many taps. The
others have no such weighting here. What a recurrent kernel sees changes with the kernel itself, so that the second
moment says less there.

``error`` is that of the kernel, relative; ``loss`` is the network's cross-entropy on test sequences with that kernel in
the place of the dense one and nothing trained again, relative to the loss with the dense one.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv import ConvTT, TensorizedConv, conv_tt
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.conv_tt.fit import PoorFitWarning, input_second_moment

LEARNING_RATES = (0.01, 0.03)
TRAINING_STEPS, BATCH, FRAMES = 500, 8, 8
TEST_SEQUENCES, CALIBRATION_SEQUENCES = 64, 8
CACHE = Path("build/trained_kernels")


class Network(nn.Module):
    """Predicts the next frame through one dense kernel, which can be replaced in a call."""

    ranks: tuple[int, ...]

    def __init__(self, inputs: int, outputs: int, steps: int, size: int) -> None:
        super().__init__()
        self.order = (size - 1) // 2 - 1
        # A small start: what is left of it after the training would have no structure.
        self.kernel = nn.Parameter(
            0.1 * torch.randn(outputs, inputs, steps, size, size) / (inputs * steps) ** 0.5 / size
        )

    def convolve(self, frames: Sequence[Tensor], kernel: Tensor) -> Tensor:
        """Convolve the frames ``[B, I, H, W]`` of a window, the oldest first."""
        return F.conv2d(torch.cat(tuple(frames), 1), kernel.transpose(1, 2).flatten(1, 2), padding="same")

    def seen(self, sequence: Tensor, kernel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what the kernel sees ``[B, T, I, H, W]`` and the logits of the next frames ``[B, T, 1, H, W]``."""
        raise NotImplementedError


class Causal(Network):
    """A causal convolution between two others."""

    # A search at a higher rank takes minutes.
    ranks = (1, 2)

    def __init__(self) -> None:
        super().__init__(12, 24, 3, 9)
        self.lift = nn.Conv2d(1, 12, 5, padding=2)
        self.bias = nn.Parameter(torch.zeros(24, 1, 1))
        self.read = nn.Conv2d(24, 1, 1)

    def seen(self, sequence: Tensor, kernel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kernel = self.kernel if kernel is None else kernel
        hidden = torch.tanh(self.lift(sequence.flatten(0, 1))).unflatten(0, sequence.shape[:2])
        steps = kernel.shape[2]
        padded = F.pad(hidden, (0, 0) * 3 + (steps - 1, 0))
        windows = [padded[:, n : n + hidden.shape[1]].flatten(0, 1) for n in range(steps)]
        logits = self.read(torch.relu(self.convolve(windows, kernel) + self.bias))
        return hidden, logits.unflatten(0, sequence.shape[:2])


class Recurrent(Network):
    """A ConvLSTM whose gates see several past hidden states."""

    ranks = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__(12, 48, 2, 7)
        self.input = nn.Conv2d(1, 48, 5, padding=2)
        self.read = nn.Conv2d(12, 1, 1)

    def seen(self, sequence: Tensor, kernel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kernel = self.kernel if kernel is None else kernel
        zero = sequence.new_zeros(len(sequence), 12, *sequence.shape[3:])
        past, cell, hidden = [zero] * kernel.shape[2], zero, []
        for frame in sequence.unbind(1):
            gates = self.input(frame) + self.convolve(past, kernel)
            i, f, o, g = gates.chunk(4, 1)
            cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden.append(torch.sigmoid(o) * torch.tanh(cell))
            past = [*past[1:], hidden[-1]]
        logits = [self.read(h) for h in hidden]
        return torch.stack(hidden, 1), torch.stack(logits, 1)


NETWORKS: dict[str, Callable[[], Network]] = {"causal": Causal, "recurrent": Recurrent}


def cases(device: torch.device) -> Iterator[dict]:
    """Yield one result per network, rank and method."""
    torch.set_num_threads(1)
    for name in NETWORKS:
        network = trained(name, device)
        test = _sequences("test", range(TEST_SEQUENCES), device)
        with torch.no_grad():
            dense_loss = float(_loss(network, test))
            seen, _ = network.seen(_sequences("train", range(CALIBRATION_SEQUENCES), device))
        kernel = network.kernel.detach()
        second_moment = input_second_moment(seen, kernel.shape[2], kernel.shape[3:])
        shape = {
            "shape": tuple(kernel.shape),
            "dense parameters": kernel.numel(),
            "dense loss": dense_loss,
            "beyond sliding": _beyond_sliding(kernel, network.order),
        }
        for rank in network.ranks:
            for method, approximated, parameters, seconds in _approximations(
                kernel, rank, network.order, second_moment
            ):
                with torch.no_grad():
                    loss = float(_loss(network, test, approximated)) / dense_loss
                yield {
                    "case": f"{name}, rank {rank}, {method}",
                    "network": name,
                    "rank": rank,
                    "method": method,
                    "parameters": parameters,
                    "error": float((approximated - kernel).norm() / kernel.norm()),
                    "loss": loss,
                    "seconds": seconds,
                    **shape,
                }


def trained(name: str, device: torch.device) -> Network:
    """Return a trained network, from memory if it was trained by this very code before."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = CACHE / f"{name}-{device.type}-{digest}.pt"
    torch.manual_seed(0)
    network = NETWORKS[name]().to(device)
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True, map_location=device))
        return network
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=TRAINING_STEPS)
    for step in range(TRAINING_STEPS):
        optimizer.zero_grad()
        _loss(network, _sequences("train", range(step * BATCH, (step + 1) * BATCH), device)).backward()
        optimizer.step()
        schedule.step()
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


def _sequences(split: Any, numbers: range, device: torch.device) -> Tensor:
    data = MovingMNIST(split, length=numbers.stop, frames=FRAMES, size=32, digits=2, digit_size=14)
    return torch.stack([data[number] for number in numbers]).to(device)


def _loss(network: Network, sequences: Tensor, kernel: Tensor | None = None) -> Tensor:
    logits = network.seen(sequences[:, :-1], kernel)[1]
    # The first frames show no motion yet.
    return F.binary_cross_entropy_with_logits(logits[:, 2:], sequences[:, 3:])


def _approximations(
    kernel: Tensor, rank: int, order: int, second_moment: Tensor
) -> Iterator[tuple[str, Tensor, int, float]]:
    """Yield method, dense kernel, parameters and seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorFitWarning)
        start = time.perf_counter()
        sliding = conv_tt(kernel, rank, order=order, kernel_size=3, restarts=1)
        yield "Conv-TT, sliding", sliding.to_tensor(), sliding.n_parameters, time.perf_counter() - start
        start = time.perf_counter()
        plain = conv_tt(kernel, rank, order=order, kernel_size=3, window="fixed", restarts=1)
        allowed = time.perf_counter() - start
        yield "Conv-TT", plain.to_tensor(), plain.n_parameters, allowed
        start = time.perf_counter()
        weighted = conv_tt(
            kernel, rank, order=order, kernel_size=3, window="fixed", restarts=1, second_moment=second_moment
        )
        seconds = time.perf_counter() - start
        yield "Conv-TT, second moment", weighted.to_tensor(), weighted.n_parameters, seconds
    budget = plain.n_parameters
    fits = [_adam(kernel, rank, order, allowed, rate) for rate in LEARNING_RATES]
    best = min(fits, key=lambda fit: float((fit - kernel).norm()))
    yield "Adam", best, budget, allowed
    outputs, inputs, steps, height, width = kernel.shape
    conv = nn.Conv3d(inputs, outputs, (steps, height, width), bias=False, device=kernel.device)
    conv.weight = nn.Parameter(kernel)
    for method in ("cp", "tucker", "tt"):
        start = time.perf_counter()
        layer = TensorizedConv.from_conv(conv, method, rank=budget / kernel.numel())
        seconds = time.perf_counter() - start
        parameters = sum(factor.numel() for factor in layer.factors.values())
        yield {"cp": "CP", "tucker": "Tucker", "tt": "TT"}[method], layer.to_tensor().detach(), parameters, seconds


def _beyond_sliding(kernel: Tensor, order: int) -> float:
    """Return the share of a kernel's norm where a Conv-TT with a sliding window is zero whatever its factors."""
    layer = ConvTT(kernel.shape[1], kernel.shape[0], 3, order=order, steps=kernel.shape[2], rank=1, bias=False)
    with torch.no_grad():
        for factor in layer.parameters():
            factor.fill_(1)
        return float(kernel[layer.to(kernel.device).to_tensor() == 0].norm() / kernel.norm())


def _adam(kernel: Tensor, rank: int, order: int, seconds: float, rate: float) -> Tensor:
    """Return the dense kernel of a Conv-TT after so many seconds of Adam, its rate falling to zero in that time."""
    torch.manual_seed(0)
    outputs, inputs, steps = kernel.shape[:3]
    layer = ConvTT(inputs, outputs, 3, order=order, steps=steps, rank=rank, window="fixed", bias=False)
    factors = [*layer.to(kernel.device).projections, *layer.cores]
    # The start has the size of the target.
    scale = float(layer.to_tensor().detach().norm() / kernel.norm())
    optimizer = torch.optim.Adam(factors, lr=rate)
    start = time.perf_counter()
    while (elapsed := (time.perf_counter() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * elapsed)) / 2
        optimizer.zero_grad()
        ((layer.to_tensor() - scale * kernel).square().sum() / (scale * kernel).square().sum()).backward()
        optimizer.step()
    return layer.to_tensor().detach() / scale


def table(results: Sequence[Mapping]) -> str:
    """Return a block per network, a line per rank and method."""
    lines = []
    for name in dict.fromkeys(result["network"] for result in results):
        of_network = [result for result in results if result["network"] == name]
        first = of_network[0]
        lines.append(
            f"{name}: kernel {' x '.join(map(str, first['shape']))}, {first['dense parameters']:,} parameters, "
            f"loss {first['dense loss']:.4f}"
        )
        lines.append(f"with a sliding window no rank goes below an error of {first['beyond sliding']:.3f}")
        lines.append(
            f"{'rank':<6}{'method':<26}{'parameters':>12}{'of dense':>10}{'error':>9}{'loss':>8}{'seconds':>9}"
        )
        for result in of_network:
            lines.append(
                f"{result['rank']:<6}{result['method']:<26}{result['parameters']:>12,}"
                f"{result['parameters'] / result['dense parameters']:>10.1%}{result['error']:>9.3f}"
                f"{result['loss']:>8.2f}{result['seconds']:>9.1f}"
            )
        lines.append("")
    return "\n".join(lines[:-1])


def plot(results: Sequence[Mapping]) -> Any:
    """Return a figure of error against parameters, one panel per network."""
    import matplotlib.pyplot as plt

    networks = list(dict.fromkeys(result["network"] for result in results))
    figure, axes = plt.subplots(2, len(networks), figsize=(5 * len(networks), 7), layout="constrained", squeeze=False)
    for column, name in zip(axes.T, networks, strict=True):
        of_network = [result for result in results if result["network"] == name]
        for axis, key, label in zip(column, ("error", "loss"), ("error of the kernel", "loss, relative"), strict=True):
            for method in dict.fromkeys(result["method"] for result in of_network):
                points = [(r["parameters"], r[key]) for r in of_network if r["method"] == method]
                axis.plot(*zip(*points, strict=True), "o-" if method.startswith("Conv-TT") else "s--", label=method)
            axis.set(xscale="log", xlabel="parameters", ylabel=label, title=name)
            axis.set_yscale("log" if key == "error" else "linear")
            axis.grid(alpha=0.3, which="both")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure
