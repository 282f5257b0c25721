"""The order of training, scheduled sampling and the published schedule."""

import math
from itertools import chain

import numpy as np
import pytest
import torch

from tt_conv.applications.training.epochs import EpochBatches, EpochOfSamples
from tt_conv.applications.training.plateau import PlateauSchedule
from tt_conv.applications.video_prediction import MovingMNIST
from tt_conv.applications.video_prediction.scheduled_sampling import fed_with_truth


def test_an_epoch_sees_every_sequence_once_in_an_order_of_its_own() -> None:
    orders = [[*EpochBatches(10, 2, seed=0, epoch=epoch)] for epoch in (0, 1, 0)]
    assert sorted(chain(*orders[0])) == [*range(10)]
    assert orders[0] == orders[2] != orders[1]
    assert [*EpochBatches(10, 2, seed=1, epoch=0)] != orders[0]


@pytest.mark.parametrize(("length", "batch", "batches", "used"), [(11, 4, 2, 8), (3, 8, 1, 3)])
def test_incomplete_batches(length: int, batch: int, batches: int, used: int) -> None:
    taken = EpochBatches(length, batch, seed=0, epoch=0)
    assert len(taken) == len([*taken]) == batches
    assert len({*chain(*taken)}) == used


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_of_one(world_size: int) -> None:
    alone = [*EpochBatches(18, 4, seed=5, epoch=2)]
    shares = [EpochBatches(18, 4, seed=5, epoch=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [[*chain(*parts)] for parts in zip(*shares, strict=True)] == alone


def test_batches_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match=r"batch_size \(3\) must be a multiple of the number of processes \(2\)"):
        EpochBatches(10, 3, seed=0, epoch=0, world_size=2)
    with pytest.raises(ValueError, match="too few for 4 processes"):
        EpochBatches(3, 4, seed=0, epoch=0, world_size=4)


def test_an_epoch_draws_and_a_validation_does_not() -> None:
    data = MovingMNIST(length=3, frames=2, fresh=True)
    number, sequence = EpochOfSamples(data, 2)[1]
    assert number == 1
    assert torch.equal(sequence, data.draw(1, 2))
    assert torch.equal(EpochOfSamples(data, None)[1][1], data[1])


def test_scheduled_sampling_is_a_function_of_seed_epoch_and_sample() -> None:
    numbers = torch.arange(200)
    fed = fed_with_truth(numbers, 9, 0.3, seed=1, epoch=4)
    assert float(fed.float().mean()) == pytest.approx(0.3, abs=0.04)
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(200))
    assert torch.equal(fed_with_truth(shuffled, 9, 0.3, seed=1, epoch=4), fed[shuffled])
    assert not torch.equal(fed_with_truth(numbers, 9, 0.3, seed=1, epoch=5), fed)
    assert not torch.equal(fed_with_truth(numbers, 9, 0.3, seed=2, epoch=4), fed)
    assert not fed_with_truth(numbers, 9, 0.0, seed=1, epoch=4).any()


def test_the_published_schedule_by_hand() -> None:
    schedule = PlateauSchedule(1.0, sampling_decay=0.4, patience=2, lr_decay=0.5, lr_decay_every=2)
    seen = []
    for loss in (5.0, 4.0, 4.0, 4.5, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0):
        schedule.update(loss)
        seen.append((round(schedule.ratio, 3), schedule.lr_factor))
    # Stalled twice at the 4th epoch: sampling fades. Again at the 6th: two epochs later the first decay.
    assert [ratio for ratio, _ in seen] == [1, 1, 1, 0.6, 0.2, 0, 0, 0, 0, 0, 0]
    assert [factor for _, factor in seen] == [1] * 6 + [0.5, 0.5, 0.25, 0.25, 0.125]


def test_without_scheduled_sampling_the_first_stall_lowers_the_learning_rate() -> None:
    schedule = PlateauSchedule(0.0, patience=1, lr_decay=0.5, lr_decay_every=1)
    for loss in (1.0, 1.0, 1.0):
        schedule.update(loss)
    assert schedule.lr_factor == 0.25


def test_a_schedule_goes_on_where_it_was() -> None:
    losses = np.random.default_rng(0).random(30)
    whole, first = (PlateauSchedule(patience=2, sampling_decay=0.1) for _ in range(2))
    for loss in losses[:12]:
        first.update(loss)
    second = PlateauSchedule(**first.state_dict())
    for loss in losses[12:]:
        second.update(loss)
    for loss in losses:
        whole.update(loss)
    assert whole == second


@pytest.mark.parametrize("options", [{"ratio": 1.5}, {"ratio": math.nan}, {"patience": 0}, {"lr_decay_every": 0}])
def test_bad_schedules(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        PlateauSchedule(**options)
