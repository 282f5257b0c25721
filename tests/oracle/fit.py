"""A Conv-TT fitted by scipy to a dense kernel, all entries at once, gradients by autograd: slow and independent."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F


def dense(projections: list[Tensor], cores: list[Tensor], window: str) -> Tensor:
    """Return ``[O, I, N, *K]`` by convolving unit impulses, one frame after the other."""
    convolve = {1: F.conv1d, 2: F.conv2d}[projections[0].ndim - 3]
    order, (inputs, lags, size, *_) = len(cores), projections[0].shape[1:]
    steps = lags if window == "fixed" else lags + order - 1
    reach = (order + 1) * (size // 2)
    extent = [2 * reach + 1] * (projections[0].ndim - 3)
    frames = []
    for frame in range(steps):
        impulse = projections[0].new_zeros(inputs, inputs, *extent)
        for channel in range(inputs):
            impulse[(channel, channel, *(reach,) * len(extent))] = 1.0
        value = None
        for level, (projection, core) in enumerate(zip(projections, cores, strict=True)):
            lag = frame if window == "fixed" else frame - level
            if 0 <= lag < lags:
                seen = convolve(impulse, projection[:, :, lag], padding=size // 2)
                value = seen if value is None else value + seen
            value = None if value is None else convolve(value, core, padding=size // 2)
        # An impulse answers with the kernel turned round.
        frames.append(value.transpose(0, 1).flip(tuple(range(2, 2 + len(extent)))))
    return torch.stack(frames, 2)


def penalized_fit(kernel: Tensor, rank: int, order: int, window: str, *, seed: int, size: int = 3) -> float:
    """Return the relative error that L-BFGS reaches with a penalty on all factors that falls to next to nothing."""
    outputs, inputs, steps, *extent = kernel.shape
    lags = steps if window == "fixed" else steps - order + 1
    taps = (size,) * len(extent)
    shapes = [(rank, inputs, lags, *taps)] * order + [(rank, rank, *taps)] * (order - 1) + [(outputs, rank, *taps)]
    counts = [int(np.prod(shape)) for shape in shapes]
    target = kernel / kernel.norm()

    def parts(x: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        flat = torch.from_numpy(x).requires_grad_()
        return flat, [p.view(shape) for p, shape in zip(flat.split(counts), shapes, strict=True)]

    def error(factors: list[Tensor]) -> Tensor:
        return (dense(factors[:order], factors[order:], window) - target).square().sum()

    x = np.random.default_rng(seed).standard_normal(sum(counts)) / np.sqrt(np.mean(counts))
    for penalty in (1e-3, 1e-4, 1e-5):

        def loss(x: np.ndarray, penalty: float = penalty) -> tuple[float, np.ndarray]:
            flat, factors = parts(x)
            value = error(factors) + penalty * flat.square().sum()
            (gradient,) = torch.autograd.grad(value, flat)
            return float(value.detach()), gradient.numpy()

        x = minimize(loss, x, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return float(error(parts(x)[1]).detach().sqrt())
