import math

import pytest

from tt_conv.applications.output import finite
from tt_conv.applications.video_prediction.report import Row, judge, learned_table, results_table


def row(name: str, mse: float, mass_error: float = 0.1, centre: float = 1.0, parameters: int | None = 1234) -> Row:
    """A row whose metrics are right at the third of four predicted frames only."""

    def at_third(value: float) -> list[float]:
        return [9.0, 9.0, value, 9.0]

    metrics = {"mse": at_third(mse), "mass_error": at_third(mass_error), "centre_distance": at_third(centre)}
    return Row(name, metrics | {"psnr": [20.0] * 4, "ssim": [0.5] * 4}, parameters, 5_600_000, 0.25)


BASELINES = [row("copy", 0.08, parameters=None), row("mean", 0.04, parameters=None)]


@pytest.mark.parametrize(
    ("model", "passed"),
    [
        (row("good", 0.0199), True),
        (row("too far from the better baseline", 0.0201), False),
        (row("faint", 0.01, mass_error=0.31), False),
        (row("misplaced", 0.01, centre=3.1), False),
    ],
)
def test_all_three_figures_must_hold_at_the_third_frame(model: Row, passed: bool) -> None:
    learned = judge([*BASELINES, model])
    assert [*learned] == [model.name]
    assert learned[model.name].frame == 3
    assert learned[model.name].passed is passed
    assert ("yes" if passed else "no") in learned_table(learned).split()


def test_the_judged_figures_are_not_rounded_to_their_limits() -> None:
    table = learned_table(judge([*BASELINES, row("near", 0.02008, mass_error=0.304, centre=3.04)]))
    assert table.splitlines()[-1].split() == ["near", "0.502", "30.4%", "3.04", "px", "no"]


def test_with_fewer_frames_the_last_one_counts() -> None:
    rows = [Row(r.name, {k: v[:1] for k, v in r.metrics.items()}, r.parameters) for r in [*BASELINES, row("m", 1)]]
    assert judge(rows)["m"].frame == 1


def test_the_table() -> None:
    table = results_table([*BASELINES, row("model", 0.02)])
    model = table.splitlines()[-1].split()
    assert model[:4] == ["model", "1,234", "5.6", "M"]
    assert model[4:8] == ["0.25", f"{1e3 * 27.02 / 4:.2f}", "20.00", "0.500"]


def test_what_json_cannot_say() -> None:
    assert finite({"a": [1.0, math.inf], "b": (math.nan, "text"), "c": 3}) == {
        "a": [1.0, None],
        "b": [None, "text"],
        "c": 3,
    }
