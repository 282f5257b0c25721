"""The embedded example: the files, what a frame tells, and the best that anyone could reach."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tt_conv.applications.recognition.data import ACTIONS, best_accuracy, digit_actions_folder, write_digit_actions
from tt_conv.applications.recognition.data.digit_actions import (
    _DISTANCE,
    _SIDES,
    EARLY,
    FRAMES,
    SIZE,
    UNIFORMS,
    _paths,
    draw_action,
)
from tt_conv.applications.video_prediction import embedded_digits
from tt_conv.applications.video_prediction.data import read_video, write_video

FEW = {"train": 28, "validation": 14, "test": 15}
FEWER = {"train": 3, "validation": 2, "test": 1}


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


def test_the_same_seed_gives_the_same_set(tmp_path: Path) -> None:
    first, again = (write_digit_actions(tmp_path / name, clips=FEWER, seed=3) for name in ("first", "again"))
    other = write_digit_actions(tmp_path / "other", clips=FEWER, seed=4)
    for file in (file.relative_to(first) for file in first.rglob("*") if file.is_file()):
        if file.suffix == ".webm":  # whose headers hold a random number
            assert np.array_equal(read_video(first / file), read_video(again / file))
        else:
            assert (first / file).read_bytes() == (again / file).read_bytes()
    assert (first / "labels" / "train.json").read_text() != (other / "labels" / "train.json").read_text()
    with pytest.raises(FileExistsError, match="choose another"):
        write_digit_actions(first, clips=FEWER)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["again", "first", "other"]  # nothing beside them


def test_it_is_cached(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digit_actions_folder(clips=FEWER)
    assert first.parent == own_cache / "tt-conv"
    monkeypatch.setattr("tt_conv.applications.recognition.data.digit_action_files.draw_action", None)
    assert digit_actions_folder(clips=FEWER) == first
    with pytest.raises(TypeError):  # there is nothing to draw with
        digit_actions_folder(clips=FEWER, seed=1)
    assert [place.name for place in first.parent.iterdir()] == [first.name]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/digits \(.*\): choose another folder"):
        write_digit_actions(tmp_path / "file" / "digits", clips=FEWER)
    with pytest.raises(OSError, match="choose another folder, with cache or in XDG_CACHE_HOME"):
        digit_actions_folder(clips=FEWER, cache=tmp_path / "file" / "cache")


def shared_frames(seed: int) -> dict[tuple[int, int], int]:
    """Frames from the start that each two actions have in common if everything random is the same."""
    uniforms, images = np.random.default_rng(seed).random(UNIFORMS), embedded_digits("test")[0]
    clips = [draw_action(action, uniforms, images) for action in ACTIONS]
    shared = {}
    for first, second in itertools.combinations(range(len(ACTIONS)), 2):
        differ = (clips[first] != clips[second]).any(axis=(1, 2))
        shared[first, second] = int(differ.argmax()) if differ.any() else FRAMES
    return shared


def test_best_accuracy_against_frames() -> None:
    """Classes with the same draws and the same frames so far can't be told apart; all others can."""
    shared = shared_frames(0)
    assert shared == shared_frames(1)  # whatever the draws
    for observed in (0.125, 0.25, 0.3125, 0.34375, 0.375, 0.5, 0.625, 0.6875, 1):
        frames = int(observed * FRAMES)
        groups: list[set[int]] = [{number} for number in range(len(ACTIONS))]
        for (first, second), common in shared.items():
            if common >= frames:
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


def coordinates(number: int, seed: int) -> NDArray[np.float64]:
    """Everything that the frames of an action show but which digits: [16, 8]."""
    path = _paths(ACTIONS[number], np.random.default_rng([seed, number]).random(UNIFORMS))
    (x1, x2), (y1, y2) = path["x"].double().T.numpy(), path["y"].double().T.numpy()
    turn = path["angle"].double().numpy()
    return np.stack(
        [
            (x1 + x2) / 2,
            (y1 + y2) / 2,
            np.log(path["side"].double().numpy()),
            np.hypot(x1 - x2, y1 - y2),
            *np.cos(turn).T,
            *np.sin(turn).T,
        ],
        axis=1,
    )


@pytest.fixture(scope="module")
def seen() -> NDArray[np.float64]:
    """Coordinates [14 actions, 300 clips, 16 frames, 8], each with a standard deviation of about one."""
    found = np.stack([[coordinates(number, seed) for seed in range(300)] for number in range(len(ACTIONS))])
    return (found - found.mean((0, 1, 2))) / found.std((0, 1, 2))


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_one_frame_tells_little(seen: NDArray[np.float64], frame: int) -> None:
    """Nearest neighbours and a Gaussian for each class, given the coordinates themselves, stay below the bound."""
    actions, clips = seen.shape[:2]
    known, asked = seen[:, :200, frame], seen[:, 200:, frame]
    truth = np.arange(actions).repeat(clips - 200)
    distances = torch.cdist(torch.from_numpy(asked).reshape(-1, 8), torch.from_numpy(known).reshape(-1, 8)).numpy()
    votes = np.argsort(distances, axis=1)[:, :15] // 200
    neighbours = np.array([np.bincount(vote, minlength=actions).argmax() for vote in votes])
    spread = known.std(1)[None]
    scores = (((asked.reshape(-1, 1, 8) - known.mean(1)[None]) / spread) ** 2).sum(2) + 2 * np.log(spread).sum(2)
    noise = 3 * np.sqrt(0.25 * 0.75 / len(truth))
    for guess in (neighbours, scores.argmin(1)):
        assert np.mean(guess == truth) < best_accuracy(1 / FRAMES) + noise
    assert best_accuracy(1 / FRAMES) == pytest.approx(2.5 / actions)


def test_two_frames_tell_the_groups(seen: NDArray[np.float64]) -> None:
    """Between the first two frames exactly the action's own coordinate changes, in its own direction."""
    columns = {"x": 0, "y": 1, "size": 2, "distance": 3}
    changes = seen[:, :, 1] - seen[:, :, 0]
    for number, action in enumerate(ACTIONS):
        moved = np.abs(changes[number]) > 1e-5
        if action.coordinate == "angle":
            assert not moved[:, :4].any()
            assert moved[:, 4:].any(1).all()
            continue
        column = columns[action.coordinate]
        assert (np.sign(changes[number, :, column]) == action.sign).all()
        assert not np.delete(moved, column, axis=1).any()


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_no_place_is_more_likely_than_the_bound(frame: int) -> None:
    """The own coordinate of an action, as a part of its range, against the uniform one of all others."""
    rng = np.random.default_rng(frame)
    for number, action in enumerate(ACTIONS):
        if action.coordinate in ("size", "distance"):
            low, high = {"size": np.log(_SIDES), "distance": np.array(_DISTANCE)}[action.coordinate]
            column = {"size": 2, "distance": 3}[action.coordinate]
            values = np.array([coordinates(number, int(seed))[frame, column] for seed in rng.integers(1e9, size=400)])
            parts = (values - low) / (high - low)
            assert parts.min() > -1e-6
            assert parts.max() < 1 + 1e-6
            shares = np.histogram(parts, 8, (0, 1))[0] / len(parts)
            assert shares.max() < 2.5 / 8 + 4 * np.sqrt(2.5 / 8 / len(parts))
