"""Clips from video files: which frames, which pixels, in workers, broken files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tt_conv.applications.data.examined import examined
from tt_conv.applications.recognition.data import (
    ClassFolders,
    VideoClips,
    observed_frames,
    read_class_list,
    read_clip,
    sampled_frames,
)
from tt_conv.applications.recognition.data.class_list import chosen_classes, speaks_of_sides
from tt_conv.applications.recognition.data.video_clips import cropped, resized_sides
from tt_conv.applications.video_prediction.data import write_video


def counted(frames: int, height: int = 16, width: int = 24) -> NDArray[np.uint8]:
    """Frames [T, H, W] that hold five times their own number."""
    return (5 * np.arange(frames, dtype=np.uint8))[:, None, None].repeat(height, 1).repeat(width, 2)


def numbers(clip: torch.Tensor) -> list[int]:
    """The numbers that frames of :func:`counted` hold."""
    return [round(51 * float(frame.mean())) for frame in clip]


def save(path: Path, frames: NDArray[np.uint8]) -> Path:
    """Write frames without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, codec="ffv1", pixel_format="gray")
    return path


def test_one_frame_of_each_segment() -> None:
    for length, frames in ((40, 8), (16, 16), (7, 5), (3, 8), (37, 16)):
        edges = np.arange(frames + 1) * length / frames
        rng = np.random.default_rng(length)
        for places in (0.5, rng.random(frames), 0.0, 1 - 1e-9):
            chosen = sampled_frames(length, frames, places)
            if length >= frames:
                assert (np.floor(edges[:-1]) <= chosen).all()
            for observed in range(1, frames + 1):  # nothing of what comes later
                assert chosen[observed - 1] < edges[observed]
            assert (np.diff(chosen) >= 0).all()
            assert chosen.max() < length
    assert sampled_frames(16, 16).tolist() == [*range(16)]
    assert [observed_frames(16, part) for part in (0.01, 0.25, 0.3, 0.5, 0.99, 1)] == [1, 4, 4, 8, 15, 16]
    assert observed_frames(30, 0.1) == 3  # 0.1 * 30 is a little more than 3, 0.3 * 10 a little less
    assert observed_frames(10, 0.3) == 3
    with pytest.raises(ValueError, match="more than 0 and at most 1, got 25"):
        observed_frames(16, 25)


