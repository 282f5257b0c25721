import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorly
import torch

from tests.oracle.conv_tt_dense import conv_tt_dense, full_convolution
from tt_conv import ConvTTTensor, conv_tt
from tt_conv.conv_tt.fit import PoorFitWarning, input_second_moment
from tt_conv.conv_tt.fit.fourier import FourierGrid
from tt_conv.conv_tt.fit.matrix_free import Factors, Linearisation
from tt_conv.conv_tt.fit.rank_choice import smallest_rank
from tt_conv.conv_tt.fit.subspace import from_the_sides
from tt_conv.conv_tt.fit.train import Target, Train


def planted(seed, *, order, lags=1, dim=1, rank=3, outputs=8, inputs=4, kernel_size=3, window="sliding"):
    """A dense kernel (NumPy) of standard-normal factors, by the naive evaluation."""
    generator = np.random.default_rng(seed)
    ranks = [*([rank] * order if isinstance(rank, int) else rank), outputs]
    taps = (kernel_size,) * dim if isinstance(kernel_size, int) else kernel_size
    frames = lags if window == "sliding" else lags + order - 1
    projections = [generator.standard_normal((r, inputs, frames, *taps)) for r in ranks[:-1]]
    cores = [generator.standard_normal((ranks[m + 1], ranks[m], *taps)) for m in range(order)]
    return conv_tt_dense(projections, cores, window)


def true_error(tensor, kernel):
    """Relative error of a decomposition, by the naive evaluation."""
    dense = conv_tt_dense(
        [p.double().numpy() for p in tensor.projections],
        [g.double().numpy() for g in tensor.cores],
        tensor.window,
    )
    return np.linalg.norm(dense - kernel) / np.linalg.norm(kernel)


def with_noise(kernel, share, seed=0):
    """The kernel with Gaussian noise of a share of its norm, and the noise's share of the sum."""
    noise = np.random.default_rng(1000 + seed).standard_normal(kernel.shape)
    noise *= share * np.linalg.norm(kernel) / np.linalg.norm(noise)
    return kernel + noise, np.linalg.norm(noise) / np.linalg.norm(kernel + noise)


