import math
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tt_conv.applications.training import SideBySide, TrainingModule, fit
from tt_conv.applications.training.module import one_cycle


class Regression(TrainingModule):
    """Fits a linear map to targets that are twice the input."""

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        self.progress = [*getattr(self, "progress", []), progress]
        return (self.model(batch) - 2 * batch).square().mean()


def regression(seed: int = 0, steps: int = 20, **options: Any) -> Regression:
    torch.manual_seed(seed)
    return Regression(nn.Linear(3, 3), steps=steps, learning_rate=0.1, **options)


def batches(steps: int = 20) -> DataLoader[Tensor]:
    values = torch.rand(4 * steps, 3, generator=torch.Generator().manual_seed(1))
    return DataLoader(values, batch_size=4)


def trained_by_hand(module: Regression) -> dict[str, Tensor]:
    """The recipe as its documentation has it, in a plain loop."""
    steps = module.steps
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.1)
    for batch in batches(steps):
        optimizer.zero_grad()
        (module.model(batch) - 2 * batch).square().mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), module.clip_norm)
        optimizer.step()
        schedule.step()
    return module.model.state_dict()


def equal(module: Regression, expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, expected[name]) for name, value in module.model.state_dict().items())


def test_a_module_follows_its_recipe() -> None:
    module = regression(clip_norm=0.5)
    outcome = fit(module, batches())
    assert (outcome.steps_done, outcome.interrupted) == (20, False)
    assert equal(module, trained_by_hand(regression(clip_norm=0.5)))
    assert module.progress == pytest.approx([step / 20 for step in range(20)])


def test_side_by_side_each_module_is_as_if_it_were_alone() -> None:
    modules = {"first": regression(0, clip_norm=0.5), "second": regression(1)}
    assert fit(SideBySide(modules), batches()).steps_done == 20
    assert equal(modules["first"], trained_by_hand(regression(0, clip_norm=0.5)))
    assert equal(modules["second"], trained_by_hand(regression(1)))
    assert modules["second"].progress == pytest.approx([step / 20 for step in range(20)])


def test_an_error_in_one_of_the_threads_is_raised() -> None:
    class Fails(Regression):
        def loss(self, batch: Tensor, progress: float) -> Tensor:
            raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        fit(SideBySide({"good": regression(), "bad": Fails(nn.Linear(3, 3), steps=20)}), batches())


def rate_by_hand(step: int, steps: int) -> float:
    """One cycle from 1/25 to 1 and on to 1/25 / 10,000, along cosines; a tenth of the steps rise, less the first."""
    total = max(steps, 2)
    rise = 1.0 if steps == 10 else 0.1 * total - 1
    if step <= rise:
        start, end, share = 1 / 25, 1.0, step / rise
    else:
        start, end, share = 1.0, 1 / 25e4, (step - rise) / (total - 1 - rise)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11, 20, 100])
def test_one_cycle_of_any_number_of_steps(steps: int) -> None:
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}]
    )
    schedule = one_cycle(optimizer, [0.1, 0.2], steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    expected = [[rate * rate_by_hand(step, steps) for rate in (0.1, 0.2)] for step in range(steps)]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor(expected))


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_few_steps_are_enough(steps: int) -> None:
    assert fit(regression(steps=steps), batches(steps)).steps_done == steps


class Interrupted(Regression):
    """Ctrl-C comes in the fourth step, as often as asked."""

    times = 1

    def loss(self, batch: Tensor, progress: float) -> Tensor:
        loss = super().loss(batch, progress)
        if len(self.progress) == 4:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return loss


def test_ctrl_c_ends_the_training_after_the_step() -> None:
    before = signal.getsignal(signal.SIGINT)
    torch.manual_seed(0)
    module = Interrupted(nn.Linear(3, 3), steps=20, learning_rate=0.1)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    outcome = fit(module, batches())
    assert outcome.interrupted
    assert outcome.steps_done == 4
    assert any(not torch.equal(value, start[name]) for name, value in module.state_dict().items())
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_with_modules_side_by_side() -> None:
    modules = {"interrupted": Interrupted(nn.Linear(3, 3), steps=20), "other": regression()}
    outcome = fit(SideBySide(modules), batches())
    assert (outcome.steps_done, outcome.interrupted) == (4, True)
    assert len(modules["other"].progress) == 4


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    module = Interrupted(nn.Linear(3, 3), steps=20)
    module.times = 2
    with pytest.raises(KeyboardInterrupt):
        fit(module, batches())
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_but_the_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("always")
    fit(regression(), batches(), description="Learning")
    printed = capfd.readouterr()
    assert "Learning 100% |" in printed.out
    assert "loss=" in printed.out
    assert all(line.startswith("Learning") for line in printed.out.replace("\r", "\n").split("\n") if line.strip())
    assert not printed.err
    assert not list(tmp_path.iterdir())
    assert not [warning for warning in recwarn if "workers" in str(warning.message)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1, "learning_rate": 0.0}, "must be positive, got 0.0"),
        ({"steps": 1, "clip_norm": -1.0}, "must be positive"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Regression(nn.Linear(3, 3), **options)


def test_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="at least one module"):
        SideBySide({})
