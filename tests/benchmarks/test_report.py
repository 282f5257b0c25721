"""The pages that are made of the results of benchmarks."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.report import publish, write_pages, write_published

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
    plot = getattr(importlib.import_module(run.PARTS[path.stem.split(".")[0]]), "plot", None)
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


def test_results_of_a_gpu_become_pages_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    about = {"device": "a GPU", "torch": "2.11.0"}
    row = {"time": 1.0, "memory": 1.0, "kernels": 9, "macs": 100, "of peak": 0.5}
    measured = {"case": "training 12 layers batch 2", "frames": [10, 10], "contenders": {"baseline fp32": row}}
    failed = {"case": "inference 12 layers batch 2", "ok": False, "error": "RuntimeError: no"}
    out = tmp_path / "engine.json"
    results = [{"part": "golden", "case": "a", "ok": True}, {"part": "recurrence", **measured}]
    run.write_json(out, {"machine": about, "results": [*results, {"part": "recurrence", **failed}]})
    assert [path.name for path in publish(out, "h100", tmp_path)] == ["golden.h100.json", "recurrence.h100.json"]
    run.write_json(out, {"machine": about, "results": [{"part": "recurrence", "case": "x", "skipped": "out of time"}]})
    publish(out, "h100", tmp_path)
    out.unlink()
    write_pages(tmp_path)
    page = (tmp_path / "generated" / "recurrence.h100.rst").read_text()
    assert "Machine: device a GPU, torch 2.11.0." in page
    assert "Command: ``python -m benchmarks.run --only recurrence --device cuda``." in page
    assert re.search(r"baseline fp32 +1\.00 +1\.00", page)
    assert "inference 12 layers batch 2 failed: RuntimeError: no\n" in page
    assert "x was left out: out of time\n" in page
    run.write_json(out, {"machine": {**about, "size": "small"}, "results": []})
    with pytest.raises(ValueError, match="rehearsal"):
        publish(out, "h100", tmp_path)