@pytest.fixture(autouse=True)
def _one_thread():
    """These problems are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


RECOVERY = [
    {"order": 1, "lags": 1, "dim": 1},
    {"order": 1, "lags": 2, "dim": 2},
    {"order": 2, "lags": 1, "dim": 1},
    {"order": 2, "lags": 2, "dim": 1},
    {"order": 2, "lags": 1, "dim": 2},
    {"order": 2, "lags": 2, "dim": 2},
    {"order": 3, "lags": 1, "dim": 1},
    {"order": 3, "lags": 1, "dim": 2},
    {"order": 2, "lags": 1, "dim": 3, "outputs": 5, "inputs": 3, "rank": 2},
    # Ranks above the inputs, equal to the outputs, above both, and different at each level.
    {"order": 2, "lags": 1, "dim": 1, "outputs": 8, "inputs": 1},
    {"order": 2, "lags": 1, "dim": 1, "outputs": 3, "inputs": 4},
    {"order": 2, "lags": 1, "dim": 1, "outputs": 1, "inputs": 2},
    {"order": 2, "lags": 2, "dim": 2, "rank": (2, 4)},
    {"order": 2, "lags": 1, "dim": 1, "window": "fixed"},
    {"order": 2, "lags": 1, "dim": 2, "window": "fixed", "rank": 2},
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", RECOVERY, ids=str)
def test_planted_kernels_are_recovered(case, seed):
    kernel = planted(seed, **case)
    tensor, errors = conv_tt(
        torch.from_numpy(kernel),
        case.get("rank", 3),
        order=case["order"],
        kernel_size=3,
        window=case.get("window", "sliding"),
        return_errors=True,
    )
    assert true_error(tensor, kernel) <= 1e-6
    assert tensor.relative_error <= 1e-6
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors))


def test_kernel_sizes_may_differ_between_axes():
    kernel = planted(0, order=2, dim=2, kernel_size=(1, 5))
    tensor = conv_tt(torch.from_numpy(kernel), 3, order=2, kernel_size=(1, 5))
    assert tensor.cores[0].shape == (3, 3, 1, 5)
    assert true_error(tensor, kernel) <= 1e-6


@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_kernel_sizes_may_differ_between_levels(window):
    generator = np.random.default_rng(0)
    sizes = [3, 5]
    frames = {"sliding": 1, "fixed": 2}[window]
    projections = [generator.standard_normal((2, 4, frames, k)) for k in sizes]
    cores = [generator.standard_normal((2, 2, 3)), generator.standard_normal((6, 2, 5))]
    kernel = conv_tt_dense(projections, cores, window)
    tensor = conv_tt(torch.from_numpy(kernel), 2, order=2, kernel_size=((3,), (5,)), window=window)
    assert [tuple(g.shape[2:]) for g in tensor.cores] == [(3,), (5,)]
    assert true_error(tensor, kernel) <= 1e-6


@pytest.mark.parametrize("case", [{"order": 2, "dim": 1}, {"order": 1, "lags": 2, "dim": 2, "rank": 2}], ids=str)
def test_noisy_kernels_are_fitted_to_the_noise(case):
    kernel, floor = with_noise(planted(0, **case), 0.01)
    tensor, errors = conv_tt(
        torch.from_numpy(kernel), case.get("rank", 3), order=case["order"], kernel_size=3, return_errors=True
    )
    # The fit takes up a part of the noise, so it ends below the floor.
    assert true_error(tensor, kernel) <= 1.001 * floor
    assert errors[-1] == tensor.relative_error == pytest.approx(true_error(tensor, kernel))
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_large_kernels_are_searched_in_a_sketch_and_refined_without_a_matrix(share):
    exact = planted(0, order=2, dim=2, outputs=64, inputs=16, rank=4)
    kernel, floor = with_noise(exact, share)
    tensor, errors = conv_tt(torch.from_numpy(kernel), 4, order=2, kernel_size=3, return_errors=True)
    assert true_error(tensor, kernel) <= (1.001 * floor if share else 1e-6)
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors))


def test_results_depend_on_the_arguments_only():
    # A rank above both numbers of channels needs random starts.
    kernel = torch.from_numpy(planted(0, order=2, outputs=2, inputs=2))
    state = torch.get_rng_state()
    first = conv_tt(kernel, 3, order=2, kernel_size=3, random_state=7)
    torch.manual_seed(12345)
    second = conv_tt(kernel, 3, order=2, kernel_size=3, random_state=7)
    torch.set_rng_state(state)
    third = conv_tt(kernel, 3, order=2, kernel_size=3, random_state=7)
    assert torch.equal(torch.get_rng_state(), state)
    for other in (second, third):
        for a, b in zip([*first.projections, *first.cores], [*other.projections, *other.cores], strict=True):
            # Not bit by bit: rounding depends on where in memory the tensors lie.
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_random_kernels_warn():
    kernel = torch.randn(6, 4, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.warns(PoorFitWarning, match="rank .* has a relative error of 0"):
        tensor = conv_tt(kernel, 1, order=2, kernel_size=3)
    assert 0.5 < tensor.relative_error < 1


def test_taps_that_no_level_reaches_are_named():
    kernel = planted(0, order=2, window="fixed", outputs=6, inputs=4, rank=2)
    beyond = np.linalg.norm(kernel[:, :, 1, [0, -1]]) / np.linalg.norm(kernel)
    expected = rf"no rank goes below {beyond:.3g}, since frame 2 of 2 reaches 5 taps of 7 only: .*window='fixed'"
    with pytest.warns(PoorFitWarning, match=expected):
        tensor = conv_tt(kernel, 0.5, order=2, kernel_size=3, tol=beyond / 2)
    assert tensor.relative_error > beyond
    assert conv_tt(kernel, 2, order=2, kernel_size=3, window="fixed").relative_error < 1e-6


def test_a_smaller_support_sits_in_the_middle():
    kernel = planted(0, order=1, kernel_size=1)
    assert kernel.shape[3:] == (1,)
    tensor = conv_tt(torch.from_numpy(kernel), 3, order=1, kernel_size=3)
    assert tensor.shape == (8, 4, 1, 5)
    assert true_error(tensor, np.pad(kernel, [(0, 0)] * 3 + [(2, 2)])) <= 1e-6


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e150])
def test_any_scale(scale):
    kernel = scale * torch.from_numpy(planted(0, order=2))
    tensor = conv_tt(kernel, 3, order=2, kernel_size=3)
    assert tensor.relative_error <= 1e-6
    assert torch.all((tensor.to_tensor() - kernel).abs() <= 1e-6 * kernel.abs().max())


def test_factors_are_of_one_size():
    kernel = torch.from_numpy(planted(0, order=3))
    tensor = conv_tt(kernel, 3, order=3, kernel_size=3)
    sizes = [float(f.square().mean().sqrt()) for f in [*tensor.projections, *tensor.cores]]
    assert max(sizes) < 5 * min(sizes)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 3e-3), (torch.bfloat16, 3e-2)])
def test_other_dtypes(dtype, tolerance):
    kernel = torch.from_numpy(planted(0, order=2)).to(dtype)
    tensor = conv_tt(kernel, 3, order=2, kernel_size=3)
    assert tensor.dtype == dtype
    assert tensor.relative_error <= tolerance
    assert true_error(tensor, kernel.double().numpy()) <= tolerance


def test_parameters_and_arrays_are_taken():
    kernel = planted(0, order=2)
    for given in (torch.nn.Parameter(torch.from_numpy(kernel)), kernel, np.asfortranarray(kernel)):
        tensor = conv_tt(given, 3, order=2, kernel_size=3)
        assert isinstance(tensor.cores[0], torch.Tensor)
        assert not tensor.cores[0].requires_grad
        assert true_error(tensor, kernel) <= 1e-6


def test_a_train_is_taken_and_found_again():
    generator = torch.Generator().manual_seed(0)
    projections = [torch.randn(2, 3, 1, 3, generator=generator) for _ in range(2)]
    cores = [torch.randn(2, 2, 3, generator=generator), torch.randn(5, 2, 3, generator=generator)]
    tensor = conv_tt(ConvTTTensor(projections, cores), 2, order=2, kernel_size=3)
    assert tensor.relative_error <= 1e-6


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_factorized_tensors_of_tensorly_are_taken(backend):
    """A CP kernel of rank 1 is a Conv-TT of rank 1 if its spatial factor is as wide as one core."""
    with tensorly.backend_context(backend):
        shapes = [(6, 1), (4, 1), (1, 1), (3, 1)]
        factors = [tensorly.tensor(np.random.default_rng(n).standard_normal(s)) for n, s in enumerate(shapes)]
        cp = tensorly.cp_tensor.CPTensor((None, factors))
    before = tensorly.get_backend()
    tensor = conv_tt(cp, 1, order=1, kernel_size=3)
    assert tensorly.get_backend() == before
    assert tensor.relative_error <= 1e-6


def test_factorized_tensors_of_tensorly_torch_are_taken():
    before = tensorly.get_backend()
    import tltorch

    tensorly.set_backend(before)
    cp = tltorch.FactorizedTensor.new((6, 4, 1, 3), rank=1, factorization="CP").normal_()
    tensor = conv_tt(cp, 1, order=1, kernel_size=3)
    assert tensorly.get_backend() == before
    assert tensor.relative_error <= 1e-6


def test_importing_leaves_the_backend_of_tensorly_alone():
    code = (
        "import os, tensorly, torch; import tt_conv; "
        "tt_conv.conv_tt(torch.ones(2, 1, 1, 3), 1, order=1, kernel_size=3); "
        "assert tensorly.get_backend() == os.environ.get('TENSORLY_BACKEND', 'numpy')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestRank:
    @pytest.mark.filterwarnings("ignore::tt_conv.conv_tt.fit.PoorFitWarning")
    def test_a_budget_is_kept_and_used(self):
        kernel = torch.from_numpy(planted(0, order=2, outputs=8, inputs=6, rank=2))
        # Dense: 8*6*2*7 = 672. Ranks a, b: 6*3*a + 3*a*b + 6*3*b + 8*3*b parameters, by hand.
        for budget, rank, parameters in [
            (0.1, (1, 1), 63),
            (0.2, (2, 2), 132),
            (0.3, (3, 2), 156),
            (0.31, (3, 3), 207),
        ]:
            tensor = conv_tt(kernel, budget, order=2, kernel_size=3)
            assert tensor.rank == rank
            assert tensor.n_parameters == parameters <= budget * kernel.numel()

    def test_ranks_that_add_nothing_are_lowered(self):
        # One level: R rows of P [R, 2 * 3] and columns of G [8 * 3, R] cannot be independent beyond 6.
        kernel = planted(0, order=1, inputs=2)
        tensor = conv_tt(torch.from_numpy(kernel), 10**6, order=1, kernel_size=3)
        assert tensor.rank == (6,)
        assert true_error(tensor, kernel) <= 1e-6
        # Two levels: the first is fed by 4 * 3 entries, the second by those of the first as well, up to 4 * 3 + 12 * 3,
        # of which the last core tells 6 * 3 apart.
        kernel = planted(0, order=2, outputs=6, inputs=4)
        tensor = conv_tt(torch.from_numpy(kernel), [10**6, 10**6], order=2, kernel_size=3)
        assert tensor.rank == (12, 18)
        assert true_error(tensor, kernel) <= 1e-6

    @pytest.mark.filterwarnings("ignore::tt_conv.conv_tt.fit.PoorFitWarning")
    def test_one_rank_for_each_level(self):
        kernel = torch.from_numpy(planted(0, order=2, rank=(2, 3)))
        for rank in [(2, 3), [2, 3], (np.int64(2), 3)]:
            assert conv_tt(kernel, rank, order=2, kernel_size=3).rank == (2, 3)

    @pytest.mark.parametrize("rank", [(2, 2), (1, 3)])
    def test_the_smallest_rank_that_reaches_a_tolerance(self, rank):
        kernel = planted(0, order=2, rank=rank, outputs=6, inputs=5)
        tensor = conv_tt(torch.from_numpy(kernel), tol=1e-6, order=2, kernel_size=3)
        assert tensor.rank == rank
        assert true_error(tensor, kernel) <= 1e-6

    def test_a_loose_tolerance_takes_a_smaller_rank(self):
        kernel = planted(0, order=1, rank=4, outputs=8, inputs=6)
        tensor = conv_tt(torch.from_numpy(kernel), tol=0.3, order=1, kernel_size=3)
        assert tensor.rank == (3,)
        assert true_error(tensor, kernel) <= 0.3
        assert conv_tt(torch.from_numpy(kernel), 2, order=1, kernel_size=3).relative_error > 0.3

    def test_a_tolerance_out_of_reach_warns_and_gives_the_largest_rank(self):
        kernel = torch.from_numpy(planted(0, order=2, rank=3, outputs=6, inputs=5))
        with pytest.warns(PoorFitWarning, match="more than tol"):
            tensor = conv_tt(kernel, 2, tol=1e-6, order=2, kernel_size=3)
        assert tensor.rank == (2, 2)

    @pytest.mark.parametrize("needed", [(1, 1, 1), (3, 3, 3), (2, 5, 1), (8, 1, 7)])
    def test_the_search_finds_what_is_needed_at_each_level(self, needed):
        def reaches(rank):
            return all(r >= n for r, n in zip(rank, needed, strict=True))

        assert smallest_rank(reaches, (8, 9, 7)) == needed
        assert smallest_rank(lambda rank: False, (8, 9, 7)) == (8, 9, 7)

    def test_errors_come_with_a_tolerance_too(self):
        kernel = torch.from_numpy(planted(0, order=1, rank=1))
        tensor, errors = conv_tt(kernel, tol=1e-6, order=1, kernel_size=3, return_errors=True)
        assert errors[-1] == tensor.relative_error


class TestSecondMoment:
    def data(self, seed=0):
        """Two clips [2, 12, 4, 40] whose channels are correlated, of different sizes, and smooth in space."""
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.tensor([[5.0, 0, 0, 0], [4, 0.5, 0, 0], [1, 1, 0.3, 0], [0, 0, 0.1, 0.1]], dtype=torch.float64)
        white = torch.randn(2, 12, 4, 42, generator=generator, dtype=torch.float64)
        return torch.einsum("ij,btjs->btis", mixing, white.unfold(-1, 3, 1).mean(-1))

    def kernel(self):
        return torch.randn(6, 4, 2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def output(self, kernel, sequence):
        """Outputs of a dense kernel [O, I, 2, K] on all pairs of frames, by PyTorch's convolution."""
        padded = [sequence[:, :-1], sequence[:, 1:]]
        return sum(
            torch.nn.functional.conv1d(frames.flatten(0, 1), kernel[:, :, n], padding=3)
            for n, frames in enumerate(padded)
        )

    def output_error(self, tensor, kernel, sequence):
        wanted = self.output(kernel, sequence)
        return float((self.output(tensor.to_tensor(), sequence) - wanted).norm() / wanted.norm())

    def test_of_channels_is_the_mean_product(self):
        sequence = self.data()
        moment = input_second_moment(sequence)
        samples = sequence.permute(2, 0, 1, 3).reshape(4, -1).numpy()
        np.testing.assert_allclose(moment.numpy(), samples @ samples.T / samples.shape[1])

    @pytest.mark.parametrize("dim", [1, 2])
    def test_of_patches_predicts_the_size_of_the_output(self, dim):
        generator = torch.Generator().manual_seed(0)
        sequence = torch.randn(2, 3, 2, *(6, 5)[:dim], generator=generator)
        size = (3, 5)[:dim]
        kernel = torch.randn(4, 2, 2, *size, generator=generator, dtype=torch.float64)
        convolve = [torch.nn.functional.conv1d, torch.nn.functional.conv2d][dim - 1]
        padding = tuple(k // 2 for k in size)
        output = sum(
            convolve(sequence[:, n : n + 2].double().flatten(0, 1), kernel[:, :, n], padding=padding) for n in range(2)
        )
        moment = input_second_moment(sequence, 2, size)
        flat = kernel.flatten(1)
        predicted = float(torch.einsum("op,pq,oq->", flat, moment, flat))
        assert predicted == pytest.approx(float(output.square().sum(1).mean()))

    @pytest.mark.filterwarnings("ignore::tt_conv.conv_tt.fit.PoorFitWarning")
    @pytest.mark.parametrize("of", ["channels", "patches"])
    def test_lowers_the_error_of_the_output(self, of):
        kernel, sequence = self.kernel(), self.data()
        moment = input_second_moment(sequence, 2, (7,) if of == "patches" else None)
        plain = conv_tt(kernel, 2, order=2, kernel_size=3)
        fitted = conv_tt(kernel, 2, order=2, kernel_size=3, second_moment=moment)
        # Held-out data of the same kind.
        error = self.output_error(fitted, kernel, self.data(seed=5))
        assert error < 0.8 * self.output_error(plain, kernel, self.data(seed=5))
        if of == "patches":
            assert fitted.relative_error == pytest.approx(self.output_error(fitted, kernel, sequence))

    @pytest.mark.filterwarnings("ignore::tt_conv.conv_tt.fit.PoorFitWarning")
    def test_of_patches_does_better_than_of_channels(self):
        kernel, sequence = self.kernel(), self.data()
        errors = []
        for size in (None, (7,)):
            moment = input_second_moment(sequence, 2, size)
            tensor, history = conv_tt(kernel, 2, order=2, kernel_size=3, second_moment=moment, return_errors=True)
            errors.append(self.output_error(tensor, kernel, sequence))
            assert all(later <= earlier for earlier, later in itertools.pairwise(history))
        assert errors[1] < errors[0]

    @pytest.mark.parametrize("size", [None, (7,)])
    def test_planted_kernels_are_still_recovered(self, size):
        kernel = planted(0, order=2)
        moment = input_second_moment(self.data(), 2, size)
        tensor = conv_tt(torch.from_numpy(kernel), 3, order=2, kernel_size=3, second_moment=moment)
        assert true_error(tensor, kernel) <= 1e-6

    def test_channels_that_are_always_zero_are_no_problem(self):
        sequence = self.data()
        sequence[:, :, 2] = 0
        tensor = conv_tt(
            torch.from_numpy(planted(0, order=2)),
            3,
            order=2,
            kernel_size=3,
            second_moment=input_second_moment(sequence),
        )
        assert tensor.relative_error <= 1e-6

    @pytest.mark.parametrize(
        ("moment", "error", "message"),
        [
            (np.eye(4), TypeError, "must be a torch.Tensor, got ndarray"),
            (torch.eye(5), ValueError, r"\[I, I\] = \(4, 4\).*so \(56, 56\); got \(5, 5\)"),
            (torch.eye(4).fill_(torch.nan), ValueError, "not finite"),
            (torch.ones(4, 4).triu(), ValueError, "symmetric"),
            (torch.zeros(4, 4), ValueError, "nonzero"),
            (-torch.eye(4), ValueError, "positive semidefinite"),
        ],
    )
    def test_bad_moments_are_refused(self, moment, error, message):
        with pytest.raises(error, match=message):
            conv_tt(self.kernel(), 2, order=2, kernel_size=3, second_moment=moment)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((torch.zeros(3, 4, 5),), r"\[batch, time, channels, \*spatial\]"),
            ((torch.zeros(1, 2, 3, 5), 3, (3,)), "3 steps needs as many frames, got 2"),
            (
                (torch.zeros(1, 2, 3, 5), 1, (3, 3)),
                "must be an int or 1 ints, one per spatial axis",
            ),
            ((torch.zeros(1, 2, 3, 5), 0, (3,)), "steps must be at least 1, got 0"),
            ((torch.zeros(1, 2, 3, 5), 1, (2,)), "kernel_size must be odd"),
            ((torch.zeros(0, 2, 3, 5),), r"sequence is empty: shape \(0, 2, 3, 5\)"),
            ((torch.zeros(1, 2, 3, 5) / 0,), "not finite"),
            ((torch.zeros(1, 2, 3, 5, device="meta"),), "meta device"),
        ],
    )
    def test_bad_sequences_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            input_second_moment(*arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((np.zeros((1, 2, 3, 5)),), "sequence must be a torch.Tensor, got ndarray"),
            ((torch.zeros(1, 2, 3, 5, dtype=torch.long),), "real and floating-point, got torch.int64"),
            ((torch.zeros(1, 2, 3, 5), "1", (3,)), "steps must be an int, got '1'"),
            ((torch.zeros(1, 2, 3, 5), 1, (3.0,)), "kernel_size must be an int, got 3.0"),
        ],
    )
    def test_sequences_of_another_kind_are_refused(self, arguments, message):
        with pytest.raises(TypeError, match=message):
            input_second_moment(*arguments)

    def test_one_kernel_size_serves_all_axes(self):
        frames = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
        assert torch.equal(input_second_moment(frames, 2, 3), input_second_moment(frames, 2, (3, 3)))


