"""The benchmark of recognition: its rows are networks, and its table adds up."""

import pytest

from benchmarks.recognition import accuracy
from tt_conv.applications.recognition.open_data import build_model


@pytest.mark.parametrize("name", accuracy.KINDS)
def test_networks_of_like_size(name: str) -> None:
    model = build_model(accuracy.model_settings(name), 1, 14)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 60_000 < parameters < 80_000


def test_the_table_by_hand() -> None:
    def run(name: str, seed: int, share: float, seconds: float) -> dict:
        figures = {"parameters": 1234, "macs": 2e6, "seconds": seconds, "after_frame": [share] * 4}
        return {"model": name, "seed": seed, "accuracy": [share, 0.5, 1.0], **figures}

    results = [run("ConvLSTM", seed, share, 10) for seed, share in enumerate((0.1, 0.2, 0.3))]
    results += [run("3-D CNN + prediction", 0, 0.4, 15), {"model": "chance", "accuracy": [0.1] * 3}]
    first, chance, *rows = accuracy.table(results).splitlines()
    assert [line.split()[0] for line in (first, chance)] == ["parameters", "chance"]
    assert " ".join(rows[0].split()) == "ConvLSTM 1,234 2.0 20.0 ± 10.0 50.0 ± 0.0 100.0 ± 0.0 1.00 3"
    assert rows[1].split() == ["3-D", "CNN", "+", "prediction", "1,234", "2.0", "40.0", "50.0", "100.0", "1.50", "1"]
