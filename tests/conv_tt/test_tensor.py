import copy
import io
import pickle

import numpy as np
import pytest
import torch

from tests.oracle.conv_tt_dense import conv_tt_dense
from tt_conv import ConvTTTensor


def random_factors(order, lags, kernel_sizes, rank, inputs=3, outputs=4, seed=0, dtype=torch.float64):
    """Projections and cores; kernel_sizes holds one (projection, core) pair for each level."""
    generator = torch.Generator().manual_seed(seed)
    ranks = [*rank, outputs]

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    projections = [normal(ranks[m], inputs, lags, *kernel_sizes[m][0]) for m in range(order)]
    cores = [normal(ranks[m + 1], ranks[m], *kernel_sizes[m][1]) for m in range(order)]
    return projections, cores


def causal_output(kernel, frames):
    """Apply a dense kernel [O, I, N, *K] to frames [I, N, *S], extended by zeros, with PyTorch."""
    dim = kernel.ndim - 3
    convolve = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[dim]
    padding = tuple(k // 2 for k in kernel.shape[3:])
    return sum(convolve(frames[None, :, j], kernel[:, :, j], padding=padding) for j in range(kernel.shape[2]))


CASES = [
    # order, lags, dim, kernel sizes of (projection, core) by level, rank
    (1, 1, 1, [(3, 3)], (2,)),
    (1, 3, 2, [(3, 5)], (2,)),
    (2, 1, 1, [(3, 3), (3, 3)], (2, 3)),
    (2, 2, 2, [(3, 3), (3, 3)], (5, 2)),
    (3, 2, 1, [(1, 3), (5, 1), (3, 7)], (2, 3, 4)),
    (3, 1, 2, [(3, 3), (3, 3), (3, 3)], (2, 2, 2)),
    (2, 2, 3, [(3, 1), (1, 3)], (2, 3)),
]


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize(("order", "lags", "dim", "sizes", "rank"), CASES)
def test_dense_kernel_equals_naive_evaluation(order, lags, dim, sizes, rank, window):
    kernel_sizes = [((p,) * dim, (g,) * dim) for p, g in sizes]
    projections, cores = random_factors(order, lags, kernel_sizes, rank)
    tensor = ConvTTTensor(projections, cores, window=window)
    expected = conv_tt_dense([p.numpy() for p in projections], [g.numpy() for g in cores], window)
    assert tensor.shape == expected.shape
    np.testing.assert_allclose(tensor.to_tensor().numpy(), expected, atol=1e-12)


def test_kernel_sizes_may_differ_between_axes():
    sizes = [((3, 1), (1, 5)), ((1, 3), (3, 3))]
    projections, cores = random_factors(2, 1, sizes, (2, 3))
    tensor = ConvTTTensor(projections, cores)
    expected = conv_tt_dense([p.numpy() for p in projections], [g.numpy() for g in cores])
    assert tensor.shape == (4, 3, 2, 5, 7)
    np.testing.assert_allclose(tensor.to_tensor().numpy(), expected, atol=1e-12)


def test_a_level_that_is_wider_than_the_oldest_sets_the_support():
    projections, cores = random_factors(2, 1, [((1,), (1,)), ((5,), (3,))], (2, 2))
    tensor = ConvTTTensor(projections, cores)
    assert tensor.shape == (4, 3, 2, 7)
    expected = conv_tt_dense([p.numpy() for p in projections], [g.numpy() for g in cores])
    np.testing.assert_allclose(tensor.to_tensor().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_dense_kernel_acts_like_the_train_of_pytorch_convolutions(window):
    """The recursion u, v, y on zero-extended frames, by PyTorch's convolutions, is one dense convolution."""
    projections, cores = random_factors(3, 2, [((3, 3), (3, 3))] * 3, (2, 3, 2))
    tensor = ConvTTTensor(projections, cores, window=window)
    steps = 4 if window == "sliding" else 2
    frames = torch.randn(3, steps, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    margin = 4
    wide = torch.nn.functional.pad(frames, [margin] * 4)
    value = 0
    for level, (projection, core) in enumerate(zip(projections, cores, strict=True)):
        seen = wide[:, level : level + 2] if window == "sliding" else wide
        update = sum(torch.nn.functional.conv2d(seen[None, :, j], projection[:, :, j], padding=1) for j in range(2))
        value = torch.nn.functional.conv2d(value + update, core, padding=1)
    expected = value[..., margin:-margin, margin:-margin]
    torch.testing.assert_close(causal_output(tensor.to_tensor(), frames), expected)


def test_attributes():
    projections, cores = random_factors(2, 3, [((3, 3), (3, 3))] * 2, (2, 5))
    tensor = ConvTTTensor(projections, cores)
    assert (tensor.order, tensor.lags, tensor.steps, tensor.dim, tensor.ndim) == (2, 3, 4, 2, 5)
    assert tensor.rank == (2, 5)
    assert tensor.window == "sliding"
    assert tensor.shape == (4, 3, 4, 7, 7)
    # 2*3*3*9 + 5*3*3*9 and 5*2*9 + 4*5*9, by hand.
    assert tensor.n_parameters == 162 + 405 + 90 + 180
    assert tensor.relative_error is None
    assert "shape=(4, 3, 4, 7, 7), rank=(2, 5)" in repr(tensor)


def test_unpacks_like_a_tensorly_factorized_tensor():
    projections, cores = random_factors(2, 1, [((3,), (3,))] * 2, (2, 2))
    tensor = ConvTTTensor(projections, cores)
    first, second = tensor
    assert first is tensor.projections
    assert second is tensor.cores
    assert len(tensor) == 2
    assert tensor[0] is tensor.projections
    assert tensor[1] is tensor.cores


def test_unfolding_vector_and_norm_are_those_of_the_dense_kernel():
    projections, cores = random_factors(2, 1, [((3,), (3,))] * 2, (2, 2))
    tensor = ConvTTTensor(projections, cores)
    dense = conv_tt_dense([p.numpy() for p in projections], [g.numpy() for g in cores])
    np.testing.assert_allclose(tensor.to_unfolded(1).numpy(), np.moveaxis(dense, 1, 0).reshape(3, -1), atol=1e-12)
    np.testing.assert_allclose(tensor.to_vec().numpy(), dense.reshape(-1), atol=1e-12)
    assert float(tensor.norm()) == pytest.approx(np.linalg.norm(dense))


def test_gradients_reach_every_factor():
    projections, cores = random_factors(2, 2, [((3,), (3,))] * 2, (2, 1), inputs=1, outputs=2)
    factors = [f.requires_grad_() for f in [*projections, *cores]]
    assert torch.autograd.gradcheck(lambda *f: ConvTTTensor(f[:2], f[2:]).to_tensor(), factors)
    assert not ConvTTTensor(projections, cores).detach().to_tensor().requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_other_dtypes(dtype, tolerance):
    projections, cores = random_factors(2, 1, [((3, 3), (3, 3))] * 2, (2, 2))
    tensor = ConvTTTensor(projections, cores, relative_error=0.25).to(dtype)
    assert tensor.dtype == dtype
    assert tensor.relative_error == 0.25
    dense = tensor.to_tensor()
    assert dense.dtype == dtype
    exact = torch.from_numpy(conv_tt_dense([p.numpy() for p in projections], [g.numpy() for g in cores]))
    assert (dense.double() - exact).norm() < tolerance * exact.norm()


def test_to_moves_every_factor():
    projections, cores = random_factors(2, 1, [((3,), (3,))] * 2, (2, 2))
    moved = ConvTTTensor(projections, cores, window="fixed").to(device="meta")
    assert moved.device.type == "meta"
    assert moved.window == "fixed"
    assert all(f.device.type == "meta" for f in [*moved.projections, *moved.cores])
    assert moved.to_tensor().shape == (4, 3, 1, 7)


def test_clone_shares_no_memory():
    projections, cores = random_factors(1, 1, [((3,), (3,))], (2,))
    tensor = ConvTTTensor(projections, cores)
    other = tensor.clone()
    other.cores[0].zero_()
    assert tensor.cores[0].abs().sum() > 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_pickles_and_copies(duplicate):
    projections, cores = random_factors(2, 2, [((3,), (3,))] * 2, (2, 3))
    tensor = ConvTTTensor(projections, cores, window="fixed", relative_error=1e-3)
    other = duplicate(tensor)
    assert (other.window, other.relative_error, other.shape) == ("fixed", 1e-3, tensor.shape)
    torch.testing.assert_close(other.to_tensor(), tensor.to_tensor(), rtol=0, atol=0)


def saved(tensor, **changes):
    file = io.BytesIO()
    vars(tensor).update(changes)
    torch.save(tensor, file)
    file.seek(0)
    return file


def test_loads_where_only_weights_are_trusted():
    tensor = ConvTTTensor(*random_factors(2, 2, [((3,), (3,))] * 2, (2, 3)), window="fixed", relative_error=1e-3)
    other = torch.load(saved(tensor), weights_only=True)
    assert (other.window, other.relative_error, other.shape) == ("fixed", 1e-3, tensor.shape)
    torch.testing.assert_close(other.to_tensor(), tensor.to_tensor(), rtol=0, atol=0)


def test_what_a_file_holds_is_checked():
    tensor = ConvTTTensor(*random_factors(1, 1, [((3,), (3,))], (2,)))
    with pytest.raises(ValueError, match="got 0 and 1"):
        torch.load(saved(tensor, cores=[]), weights_only=True)


def with_factor(kind, index, factor):
    projections, cores = random_factors(2, 1, [((3,), (3,))] * 2, (2, 3))
    {"projection": projections, "core": cores}[kind][index] = factor
    return projections, cores


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        (([], []), ValueError, "M >= 1 cores .* got 0 and 0"),
        (([torch.zeros(2, 1, 1, 3)], []), ValueError, "got 0 and 1"),
        (
            with_factor("core", 1, np.zeros((4, 3, 3))),
            TypeError,
            r"cores\[1\] must be a torch.Tensor, got ndarray",
        ),
        (
            with_factor("core", 0, torch.zeros(3, 2, 3, dtype=torch.int64)),
            TypeError,
            "floating-point, got torch.int64",
        ),
        (with_factor("core", 1, torch.zeros(4, 3, 3)), TypeError, "share one dtype"),
        (with_factor("core", 0, torch.zeros(3, 2, 3, 3).double()), ValueError, "must have 5 axes"),
        (with_factor("core", 0, torch.zeros(3, 2).double()), ValueError, "1 to 3 kernel axes"),
        (with_factor("core", 1, torch.zeros(4, 3, 4).double()), ValueError, r"must be odd.*cores\[1\]"),
        (with_factor("core", 1, torch.zeros(0, 3, 3).double()), ValueError, "empty"),
        (
            with_factor("core", 1, torch.zeros(4, 5, 3).double()),
            ValueError,
            r"cores\[0\] gives rank 3.*cores\[1\] takes rank 5",
        ),
        (
            with_factor("core", 0, torch.zeros(4, 2, 3).double()),
            ValueError,
            r"cores\[0\] gives rank 4.*cores\[1\] takes rank 3",
        ),
        (
            with_factor("projection", 1, torch.zeros(3, 2, 1, 3).double()),
            ValueError,
            "same number of channels",
        ),
        (
            with_factor("projection", 1, torch.zeros(3, 3, 2, 3).double()),
            ValueError,
            "same number of channels",
        ),
    ],
)
def test_bad_factors_are_refused(factors, error, message):
    with pytest.raises(error, match=message):
        ConvTTTensor(*factors)


def test_unknown_window_is_refused():
    with pytest.raises(ValueError, match="'sliding' or 'fixed', got 'rolling'"):
        ConvTTTensor(*random_factors(1, 1, [((3,), (3,))], (2,)), window="rolling")
