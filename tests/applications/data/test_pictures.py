"""Files of several pictures are clips of their own; folders, links and names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.applications.data.files import write
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.names import in_order
from tt_conv.applications.recognition.data import ClassFolders, read_clip
from tt_conv.applications.video_prediction.data import OwnVideos, read_video


def pages(count: int = 5, dtype: Any = np.uint8, channels: int = 1, scale: int = 10) -> NDArray:
    """Pictures [T, H, W] or [T, H, W, 3] that hold ten times their own number."""
    values = (scale * np.arange(count)).astype(dtype).reshape(count, 1, 1, 1)
    stack = np.ascontiguousarray(np.broadcast_to(values, (count, 24, 32, channels)))
    return stack if channels == 3 else stack[..., 0]


def save_animation(path: Path, stack: NDArray) -> None:
    pictures = [Image.fromarray(page) for page in stack]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)


def levels(sequence: Any, white: float = 255) -> list[int]:
    return [round(white * float(frame.mean())) for frame in sequence]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.apng", "a.webp"])
def test_a_clip_for_each_file(tmp_path: Path, name: str, channels: int) -> None:
    folder = tmp_path / "set" / "walk"
    folder.mkdir(parents=True)
    for first in ("a", "b"):
        path = folder / name.replace("a", first, 1)
        if path.suffix == ".tif":
            kind = "rgb" if channels == 3 else "minisblack"
            tifffile.imwrite(path, pages(channels=channels), photometric=kind, metadata=None)
        elif path.suffix == ".apng":
            save_animation(path.with_suffix(".png"), pages(channels=channels))
            path.with_suffix(".png").rename(path)
        else:
            save_animation(path, pages(channels=channels))
    data = OwnVideos(tmp_path / "set", 5, "all", channels=1)
    assert [levels(sequence) for sequence in data] == [[0, 10, 20, 30, 40]] * 2
    assert levels(read_clip(folder / name, 5, size=24, channels=1)) == [0, 10, 20, 30, 40]
    classes = ClassFolders(tmp_path / "set", 5, size=24, channels=1, cache=tmp_path)
    assert [levels(classes[number][0]) for number in range(2)] == [[0, 10, 20, 30, 40]] * 2
    assert read_video(folder / name, channels=1)[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(("form", "channels"), [("plain", 1), ("plain", 3), ("imagej", 1), ("ome", 1), ("ome", 3)])
def test_stacks_of_16_bits(tmp_path: Path, channels: int, form: str) -> None:
    stack = pages(dtype=np.uint16, channels=channels, scale=10_000)
    options: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack"}
    if form == "imagej":
        options |= {"imagej": True, "metadata": {"axes": "TYXS"[: stack.ndim]}}
    elif form == "ome":
        options |= {"ome": True, "metadata": {"axes": "TYXS"[: stack.ndim]}}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    data = OwnVideos(tmp_path / "a.tif", 5, "all")
    assert data[0].shape == (5, channels, 24, 32)
    assert levels(data[0], 65535) == [0, 10_000, 20_000, 30_000, 40_000]
    assert "images of uint16, values 0 to 65535" in data.notes[-1]
    with pytest.raises(UnusableFile, match="of uint16, and which values are black and white is not known"):
        read_video(tmp_path / "a.tif")


def test_pages_that_are_no_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        for page in pages():
            file.write(page, photometric="minisblack", metadata=None)
        file.write(np.full((6, 8), 255, np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
    assert levels(OwnVideos(tmp_path / "preview.tif", 5, "all")[0]) == [0, 10, 20, 30, 40]
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        for size in ((24, 32), (24, 32), (12, 16)):
            file.write(np.zeros(size, np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(UnusableFile, match=r"an image of uint8 \(12, 16, 1\) after ones of uint8 \(24, 32, 1\)"):
        OwnVideos(tmp_path / "mixed.tif", 3, "all")
    channels = {"axes": "TCYX"}
    tifffile.imwrite(tmp_path / "channels.tif", np.zeros((5, 2, 24, 32), np.uint8), imagej=True, metadata=channels)
    with pytest.raises(UnusableFile, match="with axes TCYX is no clip"):
        OwnVideos(tmp_path / "channels.tif", 3, "all")
    pictures = [Image.fromarray(page) for page in pages()]
    pictures[4].save(
        tmp_path / "still.png", save_all=True, append_images=pictures[:4], default_image=True, duration=100
    )
    assert levels(OwnVideos(tmp_path / "still.png", 4, "all")[0]) == [0, 10, 20, 30]
    Image.fromarray(pages()[0]).save(tmp_path / "one.png")
    with pytest.raises(UnusableFile, match="a single picture is no clip"):
        OwnVideos(tmp_path / "one.png", 1, "all")


@pytest.mark.parametrize("form", [None, "imagej"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_stacks_that_were_cut_off(tmp_path: Path, form: str | None, part: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pages(), photometric="minisblack", imagej=form == "imagej")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(part * len(content))])
    with pytest.raises((UnusableFile, FileNotFoundError)):
        OwnVideos(tmp_path, 1, "all")


def test_frames_of_a_clip_in_a_folder_of_its_own(tmp_path: Path) -> None:
    for name in ("walk", "run"):
        for number in range(3):
            folder = tmp_path / "set" / name / f"clip{number}"
            folder.mkdir(parents=True)
            for frame, page in enumerate(pages(12), start=1):
                Image.fromarray(page).save(folder / f"{frame}.png")
        Image.fromarray(pages()[0]).save(tmp_path / "set" / name / "cover.png")
    parts = [ClassFolders(tmp_path / "set", 12, part, channels=1, cache=tmp_path) for part in ("train", "test")]
    assert [part.labels for part in parts] == [[0, 1], [0, 1]]
    assert levels(parts[0][0][0]) == [10 * number for number in range(12)]
    assert "left out the pictures in run itself: put the frames of each clip into a folder there" in parts[0].notes
    kept = ClassFolders(tmp_path / "set", 12, channels=1, cache=tmp_path / "kept", keep_decoded=True)
    assert levels(kept[1][0]) == [10 * number for number in range(12)]
    assert levels(read_clip(tmp_path / "set" / "run" / "clip0", 12, size=24, channels=1))[-1] == 110


def test_links_to_folders_that_hold_them(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for number in range(2):
            np.save(tmp_path / part / f"{number}.npy", pages(5) + (100 * (part == "test")))
    (tmp_path / "train" / "up").symlink_to(tmp_path)
    (tmp_path / "train" / "self").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "other").symlink_to(tmp_path / "test")
    (tmp_path / "train" / "gone.avi").symlink_to(tmp_path / "nowhere.avi")
    data = OwnVideos(tmp_path, 5, "train", broken="skip")
    assert len(data) == 2
    assert max(levels(sequence)[-1] for sequence in data) == 40
    said = "\n".join(data.notes)
    assert "left out up, a link to a folder that is read already" in said
    assert "left out self, a link" in said
    assert "left out 2 clips of training that are also for test: 0.npy, 1.npy" in said
    assert "a link to a file that is not there" in said
    assert len(OwnVideos(tmp_path, 5, "test")) == 2


def test_one_file_under_several_names(tmp_path: Path) -> None:
    video = write(tmp_path / "b.mp4", pages(5, channels=3))
    (tmp_path / "a.mp4").symlink_to(video)
    (tmp_path / "c.mp4").hardlink_to(video)
    data = OwnVideos(tmp_path, 5, "all", cache=tmp_path / "cache")
    assert [clip.name for clip in data.clips] == ["b.mp4"]
    assert data.notes == ["left out 2 files that are there twice: a.mp4 is b.mp4, c.mp4 is b.mp4"]
    for part, name in (("train", "walk"), ("train", "run"), ("test", "walk")):
        (tmp_path / "set" / part / name).mkdir(parents=True)
        write(tmp_path / "set" / part / name / "own.mp4", pages(5, channels=3))
    (tmp_path / "set" / "train" / "run" / "too.mp4").hardlink_to(tmp_path / "set" / "train" / "walk" / "own.mp4")
    (tmp_path / "set" / "train" / "run" / "test.mp4").hardlink_to(tmp_path / "set" / "test" / "walk" / "own.mp4")
    train = ClassFolders(tmp_path / "set", 3, cache=tmp_path / "cache")
    assert len(train.videos) == 2
    assert any("of training that are also for test: test.mp4" in note for note in train.notes)
    assert any("which is also of class" in note for note in train.notes)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["-3", "-0.5", "1e-3", "0.25", ".5", "1.0", "2e2"], "decimal numbers"),
        (["frame9", "frame10", "frame100"], None),
        (["0.05", "0.1", "0.15", "0.2"], "decimal numbers"),
        (["0,25", "0,5", "1,0"], "decimal numbers"),
        (["1.8", "1.9", "1.10", "1.11"], "as chapters are counted"),
        (["2019-12-31", "2020-01-09", "2020-01-10"], None),
        (["31.12.2019", "01.01.2020", "15.01.2020"], "ordered by date, the day first"),
        (["12-31-2019", "01-01-2020", "01-15-2020"], "ordered by date, the month first"),
        (["03.01.2020", "01.02.2020"], "it may be the month"),
        (["t_-1.5", "t_0", "t_2.25", "t_10"], None),
        (["s01e05", "s01e9", "s01e10"], None),
        (["clip-1", "clip-2", "clip-10"], None),
        (["-10", "-2"], "rename them if the hyphen is no minus"),
    ],
)
def test_numbers_in_names(tmp_path: Path, names: list[str], note: str | None) -> None:
    for level, name in enumerate(names):
        Image.fromarray(np.full((8, 8), 10 * level, np.uint8)).save(tmp_path / f"{name}.png")
    notes: list[str] = []
    assert [path.stem for path in in_order(tmp_path.iterdir(), notes)] == names
    data = OwnVideos(tmp_path, len(names), "all")
    assert levels(data[0]) == [10 * level for level in range(len(names))]
    assert all(note and note in said for said in notes)
    assert all(note and note in said for said in data.notes)
    assert len(notes) == (note is not None)
