"""The published model's own outputs, from weights in both of its layouts."""

from pathlib import Path

import pytest

from benchmarks.golden_on_device import GOLDEN, largest_difference
from tt_conv.layers import FramePredictor


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_golden_outputs(path: Path) -> None:
    assert largest_difference(path, "cpu") < 1e-10


def test_all_golden_files_are_here() -> None:
    assert len(list(GOLDEN.glob("*.npz"))) == 11


@pytest.mark.parametrize(("cell", "parameters"), [("conv_tt_lstm", 2_687_281), ("conv_lstm", 3_973_201)])
def test_published_network_has_the_published_number_of_parameters(cell: str, parameters: int) -> None:
    assert sum(p.numel() for p in FramePredictor(1, cell=cell).parameters()) == parameters
