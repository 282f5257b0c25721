"""The dense kernel of a Conv-TT, by the definition and nothing else: index loops over NumPy arrays."""

import itertools

import numpy as np


def full_convolution(left, right):
    """[A, B, *k] and [B, C, *l] to [A, C, *(k + l - 1)]: entries meet where their positions add up."""
    size = tuple(k + l - 1 for k, l in zip(left.shape[2:], right.shape[2:], strict=True))
    out = np.zeros((left.shape[0], right.shape[1], *size))
    for s in itertools.product(*map(range, left.shape[2:])):
        for t in itertools.product(*map(range, right.shape[2:])):
            position = tuple(a + b for a, b in zip(s, t, strict=True))
            out[(slice(None), slice(None), *position)] += left[(..., *s)] @ right[(..., *t)]
    return out


def conv_tt_dense(projections, cores, window="sliding"):
    """Dense kernel [O, I, N, *K]: each level sends its window through its core and all later ones."""
    order, lags = len(cores), projections[0].shape[2]
    steps = lags if window == "fixed" else lags + order - 1
    kernels = {}
    for level in range(order):
        for lag in range(lags):
            kernel = projections[level][:, :, lag]
            for core in cores[level:]:
                kernel = full_convolution(core, kernel)
            frame = lag if window == "fixed" else level + lag
            kernels.setdefault(frame, []).append(kernel)
    size = np.max([k.shape[2:] for ks in kernels.values() for k in ks], axis=0)
    dense = np.zeros((cores[-1].shape[0], projections[0].shape[1], steps, *size))
    for frame, parts in kernels.items():
        for part in parts:
            centre = tuple(slice((n - k) // 2, (n + k) // 2) for n, k in zip(size, part.shape[2:], strict=True))
            dense[(slice(None), slice(None), frame, *centre)] += part
    return dense
