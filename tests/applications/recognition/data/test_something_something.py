"""Something-Something V2 as distributed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tt_conv.applications.recognition.data import ACTIONS, SomethingSomething, write_digit_actions
from tt_conv.applications.video_prediction.data import write_video

CLASSES = ["Holding something", "Lifting something up", "Moving something from left to right"]


def entry(number: int, template: str) -> dict[str, object]:
    return {"id": str(number), "label": template.lower(), "template": template, "placeholders": ["a cup"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of three classes: video n is n frames long, of brightness 2 n."""
    folder = tmp_path / "set"
    (folder / "labels").mkdir(parents=True)
    (folder / "videos").mkdir()
    for number in range(10, 17):
        write_video(folder / "videos" / f"{number}.webm", np.full((number, 16, 20), 2 * number, np.uint8))
    # Numbers that are not in the order of names, as text.
    write(folder, "labels", {CLASSES[0]: "2", CLASSES[1]: "0", CLASSES[2]: "1"})
    templates = ["Holding [something]", "Lifting [something] up", "Moving [something] from left to right"]
    write(folder, "train", [entry(10, templates[0]), entry(11, templates[2]), entry(12, templates[1])])
    write(folder, "validation", [entry(13, templates[1]), entry(14, templates[0])])
    write(folder, "test", [{"id": "15"}, {"id": "16"}])
    return folder


def write(folder: Path, name: str, content: object) -> None:
    (folder / "labels" / f"{name}.json").write_text(json.dumps(content))


def test_labels_are_those_of_the_files(folder: Path) -> None:
    train = SomethingSomething(folder, 4, channels=1)
    assert train.classes == [CLASSES[1], CLASSES[2], CLASSES[0]]
    assert train.labels == [2, 1, 0]
    assert [round(255 * float(train[n][0].mean())) for n in range(3)] == pytest.approx([20, 22, 24], abs=1)
    assert [Path(train.name(n)).name for n in range(3)] == ["10.webm", "11.webm", "12.webm"]
    assert train[0][0].shape == (4, 1, 16, 20)
    assert train.notes == []
    validation = SomethingSomething(folder, 4, "validation")
    assert (validation.labels, validation.notes) == ([0, 2], [f"1 of 3 classes have no clip here: {CLASSES[2]!r}"])
    assert validation[0][0].shape == (4, 3, 16, 20)


def test_the_files_may_lie_flat_and_have_old_names(folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (folder / "labels").iterdir():
        file.rename(flat / f"something-something-v2-{file.name}")
    with pytest.raises(FileNotFoundError, match=r"holds no .webm files.*such as 10.webm, with videos"):
        SomethingSomething(flat, 4)
    assert len(SomethingSomething(flat, 4, videos=folder / "videos")) == 3
    for file in (folder / "videos").iterdir():
        file.rename(flat / file.name)
    assert len(SomethingSomething(flat, 4)) == 3


def test_a_subset_of_classes(folder: Path, tmp_path: Path) -> None:
    asked = tmp_path / "classes.txt"
    asked.write_text("# two of them\nHolding [something]\nlifting something up\n")
    data = SomethingSomething(folder, 4, classes=asked)
    assert data.classes == [CLASSES[0], CLASSES[1]]
    assert data.labels == [0, 1]
    assert [Path(data.name(n)).name for n in range(2)] == ["10.webm", "12.webm"]
    asked.write_text("Moving something from left to right\n")
    with pytest.raises(ValueError, match=r"validation.json has no clip of the 1 classes asked for, such as 'Moving"):
        SomethingSomething(folder, 4, "validation", classes=str(asked))
    asked.write_text("Holding\n")
    with pytest.raises(ValueError, match=r"labels.json has no class 'Holding' \(near: 'Holding something'\)"):
        SomethingSomething(folder, 4, classes=asked)


def test_answers_of_the_test_part(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test.json has no labels.*answers.*split='validation'"):
        SomethingSomething(folder, 4, "test")
    answers = tmp_path / "answers.csv"
    answers.write_text("16;Lifting something up\n15;Holding something\n")
    test = SomethingSomething(folder, 4, "test", answers=answers)
    assert (test.labels, [Path(test.name(n)).stem for n in range(2)]) == ([2, 0], ["15", "16"])
    (folder / "labels" / "test-answers.csv").write_text("15;Holding [something]\n")
    with pytest.raises(
        ValueError, match=r"test-answers.csv: it has no answer for 1 of 2 clips of test.json, such as 16"
    ):
        SomethingSomething(folder, 4, "test")
    (folder / "labels" / "test-answers.csv").write_text("15\n")
    with pytest.raises(ValueError, match=r"line 1 is not id;class: '15'"):
        SomethingSomething(folder, 4, "test")
    with pytest.raises(FileNotFoundError, match=r"no.csv is no file"):
        SomethingSomething(folder, 4, "test", answers=tmp_path / "no.csv")


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_remove("labels/labels.json"), FileNotFoundError, "has no labels.json, neither in it nor in .*labels: give"),
        (_remove("labels/train.json"), FileNotFoundError, "has no train.json"),
        (lambda f: (f / "labels/train.json").write_text("{"), ValueError, r"train.json: not a JSON file .*fetch it"),
        (lambda f: write(f, "train", {}), ValueError, r"train.json: expected a list like"),
        (lambda f: write(f, "train", []), ValueError, r"train.json: expected a list like"),
        (lambda f: write(f, "train", [{"template": "x"}]), ValueError, r"train.json: entry 1 has no id"),
        (lambda f: write(f, "train", [{"id": "10"}]), ValueError, r"entry 1 \(id 10\) has no template"),
        (lambda f: write(f, "labels", []), ValueError, r"labels.json: expected an object like"),
        (lambda f: write(f, "labels", {"a": "x"}), ValueError, r"labels.json: .*the numbers as text"),
        (
            lambda f: write(f, "labels", {"a": "0"}),
            ValueError,
            r"train.json: 3 of its classes are not in labels.json: '",
        ),
    ],
)
def test_files_of_another_form(
    folder: Path, spoil: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    spoil(folder)
    with pytest.raises(error, match=message):
        SomethingSomething(folder, 4)


def test_missing_folders_and_videos(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder: give the one with labels.json"):
        SomethingSomething(tmp_path / "nowhere", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"is empty: give the one with"):
        SomethingSomething(tmp_path / "empty", 4)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder: give the one with the videos, such as 10.webm"):
        SomethingSomething(folder, 4, videos=tmp_path / "nowhere")
    (folder / "videos" / "11.webm").unlink()
    data = SomethingSomething(folder, 4)
    assert (len(data), data.notes[1]) == (2, "left out 11.webm: it is not there")
    with pytest.raises(ValueError, match=r"11.webm: it is not there: fetch it"):
        SomethingSomething(folder, 4, broken="refuse")


def test_the_embedded_set_is_read(tmp_path: Path) -> None:
    few = {"train": 14, "validation": 14, "test": 14}
    folder = write_digit_actions(tmp_path / "digits", clips=few)
    names = [action.name for action in ACTIONS]
    for split in few:
        data = SomethingSomething(folder, 16, split, classes=folder / "classes.txt", channels=1, keep_decoded=True)
        assert data.classes == names
        assert sorted(data.labels) == [*range(14)]
        assert data.notes == []
        assert data[0][0].shape == (16, 1, 64, 64)
    assert SomethingSomething(folder, 16).classes == sorted(names)
