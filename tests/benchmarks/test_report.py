"""The pages that are made of the results of benchmarks."""

import shutil
from pathlib import Path

import pytest

from benchmarks.report import write_pages

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "trained_kernels.json"


def test_a_page_with_a_figure_leaves_no_figure_open(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    shutil.copy(RESULTS, tmp_path)
    before = plt.get_fignums()
    write_pages(tmp_path)
    assert plt.get_fignums() == before
    assert (tmp_path / "generated" / "trained_kernels.png").stat().st_size > 0
    assert "trained_kernels.png" in (tmp_path / "generated" / "trained_kernels.rst").read_text()
