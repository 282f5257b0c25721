"""The code of the guide and of the README runs, and prints what stands below it."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^\.\. code-block:: (python|text)\n\n((?: {3}.*\n|\n)+)", re.MULTILINE)
FENCED = re.compile(r"^```(python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a build of the documentation left is not written by hand.
BUILT = {"_build", "gallery", "generated"}
WRITTEN = [page for page in sorted((ROOT / "docs").rglob("*.rst")) if not BUILT & set(page.relative_to(ROOT).parts)]
PAGES = [*WRITTEN, ROOT / "README.md"]
# Their code reads files that only the reader has, or takes minutes: it writes a data set, or trains.
NOT_RUN = {"training", "your_own_data", "recognition_data"}


def blocks(page: Path) -> list[tuple[str, str]]:
    pattern = BLOCK if page.suffix == ".rst" else FENCED
    return [(language, textwrap.dedent(text).strip("\n")) for language, text in pattern.findall(page.read_text())]


RUN = [page for page in PAGES if blocks(page) and page.stem not in NOT_RUN]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    printed = ""
    for language, text in blocks(page):
        if "checkpoint.pt" in text:  # the reader's own
            continue
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert printed.rstrip() == text.rstrip()
