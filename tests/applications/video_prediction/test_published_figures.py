"""The published figures beside an evaluation."""

import pytest

from tt_conv.applications.video_prediction.published_figures import differences, published_tables, tables_for
from tt_conv.applications.video_prediction.settings import DataSettings


def test_the_published_tables() -> None:
    tables = {(table.data, table.future, table.source.split(",")[0]): table for table in published_tables()}
    assert len(tables) == 6
    original = tables["moving_mnist", 10, "github.com/NVlabs/conv-tt-lstm"].rows[2]
    assert [*original] == ["ConvTT-LSTM, original", "12.96", "0.915", "40.54", "2.69M", "10.76G"]
    assert all(len(row) == 1 + len(table.columns) for table in tables.values() for row in table.rows)
    assert "| TAU | 45.32 | 0.9086 | 27.10 | 0.229 |" in tables["kth", 20, "OpenSTL"].markdown()


@pytest.mark.parametrize(
    ("data", "future", "count"),
    [
        (DataSettings("moving_mnist"), 10, 2),
        (DataSettings("fixed_moving_mnist"), 30, 1),
        (DataSettings("kth"), 20, 2),
        (DataSettings("kth"), 10, 0),
        (DataSettings("moving_mnist", given=5), 10, 0),
        (DataSettings("moving_mnist", digits=1), 10, 0),
        (DataSettings("own"), 10, 0),
    ],
)
def test_only_tables_of_the_same_task_are_shown(data: DataSettings, future: int, count: int) -> None:
    assert len(tables_for(data, future)) == count


def test_the_share_of_the_training_is_said() -> None:
    said = differences(DataSettings(), 5_000, (64, 64), 50_000)
    assert said[0].startswith("Trained on 50,000 sequences: 1.00% of the 5,000,000 ")
    assert "not known" in differences(DataSettings("kth"), 10, (120, 120), None)[0]
