"""Ways to train: truncated backpropagation, activation checkpointing, loss scaling."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.layers.test_cells import CASES, make, oracle, sequences
from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor


@pytest.mark.parametrize("case", CASES, ids=str)
def test_truncated_backpropagation_has_the_gradients_of_the_oracle(case: dict) -> None:
    layer = make(case)
    parameters = list(layer.parameters())
    first, second = sequences(layer, 3).detach(), sequences(layer, 4).detach()
    zero = torch.zeros(2, 3, *first.shape[3:], dtype=torch.float64)
    _, state = layer(first)
    _, expected_state = oracle(layer, first, (zero,) * (layer.cell.steps + 1))
    state, expected_state = ([value.detach() for value in values] for values in (state, expected_state))
    outputs, expected = layer(second, state)[0], oracle(layer, second, expected_state)[0]
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-10)
    weights = torch.randn_like(outputs)
    gradients, expected_gradients = (
        torch.autograd.grad((value * weights).sum(), parameters) for value in (outputs, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_checkpointed_segments_have_the_gradients_of_the_oracle(case: dict) -> None:
    layer = make(case)
    sequence = sequences(layer, 5)
    sources = [sequence, *layer.parameters()]
    zero = torch.zeros(2, 3, *sequence.shape[3:], dtype=torch.float64)
    expected_outputs, _ = oracle(layer, sequence, (zero,) * (layer.cell.steps + 1))
    expected = torch.autograd.grad(expected_outputs.square().sum(), sources)
    state, outputs = None, []
    for segment in sequence.split(2, dim=1):
        output, state = checkpoint(layer, segment, state, use_reentrant=False)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected_outputs, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(torch.cat(outputs, dim=1).square().sum(), sources)
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-8)


def test_checkpointing_needs_less_memory_between_the_passes() -> None:
    layer, sequence = ConvTTLSTM(2, 8, 3, order=2, rank=2), torch.randn(1, 8, 2, 16, 16)

    def saved_by(run: object) -> int:
        sizes: list[int] = []

        def pack(value: torch.Tensor) -> torch.Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            run()
        return sum(sizes)

    checkpointed = saved_by(lambda: checkpoint(layer, sequence, use_reentrant=False))
    assert checkpointed < 0.2 * saved_by(lambda: layer(sequence))


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: ConvLSTM(1, 4, 3),
        lambda: ConvTTLSTM(1, 4, 3, order=2, rank=2),
        lambda: ConvTTLSTM(1, 4, 3, order=2, rank=2, window="fixed", input_rank=2),
    ],
)
def test_loss_scaling_in_fp16_skips_a_step_that_overflowed_and_then_learns(make_layer: object) -> None:
    layer, sequence = make_layer(), torch.rand(2, 4, 1, 8, 8)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    losses, skipped = [], []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            outputs, _ = layer(sequence)
        loss = (outputs.float() - 0.1).square().mean()
        scaler.scale(loss).backward()
        before = [parameter.detach().clone() for parameter in layer.parameters()]
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        skipped.append(scaler.get_scale() < scale)
        unchanged = all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))
        assert unchanged == skipped[-1]
    assert skipped[0]
    assert not skipped[-1]
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in layer.parameters())


def test_a_predictor_has_the_scaled_gradients_of_full_precision() -> None:
    model = FramePredictor(1, (4, 4), (1, 1), kernel_size=3, rank=2, skip_stride=1)
    frames = torch.rand(1, 3, 1, 8, 8)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with torch.autocast("cpu", torch.float16):
        loss = model(frames, 2).float().square().mean()
    scaler.scale(loss).backward()
    exact = torch.autograd.grad(model(frames, 2).square().mean(), list(model.parameters()))
    for parameter, reference in zip(model.parameters(), exact, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad / 1024 - reference).norm() < 0.02 * reference.norm() + 1e-6
