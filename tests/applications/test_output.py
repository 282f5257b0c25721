from pathlib import Path

import pytest

from tt_conv.applications.output import OutputFolder


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "a" / "b") as folder, folder.new_file("x.txt") as file:
        file.write_text("1")
    assert (tmp_path / "a" / "b" / "x.txt").read_text() == "1"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with OutputFolder(tmp_path) as folder, folder.new_file("x.txt") as file:
        file.write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"not empty: choose another folder with --out"), OutputFolder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(FileExistsError, match="is a file"), OutputFolder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "precious"


def test_an_error_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), OutputFolder(tmp_path / "out"):
        raise RuntimeError
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_an_empty_folder_that_was_there_before(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), OutputFolder(tmp_path):
        raise RuntimeError
    assert tmp_path.is_dir()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_that_cannot_be_written_to_is_refused_on_entry(
    existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    out = tmp_path / "out"
    if existed:
        out.mkdir()
    monkeypatch.setattr(Path, "write_text", refuses)
    expected = r"cannot write to the output folder '.*out' \(Permission denied\): choose another"
    with pytest.raises(PermissionError, match=expected), OutputFolder(out):
        pytest.fail("entered")
    assert out.exists() is existed
    assert not [*out.glob("*")]


def test_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="out is empty"):
        OutputFolder("")


def write_one_and_a_half(folder: OutputFolder) -> None:
    with folder.new_file("first") as file:
        file.write_text("whole")
    with folder.new_file("second") as file:
        file.write_text("ha")
        raise KeyboardInterrupt


def test_an_error_leaves_no_half_written_file_and_keeps_the_whole_ones(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path / "out") as folder:
        write_one_and_a_half(folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]


def test_the_first_free_name(tmp_path: Path) -> None:
    assert OutputFolder.with_free_name(tmp_path / "demo").path == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").write_text("")
    assert OutputFolder.with_free_name(tmp_path / "demo").path == tmp_path / "demo-3"
