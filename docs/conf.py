"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import write_pages, write_published, write_versions
from tt_conv import __version__

BENCHMARKS = Path(__file__).parent / "benchmarks"
write_pages(BENCHMARKS)
write_published(BENCHMARKS / "generated" / "published_figures.inc")
CONTRIBUTING = Path(__file__).parent / "contributing"
write_versions(CONTRIBUTING / "versions.json", CONTRIBUTING / "versions.inc")

project = "tt-conv"
author = "The tt-conv developers"
copyright = "2026, The tt-conv developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]
nitpicky = False
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Lightning's own docstrings use directives of its documentation.
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "show_memory": False,
    "download_all_examples": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "tt-conv"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