def test_clips_in_time(tmp_path: Path) -> None:
    video = save(tmp_path / "a.avi", counted(40))
    plain = VideoClips([video], [0], ["Holding"], 8, channels=1, random=True, seed=5)
    assert numbers(plain[0][0]) == [2, 7, 12, 17, 22, 27, 32, 37]
    drawn = [numbers(plain.draw(0, epoch)[0]) for epoch in range(30)]
    segments = np.array(drawn)
    assert (segments // 5 == np.arange(8)).all()  # one of each segment
    assert {*(segments % 5).ravel()} == {*range(5)}  # anywhere in it
    assert drawn[3] == numbers(plain.draw(0, 3)[0])  # a function of the epoch alone
    assert len({tuple(clip) for clip in drawn}) == 30
    assert drawn[0] != numbers(VideoClips([video], [0], ["Holding"], 8, channels=1, random=True, seed=6).draw(0, 0)[0])
    still = VideoClips([video], [0], ["Holding"], 8, channels=1)
    assert numbers(still.draw(0, 7)[0]) == numbers(still[0][0])
    assert numbers(read_clip(video, 8, size=16, channels=1)) == numbers(plain[0][0])


def test_resize_keeps_proportions() -> None:
    assert resized_sides((240, 320), (100, 100), 120) == (120, 160)
    assert resized_sides((240, 320), (100, 100), None) == (100, 133)
    assert resized_sides((320, 240), (100, 100), None) == (133, 100)
    assert resized_sides((240, 320), (60, 120), 60) == (90, 120)  # wide enough for the crop
    assert resized_sides((64, 64), (64, 64), None) == (64, 64)


def test_crops_and_mirrors(tmp_path: Path) -> None:
    pixels = np.arange(6 * 8, dtype=np.uint8).reshape(1, 6, 8, 1)
    found = (255 * cropped(pixels, (4, 4))).round().byte().numpy()
    np.testing.assert_array_equal(found[0, 0], pixels[0, 1:5, 2:6, 0])
    corner = (255 * cropped(pixels, (4, 4), (0.0, 0.999), mirror=True)).round().byte().numpy()
    np.testing.assert_array_equal(corner[0, 0], pixels[0, :4, 4:, 0][:, ::-1])

    # Brightness tells row and column of every pixel, so each crop shows where it is from.
    rows, columns = np.meshgrid(np.arange(8), np.arange(12), indexing="ij")
    video = save(tmp_path / "a.avi", np.stack([(rows * 12 + columns).astype(np.uint8)] * 4))
    names = ["Pushing [something] from left to right", "Holding something"]
    data = VideoClips([video, video], [0, 1], names, 4, size=(6, 8), short_side=8, channels=1, random=True)
    assert data.classes == names
    places: list[set[tuple[int, int, bool]]] = [set(), set()]
    for epoch in range(60):
        for number in range(2):
            clip, label = data.draw(number, epoch)
            values = (255 * clip[:, 0]).round().int()
            assert label == number
            assert (values == values[0]).all()  # all frames alike
            mirrored = bool(values[0, 0, 0] > values[0, 0, 1])
            corner_value = int(values[0, 0, -1 if mirrored else 0])
            places[number].add((corner_value // 12, corner_value % 12, mirrored))
    assert {place[:2] for place in places[0]} == {(row, column) for row in range(3) for column in range(5)}
    assert {mirrored for *_, mirrored in places[0]} == {False}
    assert {mirrored for *_, mirrored in places[1]} == {False, True}
    never = VideoClips([video], [0], names[1:], 4, size=(6, 8), channels=1, random=True, flip=False)
    assert all((clip.diff(dim=-1) > 0).all() for clip in (never.draw(0, epoch)[0] for epoch in range(20)))


def test_which_classes_speak_of_sides() -> None:
    sided = ["Pulling something from left to right", "Turning Left", "turned counter-clockwise", "moving leftwards"]
    sided += [
        "Pushing something left-to-right",
        "left-hand wave",
        "SwipeRight",
        "swipe_left",
        "Touching the leftmost one",
    ]
    assert all(map(speaks_of_sides, sided))
    assert not any(
        map(speaks_of_sides, ["Lifting something up", "Eating leftovers", "UprightStand", "bright-light", ""])
    )


@pytest.mark.parametrize("keep_decoded", [False, True])
def test_workers_and_cache_give_the_same(tmp_path: Path, keep_decoded: bool) -> None:
    videos = [save(tmp_path / f"{number}.avi", counted(10 + number)) for number in range(6)]
    options = {"size": (8, 10), "short_side": 10, "random": True, "cache": tmp_path / "cache"}
    plain = VideoClips(videos, [0, 1, 0, 1, 0, 1], ["a", "b"], 5, **options)
    data = VideoClips(videos, [0, 1, 0, 1, 0, 1], ["a", "b"], 5, keep_decoded=keep_decoded, **options)
    assert bool([*(tmp_path / "cache").glob("*.npy")]) == keep_decoded
    expected = torch.stack([plain[index][0] for index in range(6)])
    batches = [*DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")]
    assert torch.equal(torch.cat([clips for clips, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1] * 3
    assert expected.shape == (6, 5, 3, 8, 10)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.draw(4, 2)[0], plain.draw(4, 2)[0])
    assert data.name(3).endswith("3.avi")
    with pytest.raises(IndexError, match="clip 6 of a data set of 6 clips"):
        data[6]


def test_broken_videos_are_listed_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path / "good.avi", counted(12))
    (tmp_path / "empty.webm").write_bytes(b"")
    (tmp_path / "text.webm").write_text("no video")
    videos = [good, tmp_path / "empty.webm", tmp_path / "gone.webm", tmp_path / "text.webm"]
    data = VideoClips(videos, [0, 1, 1, 1], ["a", "b"], 4, channels=1)
    assert len(data) == 1
    assert data.notes[0] == "left out 3 of 4 videos that cannot be used"
    assert [note.split(":")[0] for note in data.notes[1:4]] == [f"left out {video.name}" for video in videos[1:]]
    assert "gone.webm: it is not there" in data.notes[2]
    assert data.notes[4] == "1 of 2 classes have no clip here: 'b'"
    with pytest.raises(ValueError, match=r"3 of 4 videos cannot be used: .*empty.webm: .*broken=skip"):
        VideoClips(videos, [0, 1, 1, 1], ["a", "b"], 4, broken="refuse")
    with pytest.raises(ValueError, match=r"1 of 1 videos cannot be used: .*give the folder that holds the videos"):
        VideoClips(videos[2:3], [0], ["a"], 4)
    # What was found is remembered, except that a file is missing, and until a file changes.
    looked: list[str] = []
    monkeypatch.setattr(
        "tt_conv.applications.data.examined.examined", lambda video: looked.append(video.name) or examined(video)
    )
    VideoClips(videos, [0, 1, 1, 1], ["a", "b"], 4)
    assert looked == []
    save(tmp_path / "gone.webm.avi", counted(9)).rename(tmp_path / "gone.webm")
    save(tmp_path / "text.webm.avi", counted(9)).rename(tmp_path / "text.webm")
    assert len(VideoClips(videos, [0, 1, 1, 1], ["a", "b"], 4)) == 3
    assert sorted(looked) == ["gone.webm", "text.webm"]


def test_a_file_that_was_cut_off_is_broken(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64), np.uint8)
    write_video(tmp_path / "whole.webm", noise)
    content = (tmp_path / "whole.webm").read_bytes()
    for part in (0.05, 0.5, 0.8):
        (tmp_path / f"{part}.webm").write_bytes(content[: int(part * len(content))])
    videos = [tmp_path / name for name in ("whole.webm", "0.05.webm", "0.5.webm", "0.8.webm")]
    data = VideoClips(videos, [0] * 4, ["a"], 4)
    assert [video.name for video in data.videos] == ["whole.webm"]
    assert "cut off" in data.notes[-1]
    # Short videos and other containers are nothing to complain of.
    for count in (1, 2, 3):
        for ending in ("webm", "mp4", "avi", "mkv", "mov"):
            write_video(tmp_path / f"{count}.{ending}", noise[:count])
            assert VideoClips([tmp_path / f"{count}.{ending}"], [0], ["a"], 4)[0][0].shape[0] == 4
    for ending in ("mp4", "avi", "mkv", "mov"):
        write_video(tmp_path / f"long.{ending}", noise)
        assert VideoClips([tmp_path / f"long.{ending}"], [0], ["a"], 4).notes == []


def test_bad_arguments(tmp_path: Path) -> None:
    video = save(tmp_path / "a.avi", counted(12))
    for options, message in (
        ({"channels": 2}, "channels must be 1"),
        ({"size": 32, "short_side": 30}, "short_side=30 is less than"),
        ({"broken": "mend"}, "broken must be"),
        ({"frames": 0}, "frames must be at least 1"),
        ({"size": 0}, "size must be"),
    ):
        with pytest.raises(ValueError, match=message):
            VideoClips([video], [0], ["a"], **{"frames": 4, **options})
    with pytest.raises(ValueError, match="no videos"):
        VideoClips([], [], ["a"], 4)
    with pytest.raises(FileNotFoundError, match="is no file: give a video"):
        read_clip(tmp_path / "b.avi", 4, size=8)
    (tmp_path / "c.avi").write_text("no video")
    with pytest.raises(ValueError, match="replace it"):
        read_clip(tmp_path / "c.avi", 4, size=8)


def test_lists_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("# of the protocol\nHolding [something]  # a comment\n\nputting  [something] onto [something]\n")
    assert read_class_list(path) == ["Holding something", "putting something onto something"]
    known = ["Lifting something", "Putting something onto something", "Holding something"]
    assert chosen_classes(read_class_list(path), known, "labels.json") == [known[2], known[1]]
    with pytest.raises(ValueError, match=r"labels.json has no class 'Holdin something' \(near: 'Holding something'"):
        chosen_classes(["Holdin [something]"], known, "labels.json")
    with pytest.raises(ValueError, match="named twice: 'Holding something'"):
        chosen_classes(["Holding [something]", "holding something"], known, "labels.json")
    with pytest.raises(ValueError, match="classes is empty"):
        chosen_classes([], known, "labels.json")
    with pytest.raises(FileNotFoundError, match=r"none.txt is no file"):
        read_class_list(tmp_path / "none.txt")
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"classes.txt: it names no class"):
        read_class_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"not a text file"):
        read_class_list(path)


def test_class_folders_are_split(tmp_path: Path) -> None:
    for name, count in (("walk", 20), ("jump", 3), ("hop", 1)):
        for number in range(count):
            save(tmp_path / "set" / name / f"{number}.avi", counted(5))
    (tmp_path / "set" / "empty").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("")
    parts = {split: ClassFolders(tmp_path / "set", 5, split) for split in ("train", "validation", "test")}
    assert parts["train"].classes == parts["test"].classes == ["hop", "jump", "walk"]
    counts = {split: [part.labels.count(label) for label in range(3)] for split, part in parts.items()}
    assert counts == {"train": [1, 1, 16], "validation": [0, 1, 2], "test": [0, 1, 2]}
    files = [part.name(number) for part in parts.values() for number in range(len(part))]
    assert len({*files}) == 24
    for part in parts.values():
        assert all(Path(part.name(n)).parent.name == part.classes[part[n][1]] for n in range(len(part)))
    again, other = ClassFolders(tmp_path / "set", 5, "test"), ClassFolders(tmp_path / "set", 5, "test", seed=1)
    assert again.videos == parts["test"].videos != other.videos
    assert ClassFolders(tmp_path / "set", 5, classes=["walk"]).classes == ["walk"]
    with pytest.raises(ValueError, match="no class 'run'"):
        ClassFolders(tmp_path / "set", 5, classes=["run"])
    with pytest.raises(FileNotFoundError, match="no video for test"):
        ClassFolders(tmp_path / "set", 5, "test", classes=["hop"])


def test_class_folders_in_parts(tmp_path: Path) -> None:
    for part, name in (("train", "b"), ("train", "a"), ("val", "b"), ("test", "b"), ("test", "c")):
        save(tmp_path / part / name / "1.avi", counted(5))
    assert ClassFolders(tmp_path, 5, "train").classes == ["a", "b"]
    test = ClassFolders(tmp_path, 5, "test")
    assert (test.classes, test.labels) == (["a", "b"], [1])
    assert test.notes == ["left out classes that the training part has not: c", "1 of 2 classes have no clip here: 'a'"]
    assert ClassFolders(tmp_path, 5, "validation").labels == [1]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        ClassFolders(tmp_path / "nowhere", 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no folders with videos"):
        ClassFolders(tmp_path / "empty", 5)
