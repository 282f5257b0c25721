"""How much of what a truncated kernel loses the states before the newest one explain: planted shares."""

import pytest
import torch
from torch import Tensor, nn

from tt_conv.applications.compression import past_states
from tt_conv.applications.compression.calibration import Calibration
from tt_conv.applications.compression.past_states import explained_by_past, steps_worth_having
from tt_conv.layers import ConvLSTMCell

HIDDEN = 3


class Planted(nn.Module):
    """A cell that sees the states which it is given."""

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.cell = ConvLSTMCell(2, HIDDEN, 3, dim=dim)

    def forward(self, states: Tensor) -> Tensor:
        frame = torch.zeros_like(states[:, 0, :2])
        for state in states.unbind(1):
            self.cell.conv(torch.cat([frame, state], dim=1))
        return states


def states(shares: list[float], batch: int, frames: int, size: tuple[int, ...], shift: int = 1) -> Tensor:
    """States, zero at first, whose channels 0 and 2 are fresh noise every time.

    Channel 1 is a mean of 3 and, by given shares of its variance, channel 0 of the state before and channel 2 of the
    one before that, one place further on the last axis; the rest is noise.
    """
    generator = torch.Generator().manual_seed(0)
    planted = torch.randn(batch, frames, HIDDEN, *size, generator=generator)
    planted[:, :, 1] *= (1 - sum(shares)) ** 0.5
    for n, (share, channel) in enumerate(zip(shares, (0, 2), strict=False), 1):
        planted[:, n:, 1] += share**0.5 * planted[:, :-n, channel].roll(shift, -1)
    planted[:, :, 1] += 3
    planted[:, 0] = 0
    return planted


def explained(planted: list[Tensor], most: int = 4, dim: int = 2, size: int = 1) -> list[float]:
    """The shares for a kernel that reads channel 1."""
    model = Planted(dim)
    lost = torch.zeros(4 * HIDDEN, HIDDEN, *(size,) * dim)
    lost[(5, 1, *(size // 2,) * dim)] = 2.0
    return explained_by_past(model, {"cell": model.cell}, {"cell": lost}, Calibration(planted), most)


@pytest.mark.parametrize(
    ("size", "batch", "frames"), [((200,), 8, 12), ((14, 15), 8, 10), ((5, 6, 7), 8, 10), ((14, 15), 3, 16)]
)
def test_planted_shares_are_found(size: tuple[int, ...], batch: int, frames: int) -> None:
    planted = states([0.5, 0.2], batch, frames, size)
    shares = explained([planted], dim=len(size), size=3)
    # The place one further leaves the frame at one end, where nothing is explained.
    inside = 1 - 1 / size[-1]
    assert shares == pytest.approx([0, 0.5 * inside, 0.7 * inside, 0.7 * inside], abs=0.04)
    assert steps_worth_having(shares, 0.05) == 3


def test_noise_explains_nothing() -> None:
    assert explained([states([], 8, 10, (12, 12))]) == pytest.approx([0, 0, 0, 0], abs=0.003)
    # Too few places for 81 unknowns: what the regression makes of the one half is no use in the other.
    assert explained([states([], 2, 5, (3, 3))])[-1] < 0.1


def test_states_are_seen_one_place_around() -> None:
    assert explained([states([0.8], 8, 10, (12, 12), shift=2)], most=2)[1] < 0.01


def test_wide_states_are_seen_at_the_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_states, "_MOST_ENTRIES", 50)
    here, beside = (states([0.8], 8, 10, (12, 12), shift=shift) for shift in (0, 1))
    assert explained([here])[1] == pytest.approx(0.8, abs=0.04)
    assert explained([beside])[1] < 0.01


@pytest.mark.parametrize("batches", [1, 4])
def test_batches_of_one_sample(batches: int) -> None:
    planted = states([0.6], batches, 24, (20, 20), shift=0).split(1)
    assert explained(list(planted))[1] == pytest.approx(0.6, abs=0.06)


def test_short_sequences_tell_of_fewer_states() -> None:
    for frames, known in ((1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (6, 4)):
        shares = explained([states([0.6], 8, frames, (16, 16), shift=0)])
        assert len(shares) == known
        assert shares[1:] == pytest.approx([0.6] * (known - 1), abs=0.08)
        assert len(explained([states([0.6], 1, frames, (16, 16))])) == max(1, min(4, frames - 2))


def test_batches_shorter_than_the_first_are_left_out() -> None:
    planted = states([0.6], 8, 10, (12, 12), shift=0)
    assert explained([planted, planted[:, :3]]) == explained([planted])


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Planted(), Planted()

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(a), self.b(b)


def test_cells_count_by_what_they_lose() -> None:
    model = Two()
    lost = torch.zeros(4 * HIDDEN, HIDDEN, 1, 1)
    lost[0, 1] = 1.0
    batch = (states([0.8], 8, 10, (12, 12), shift=0), states([], 8, 10, (12, 12)))
    cells = {"a": model.a.cell, "b": model.b.cell}
    shares = explained_by_past(model, cells, {"a": lost, "b": 3**0.5 * lost}, Calibration([batch]), 2)
    assert shares[1] == pytest.approx(0.2, abs=0.02)


def test_nothing_lost() -> None:
    model = Planted()
    lost = torch.zeros(4 * HIDDEN, HIDDEN, 1, 1)
    data = Calibration([states([0.5], 4, 8, (8, 8))])
    assert explained_by_past(model, {"cell": model.cell}, {"cell": lost}, data, 3) == [0, 0, 0]


@pytest.mark.parametrize(
    ("shares", "steps"), [([0.0], 1), ([0.0, 0.005, 0.3], 1), ([0.0, 0.3, 0.305], 2), ([0.0, 0.1, 0.2, 0.3], 4)]
)
def test_states_count_as_long_as_each_helps(shares: list[float], steps: int) -> None:
    assert steps_worth_having(shares, 0.01) == steps
