"""The pages that are made of the results of benchmarks."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.report import write_pages, write_published

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "benchmarks" / "trained_kernels.json"


def test_a_page_with_a_figure_leaves_no_figure_open(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    shutil.copy(RESULTS, tmp_path)
    before = plt.get_fignums()
    write_pages(tmp_path)
    assert plt.get_fignums() == before
    assert (tmp_path / "generated" / "trained_kernels.png").stat().st_size > 0
    assert "trained_kernels.png" in (tmp_path / "generated" / "trained_kernels.rst").read_text()


@pytest.mark.parametrize("path", sorted(RESULTS.parent.glob("*.json")), ids=lambda path: path.stem)
def test_figures_are_drawn_of_all_results_and_of_some(path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plot = getattr(importlib.import_module(run.PARTS[path.stem]), "plot", None)
    if plot is None:
        return
    results = json.loads(path.read_text())["results"]
    for some in (results, results[:1]):
        figure = plot(some)
        assert any(axes.has_data() for axes in figure.axes)
        figure.canvas.draw()
        plt.close(figure)


def test_a_part_without_results_has_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "generated").mkdir()
    stale = tmp_path / "generated" / "removed.rst"
    stale.write_text("a page of an earlier build")
    write_pages(tmp_path)
    assert not stale.exists()
    page = (tmp_path / "generated" / "compression.rst").read_text()
    assert page.startswith("Compression of a trained predictor\n====")
    assert "No results are published yet; ``python -m benchmarks.run --only compression``" in page
    # Checks of a device have no table, so no page either.
    assert not (tmp_path / "generated" / "golden.rst").exists()


def test_every_benchmark_that_the_documentation_links_has_a_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_pages(tmp_path)
    sources = [*(ROOT / "docs").glob("[!_]*/*.rst"), *(ROOT / "docs" / "examples").glob("*.py")]
    linked = {name for path in sources for name in re.findall(r"benchmarks/generated/(\w+)[`>]", path.read_text())}
    assert linked
    assert linked <= {page.stem for page in (tmp_path / "generated").glob("*.rst")}


def test_published_figures_are_those_of_the_package(tmp_path: Path) -> None:
    write_published(tmp_path / "published.inc")
    text = (tmp_path / "published.inc").read_text()
    assert text.count(".. list-table::") == 6
    # Su et al., Moving-MNIST, 10 -> 10: MSE x 1e-3 and SSIM of their ConvTT-LSTM.
    assert "   * - ConvTT-LSTM, original\n     - 12.96\n     - 0.915\n" in text
    assert "conv-tt-lstm, result tables (Su et al., NeurIPS 2020" in text
