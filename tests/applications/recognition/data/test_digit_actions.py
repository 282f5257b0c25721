"""The embedded example: the files, what a frame tells, and the best that anyone could reach."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tt_conv.applications.recognition.data import ACTIONS, best_accuracy, digit_actions_folder, write_digit_actions
from tt_conv.applications.recognition.data.digit_actions import EARLY, FRAMES, LATE, SIZE, UNIFORMS, draw_action
from tt_conv.applications.video_prediction import embedded_digits
from tt_conv.applications.video_prediction.data import read_video, write_video

FEW = {"train": 28, "validation": 14, "test": 15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_actions(tmp_path_factory.mktemp("set") / "digits", clips=FEW, seed=3)


def test_files_are_those_of_something_something(folder: Path) -> None:
    labels = json.loads((folder / "labels" / "labels.json").read_text())
    assert sorted(labels, key=lambda name: int(labels[name])) == sorted(labels)
    assert set(labels.values()) == {str(number) for number in range(len(ACTIONS))}
    ids = []
    for split in ("train", "validation"):
        entries = json.loads((folder / "labels" / f"{split}.json").read_text())
        assert len(entries) == FEW[split]
        for entry in entries:
            assert [*entry] == ["id", "label", "template", "placeholders"]
            filled = entry["template"]
            for thing in entry["placeholders"]:
                filled = filled.replace("[something]", thing, 1)
            assert filled.lower() == entry["label"]
            assert entry["template"].replace("[", "").replace("]", "") in labels
        names = [entry["template"] for entry in entries]
        assert {names.count(name) for name in names} == {FEW[split] // len(ACTIONS)}
        ids += [entry["id"] for entry in entries]
    tests = json.loads((folder / "labels" / "test.json").read_text())
    assert all([*entry] == ["id"] for entry in tests)
    answers = [*csv.reader((folder / "labels" / "test-answers.csv").read_text().splitlines(), delimiter=";")]
    assert [clip for clip, _ in answers] == [entry["id"] for entry in tests]
    assert {name for _, name in answers} == {*labels}
    ids += [clip for clip, _ in answers]
    videos = folder / "20bn-something-something-v2"
    assert sorted(ids) == sorted(file.stem for file in videos.iterdir())
    assert read_video(videos / f"{ids[0]}.webm").shape == (FRAMES, SIZE, SIZE, 3)
    assert [line for line in (folder / "classes.txt").read_text().splitlines() if line[0] != "#"] == [
        action.name for action in ACTIONS
    ]


def test_the_same_seed_gives_the_same_set(folder: Path, tmp_path: Path) -> None:
    again = write_digit_actions(tmp_path / "again", clips=FEW, seed=3)
    other = write_digit_actions(tmp_path / "other", clips=FEW, seed=4)
    for file in (file.relative_to(folder) for file in folder.rglob("*") if file.is_file()):
        if file.suffix == ".webm":  # whose headers hold a random number
            assert np.array_equal(read_video(folder / file), read_video(again / file))
        else:
            assert (folder / file).read_bytes() == (again / file).read_bytes()
    assert (folder / "labels" / "train.json").read_text() != (other / "labels" / "train.json").read_text()
    with pytest.raises(FileExistsError, match="choose another"):
        write_digit_actions(folder, clips=FEW)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["again", "other"]  # nothing half-written beside them


def test_it_is_cached(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digit_actions_folder(clips=FEW)
    assert first.parent == own_cache / "tt-conv"
    monkeypatch.setattr("tt_conv.applications.recognition.data.digit_action_files.draw_action", None)
    assert digit_actions_folder(clips=FEW) == first
    with pytest.raises(TypeError):  # there is nothing to draw with
        digit_actions_folder(clips=FEW, seed=1)
    assert [place.name for place in first.parent.iterdir()] == [first.name]


def shared_frames(first: int, second: int, seed: int) -> int:
    """Frames from the start that two actions have in common if everything random is the same."""
    uniforms, images = np.random.default_rng(seed).random(UNIFORMS), embedded_digits("test")[0]
    clips = [draw_action(ACTIONS[number], uniforms, images) for number in (first, second)]
    differ = (clips[0] != clips[1]).any(axis=(1, 2))
    return int(differ.argmax()) if differ.any() else FRAMES


def test_best_accuracy_against_frames() -> None:
    """Classes with the same draws and the same frames so far can't be told apart; all others can."""
    pairs = [*itertools.combinations(range(len(ACTIONS)), 2)]
    shared = {pair: {shared_frames(*pair, seed) for seed in range(2)} for pair in pairs}
    assert max(EARLY, LATE) < FRAMES
    for common in shared.values():
        assert len(common) == 1  # whatever the draws
    for observed in (0.125, 0.25, 0.3125, 0.34375, 0.375, 0.5, 0.625, 0.6875, 1):
        frames = int(observed * FRAMES)
        groups: list[set[int]] = [{number} for number in range(len(ACTIONS))]
        for (first, second), common in shared.items():
            if min(common) >= frames:
                joined = [group for group in groups if first in group or second in group]
                groups = [group for group in groups if group not in joined] + [set().union(*joined)]
        assert best_accuracy(observed) == pytest.approx(len(groups) / len(ACTIONS))
        pairs_of_guesses = sum(min(2, len(group)) for group in groups)
        assert best_accuracy(observed, top=2) == pytest.approx(pairs_of_guesses / len(ACTIONS))
    assert [round(best_accuracy(observed) * len(ACTIONS)) for observed in (0.25, 0.5, 1)] == [10, 12, 14]
    with pytest.raises(ValueError, match="at least one of them and at most 1"):
        best_accuracy(0.05)


def test_encoding_tells_nothing_of_later_frames(tmp_path: Path) -> None:
    uniforms, images = np.random.default_rng(0).random(UNIFORMS), embedded_digits("test")[0]
    decoded = []
    for number in (0, 10):
        write_video(tmp_path / f"{number}.webm", draw_action(ACTIONS[number], uniforms, images))
        decoded.append(read_video(tmp_path / f"{number}.webm"))
    assert np.array_equal(decoded[0][:EARLY], decoded[1][:EARLY])
    assert not np.array_equal(decoded[0][EARLY], decoded[1][EARLY])