DENSE = torch.zeros(4, 3, 2, 7)


@pytest.mark.parametrize(
    ("kernel", "changes", "error", "message"),
    [
        (None, {}, TypeError, "W must be a tensor .* got NoneType"),
        ([[1.0]], {}, TypeError, "W must be a tensor .* got list"),
        (DENSE.long(), {}, TypeError, "floating-point, got torch.int64"),
        (DENSE.to(torch.complex64), {}, TypeError, "real and floating-point"),
        (torch.zeros(4, 3, 7), {}, ValueError, r"1 to 3 spatial axes, got shape \(4, 3, 7\)"),
        (torch.zeros(4, 3, 2, 0), {}, ValueError, "empty"),
        (DENSE.to("meta"), {}, ValueError, "meta device: it has no values"),
        (DENSE.to_sparse(), {}, TypeError, r"W must be strided, got layout torch.sparse_coo; use W.to_dense\(\)"),
        (DENSE.to(torch.float8_e5m2), {}, TypeError, "got torch.float8_e5m2"),
        (DENSE, {"second_moment": torch.eye(3, dtype=torch.complex64)}, TypeError, "second_moment must be real"),
        (DENSE, {"second_moment": torch.eye(3, device="meta")}, ValueError, "second_moment is on the meta device"),
        (DENSE, {"second_moment": torch.eye(3).to_sparse()}, TypeError, r"use second_moment.to_dense\(\)"),
        (DENSE, {"second_moment": 2 * torch.ones(3, 3) - torch.eye(3)}, ValueError, "positive semidefinite"),
        (DENSE / 0, {}, ValueError, "not finite"),
        (torch.zeros(4, 3, 2, 6), {}, ValueError, "odd support"),
        (torch.zeros(4, 3, 2, 9), {}, ValueError, r"support of \(9,\), but .* reach \(7,\)"),
        (DENSE, {"order": 3}, ValueError, "between 1 and the number of frames of W, 2, got 3"),
        (DENSE, {"order": 0}, ValueError, "order must be at least 1"),
        (DENSE, {"order": 1.5}, TypeError, "order must be an int"),
        (DENSE, {"kernel_size": 4}, ValueError, "odd"),
        (DENSE, {"kernel_size": (3, 3)}, ValueError, "one per spatial axis"),
        (DENSE, {"kernel_size": ((3,),)}, ValueError, "one sequence of 1 ints for each of 2 levels"),
        (DENSE, {"kernel_size": "3"}, TypeError, "kernel_size must be an int, got '3'"),
        (DENSE, {"kernel_size": 3.0}, TypeError, "kernel_size must be an int, got 3.0"),
        (DENSE, {"window": "rolling"}, ValueError, "'sliding' or 'fixed'"),
        (DENSE, {"rank": None}, TypeError, "needs a rank"),
        (DENSE, {"rank": 0}, ValueError, "at least 1"),
        (DENSE, {"rank": -2}, ValueError, "at least 1"),
        (DENSE, {"rank": (2, 0)}, ValueError, "at least 1"),
        (DENSE, {"rank": (2, 2, 2)}, ValueError, "an int or 2 ints for conv_tt of shape .* got 3 ints"),
        (DENSE, {"rank": (2, 2.0)}, TypeError, "rank must be an int, got 2.0"),
        (DENSE, {"rank": "full"}, ValueError, "rank must be an int, a sequence of ints, a float parameter budget"),
        (DENSE, {"rank": "vbmf"}, ValueError, "tucker, tt or svd, not conv_tt"),
        (DENSE, {"rank": True}, TypeError, "got True"),
        (DENSE, {"rank": 0.01}, ValueError, "conv_tt of rank 1 needs .* the smallest budget that fits"),
        (DENSE, {"rank": 2.0}, ValueError, "a float rank is a parameter budget"),
        (DENSE, {"rank": float("nan")}, ValueError, "parameter budget"),
        (DENSE, {"rank": float("inf")}, ValueError, "parameter budget"),
        (DENSE, {"tol": 0.0}, ValueError, "between 0 and 1"),
        (DENSE, {"tol": "small"}, TypeError, "tol must be a number"),
        (DENSE, {"random_state": None}, TypeError, "random_state must be an int"),
        (DENSE, {"restarts": 0}, ValueError, "restarts must be at least 1"),
        (DENSE, {"n_iter_max": 0}, ValueError, "n_iter_max must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(kernel, changes, error, message):
    arguments = {"rank": 2, "order": 2, "kernel_size": 3, **changes}
    with pytest.raises(error, match=message):
        conv_tt(kernel, **arguments)


class TestFourier:
    @pytest.mark.parametrize(("sizes", "grid"), [(((3,), (5,)), (7,)), (((3, 1), (1, 3)), (5, 3))])
    def test_products_of_spectra_are_full_convolutions(self, sizes, grid):
        generator = np.random.default_rng(0)
        left = generator.standard_normal((2, 3, *sizes[0]))
        right = generator.standard_normal((3, 4, *sizes[1]))
        expected = full_convolution(left, right)
        fourier = FourierGrid(grid, torch.device("cpu"))

        def spectrum(kernel):
            taps_first = torch.from_numpy(np.moveaxis(kernel.reshape(*kernel.shape[:2], -1), -1, 0).copy())
            return fourier.spectrum(taps_first, kernel.shape[2:])

        torch.testing.assert_close(spectrum(left) @ spectrum(right), spectrum(expected))
        scaled = fourier.scale[:, None, None] * spectrum(expected)
        assert float(scaled.abs().square().sum()) == pytest.approx(np.sum(expected**2))
        back = fourier.adjoint(fourier.scale[:, None, None] * scaled, expected.shape[2:])
        np.testing.assert_allclose(back.permute(1, 2, 0).reshape(expected.shape).numpy(), expected, atol=1e-12)


TRAIN = {
    "outputs": 4,
    "inputs": 3,
    "rank": (2, 3),
    "projection_sizes": ((3,), (3,)),
    "core_sizes": ((3,), (3,)),
}


def random_factors(train, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    projections = [normal(len(f), 3, r, train.inputs) for f, r in zip(train.windows, train.rank, strict=True)]
    return Factors([normal(*train.core_shape(m)) for m in range(train.order)], projections)


def dense_of(factors, window):
    """The naive dense kernel of factors that are stored taps first."""
    return conv_tt_dense(
        [p.permute(2, 3, 0, 1).numpy() for p in factors.projections],
        [g.permute(1, 2, 0).numpy() for g in factors.cores],
        window,
    )


@pytest.mark.parametrize("window", ["sliding", "fixed"])
class TestGaussNewton:
    def target(self, window):
        train = Train(steps=3, window=window, **TRAIN)
        kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 7))
        return Target(train, torch.from_numpy(kernel)), kernel

    def test_products_with_the_jacobian(self, window):
        target, kernel = self.target(window)
        factors, step = random_factors(target.train, 1), random_factors(target.train, 2)
        at = Linearisation(target, factors)
        residual = target.spectrum - at.output()
        assert float(residual.abs().square().sum()) == pytest.approx(np.sum((kernel - dense_of(factors, window)) ** 2))
        size = 1e-6
        ahead, behind = (dense_of(factors.plus(step, s), window) for s in (size, -size))
        change = (ahead - behind) / (2 * size)
        assert float(at.forward(step).abs().square().sum()) == pytest.approx(np.sum(change**2), rel=1e-6)
        slope = np.sum((kernel - dense_of(factors, window)) * change)
        assert step.dot(at.adjoint(residual)) == pytest.approx(slope, rel=1e-6)

    def test_system_of_the_cores(self, window):
        """Against the Jacobian by differences, its part in the range of the projections taken out by SVD."""
        target, kernel = self.target(window)
        train, problem = target.train, target.whole()
        cores = random_factors(train, 1).cores
        fit = problem.fit([core[None] for core in cores])
        matrix, rhs = problem.normal_equations([core[None] for core in cores], fit, [0, 1])

        def columns(make, sizes):
            """Dense kernels that unit factors make, as columns."""
            result = []
            for number, size in enumerate(sizes):
                for entry in range(size):
                    unit = [torch.zeros(s, dtype=torch.float64) for s in sizes]
                    unit[number][entry] = 1
                    result.append(dense_of(make(unit), window).reshape(-1))
            return np.stack(result, 1)

        zero = random_factors(train, 0)
        sizes = [p.numel() for p in zero.projections]
        linear = columns(
            lambda unit: Factors(cores, [u.view_as(p) for u, p in zip(unit, zero.projections, strict=True)]),
            sizes,
        )
        best = np.linalg.lstsq(linear, kernel.reshape(-1), rcond=None)[0]
        residual = kernel.reshape(-1) - linear @ best
        assert float(fit.squared_error) == pytest.approx(np.sum(residual**2))
        parts = torch.from_numpy(best).split(sizes)
        projections = [part.view_as(p) for part, p in zip(parts, zero.projections, strict=True)]
        # The kernel is affine in each core, so unit steps are exact.
        here = dense_of(Factors(cores, projections), window).reshape(-1)
        jacobian = []
        for level in range(2):
            made = columns(
                lambda unit, level=level: Factors(
                    [*cores[:level], cores[level] + unit[0].view_as(cores[level]), *cores[level + 1 :]],
                    projections,
                ),
                [cores[level].numel()],
            )
            jacobian.append(made - here[:, None])
        jacobian = np.concatenate(jacobian, 1)
        vectors, values, _ = np.linalg.svd(linear, full_matrices=False)
        basis = vectors[:, values > 1e-10 * values[0]]
        reduced = jacobian - basis @ (basis.T @ jacobian)
        np.testing.assert_allclose(matrix[0].numpy(), reduced.T @ reduced, atol=1e-8 * float(matrix.abs().max()))
        np.testing.assert_allclose(rhs[0].numpy(), jacobian.T @ residual, atol=1e-8 * float(rhs.abs().max()))


def test_linear_algebra_alone_finds_tall_and_wide_trains():
    kernel = torch.from_numpy(planted(0, order=3, outputs=8, inputs=6))
    train = Train(8, 6, 3, (3, 3, 3), ((3,),) * 3, ((3,),) * 3, "sliding")
    target = Target(train, kernel)
    cores = from_the_sides(target)
    problem = target.whole()
    error = problem.fit([core[None] for core in cores]).squared_error / problem.squared_norm
    assert float(error) < 1e-18


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    kernel = planted(0, order=2, dim=2)
    tensor = conv_tt(torch.from_numpy(kernel).cuda(), 3, order=2, kernel_size=3)
    assert tensor.device.type == "cuda"
    assert true_error(tensor.to("cpu"), kernel) <= 1e-6
