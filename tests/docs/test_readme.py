"""The README says what the repository holds."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_benchmark_table_is_the_one_that_the_benchmark_wrote() -> None:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "tools" / "readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.with_table(README) == README, "run python tools/readme_table.py --write"
    assert module.table() in README


def test_links_to_files_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    files = [link for link in links if not link.startswith("https://")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE)) <= targets
