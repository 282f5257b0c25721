"""Disks without room, and links in folders that came from elsewhere."""

import errno
import os
from pathlib import Path

import pytest

from tt_conv.applications.output import OutputFolder, replaced_file
from tt_conv.applications.video_prediction.data.fixed_moving_mnist import write_fixed_moving_mnist


def test_no_room_for_a_map_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    sets = {name: dict.fromkeys(("train", "validation", "test"), 2) for name in ("sequences", "frames")}
    with pytest.raises(OSError, match=r"No space left on device: .* bytes are needed") as error:
        write_fixed_moving_mnist(tmp_path / "sets", **sets)
    assert error.value.errno == errno.ENOSPC
    assert not list((tmp_path / "sets").glob("*.npy"))
    assert not list((tmp_path / "sets").glob(".partial*"))


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".partial-last.ckpt").symlink_to(tmp_path / "mine.txt")
    with replaced_file(folder / "last.ckpt") as file:
        file.write_text("weights")
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert not (folder / "last.ckpt").is_symlink()
    assert (folder / "last.ckpt").read_text() == "weights"


def test_a_result_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / "table.txt").symlink_to(tmp_path / "mine.txt")
        with folder.new_file("table.txt") as file:
            file.write_text("1 2 3")
    assert (tmp_path / "mine.txt").read_text() == "precious"
