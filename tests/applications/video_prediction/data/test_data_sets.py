"""Data sets of sequences from files of the forms that people have."""

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from tt_conv.applications.data.windows import ClipWindows
from tt_conv.applications.video_prediction import MovingMNIST
from tt_conv.applications.video_prediction.data import (
    KTH,
    FixedMovingMNIST,
    OwnVideos,
    write_fixed_moving_mnist,
    write_video,
)
from tt_conv.applications.video_prediction.data.kth import read_list


def counted(frames: int, height: int = 8, width: int = 12, first: int = 0) -> NDArray[np.uint8]:
    """Frames [T, H, W] that hold their own number."""
    return np.arange(first, first + frames, dtype=np.uint8)[:, None, None].repeat(height, 1).repeat(width, 2)


def numbers(sequence: torch.Tensor) -> list[int]:
    """The numbers that frames of :func:`counted` hold."""
    return [round(255 * float(frame.mean())) for frame in sequence]


def save_avi(path: Path, frames: int, first: int = 0, height: int = 16, width: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, counted(frames, height, width, first), codec="ffv1", pixel_format="gray")


def test_windows_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", counted(25))
    np.savez(
        tmp_path / "a.npz", whatever=np.stack([counted(12, first=100), counted(12, first=150)]), labels=np.arange(2)
    )
    data = OwnVideos(tmp_path, frames=5, split="all")
    assert [numbers(data[index])[0] for index in range(len(data))] == [100, 105, 150, 155, 0, 5, 10, 15, 20]
    assert numbers(data[5]) == [5, 6, 7, 8, 9]
    assert data[0].shape == (5, 1, 8, 12)
    assert data[0].dtype == torch.float32
    assert data.name(3) == "a.npz[1], frames 6 to 10"
    assert [note.split(" (")[0] for note in data.notes] == ["a.npz: axes NTHW", "b.npy: axes THW"]
    every_second = OwnVideos(tmp_path / "b.npy", frames=5, split="all", step=2, stride=4)
    assert [numbers(every_second[index]) for index in (0, 1)] == [[0, 2, 4, 6, 8], [4, 6, 8, 10, 12]]
    assert len(every_second) == 5


def test_values_reach_from_0_to_1(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 6 * 4 * 4, dtype=np.float32).reshape(6, 4, 4)
    np.save(tmp_path / "a.npy", values)
    data = OwnVideos(tmp_path, frames=6, split="all")
    np.testing.assert_allclose(data[0].numpy()[:, 0], (values + 1) / 2, atol=1e-6)
    stated = OwnVideos(tmp_path, frames=6, split="all", value_range=(-3, 1), layout="THW")
    np.testing.assert_allclose(stated[0].numpy()[:, 0], (values + 3) / 4, atol=1e-6)
    assert stated.notes == ["a.npy: axes THW (as stated), values -3 to 1, as stated"]


def test_a_folder_of_videos_in_workers(tmp_path: Path) -> None:
    for number in range(3):
        save_avi(tmp_path / "videos" / f"clip{number + 8}.avi", 12, first=50 * number)
    data = OwnVideos(tmp_path / "videos", frames=6, split="all", cache=tmp_path / "cache")
    expected = torch.stack([data[index] for index in range(len(data))])
    # In the order of the numbers in the names: clip8, clip9, clip10.
    assert [numbers(sequence)[0] for sequence in expected] == [0, 6, 50, 56, 100, 106]
    workers = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat([*workers]), expected)
    copy = pickle.dumps(data)
    assert len(copy) < 5000  # the frames are not in it
    assert torch.equal(pickle.loads(copy)[4], expected[4])
    assert len([*(tmp_path / "cache").iterdir()]) == 3


def test_two_names_of_one_video(tmp_path: Path) -> None:
    save_avi(tmp_path / "0" / "clip.avi", 60)
    for copy in range(1, 8):
        (tmp_path / str(copy)).mkdir()
        (tmp_path / str(copy) / "clip.avi").symlink_to(tmp_path / "0" / "clip.avi")
    data = OwnVideos(tmp_path, 60, "all", cache=tmp_path / "cache")
    assert len(data) == 1  # each real file once
    assert "left out 7 files that are there twice: 1/clip.avi is 0/clip.avi" in data.notes[0]


@pytest.mark.parametrize(("name", "codec"), [("clip.ts", "libx264"), ("clip.FLV", "flv"), ("clip.y4m", "rawvideo")])
def test_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    with av.open(str(tmp_path / name), "w", format={"ts": "mpegts", "y4m": "yuv4mpegpipe"}.get(name[5:])) as container:
        stream = container.add_stream("wrapped_avframe" if codec == "rawvideo" else codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for level in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48), 20 * level + 30, np.uint8), format="gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    data = OwnVideos(tmp_path, 10, "all", cache=tmp_path / "cache")
    levels = data[0].mean(dim=(1, 2, 3)) * 255
    assert torch.allclose(levels, torch.arange(10) * 20.0 + 30, atol=4)


def test_frame_folders_gray_and_colour(tmp_path: Path) -> None:
    for clip, mode in (("a", "L"), ("b", "RGB")):
        for number in range(12):
            (tmp_path / clip).mkdir(exist_ok=True)
            Image.new(mode, (12, 8), (number,) * len(mode) if mode == "RGB" else number).save(
                tmp_path / clip / f"frame{number}.png"
            )
    with pytest.raises(ValueError, match=r"2 numbers of channels \(1: a .*; 3: b .* to one with channels"):
        OwnVideos(tmp_path, frames=4, split="all")
    for channels in (1, 3):
        data = OwnVideos(tmp_path, frames=4, split="all", channels=channels)
        assert [numbers(data[index])[0] for index in range(len(data))] == [0, 4, 8] * 2
        assert data[5].shape == (4, channels, 8, 12)
    assert OwnVideos(tmp_path / "b", frames=4, split="all")[0].shape == (4, 3, 8, 12)


def test_gray_of_colour_and_another_size(tmp_path: Path) -> None:
    frames = np.zeros((4, 8, 12, 3), np.uint8)
    frames[..., 1] = 255
    np.save(tmp_path / "green.npy", frames)
    data = OwnVideos(tmp_path, frames=4, split="all", channels=1, size=(4, 6))
    np.testing.assert_allclose(data[0].numpy(), np.full((4, 1, 4, 6), 0.587), atol=1e-6)


def test_clips_of_several_sizes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", counted(5))
    np.save(tmp_path / "b.npy", counted(5, height=10))
    with pytest.raises(ValueError, match=r"2 frame sizes \(\(8, 12\): a\.npy .*: b\.npy .* to one with size"):
        OwnVideos(tmp_path, frames=5, split="all")
    assert OwnVideos(tmp_path, frames=5, split="all", size=8)[1].shape == (5, 1, 8, 8)


def test_splits_by_folder(tmp_path: Path) -> None:
    for first, folder in enumerate(("train", "val", "test")):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", counted(5, first=10 * first))
    assert numbers(OwnVideos(tmp_path, frames=5, split="validation")[0])[0] == 10
    assert numbers(OwnVideos(tmp_path, frames=5, split="test")[0])[0] == 20
    os.rename(tmp_path / "val", tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="folders for train, test but none for validation"):
        OwnVideos(tmp_path, frames=5, split="validation")


def test_splits_by_clip_and_by_time(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([counted(5, first=10 * clip) for clip in range(20)]))
    parts = {split: OwnVideos(tmp_path, frames=5, split=split) for split in ("train", "validation", "test")}
    assert [numbers(parts["validation"][index])[0] for index in range(2)] == [80, 180]
    assert [len(part) for part in parts.values()] == [16, 2, 2]
    np.save(tmp_path / "a.npy", counted(100))
    parts = {split: OwnVideos(tmp_path, frames=5, split=split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [16, 2, 2]
    assert [numbers(part[0])[0] for part in parts.values()] == [0, 80, 90]
    assert "cut in time" in parts["test"].notes[-1]


def test_random_windows_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", counted(200))
    data = OwnVideos(tmp_path, frames=5, split="all", random=True, seed=3)
    again = pickle.loads(pickle.dumps(data))
    starts = [numbers(data.draw(index, epoch))[0] for epoch in range(3) for index in range(40)]
    assert starts == [numbers(again.draw(index, epoch))[0] for epoch in range(3) for index in range(40)]
    assert len(set(starts)) > 60
    assert max(starts) <= 195
    assert numbers(data[2]) == [10, 11, 12, 13, 14]
    plain = OwnVideos(tmp_path, frames=5, split="all")
    assert torch.equal(plain.draw(2, 7), plain[2])


def test_broken_files_are_refused_or_skipped_by_name(tmp_path: Path) -> None:
    save_avi(tmp_path / "good.avi", 8)
    save_avi(tmp_path / "short.avi", 3)
    (tmp_path / "broken.avi").write_bytes(b"nothing")
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with np.errstate(invalid="ignore"):
        np.save(tmp_path / "nan.npy", np.full((8, 16, 24), np.nan))
    options: dict[str, Any] = {"frames": 8, "split": "all", "cache": tmp_path / "cache", "channels": 1}
    with pytest.raises(ValueError, match=r"3 of 5 files cannot be used: bad\.npy: .*broken\.avi: .*nan\.npy: "):
        OwnVideos(tmp_path, **options)
    data = OwnVideos(tmp_path, broken="skip", **options)
    assert len(data) == 1
    said = "\n".join(data.notes)
    for name in ("bad.npy", "broken.avi", "nan.npy", "short.avi"):
        assert name in said
    with pytest.raises(ValueError, match=r"1 of 1 clips are shorter than the 8 frames needed: short\.avi has 3; ask"):
        OwnVideos(tmp_path / "short.avi", **options)


def test_arrays_under_the_other_ending(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", counted(9))
    np.savez(tmp_path / "b.npz", frames=counted(9, first=9))
    (tmp_path / "a.npy").rename(tmp_path / "a.tmp")
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    (tmp_path / "a.tmp").rename(tmp_path / "a.npz")
    data = OwnVideos(tmp_path, frames=9, split="all")
    assert [numbers(data[index])[0] for index in (0, 1)] == [0, 9]


def test_no_advice_to_load_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_text("no array")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ValueError, match=f"{name}: not a readable array file .it holds Python objects, or no"):
            OwnVideos(tmp_path / name, frames=3)


def test_all_arrays_have_one_range(tmp_path: Path) -> None:
    """A dry day and a wet one: the dry one is not brightened."""
    np.save(tmp_path / "dry.npy", np.full((5, 8, 8), 0.5))
    np.save(tmp_path / "wet.npy", np.full((5, 8, 8), 200.0))
    data = OwnVideos(tmp_path, frames=5, split="all")
    assert [round(255 * float(data[index].mean()), 3) for index in (0, 1)] == [0.5, 200]
    assert data.value_range == (0, 255)
    np.save(tmp_path / "wet.npy", np.full((5, 8, 8), 2.0))
    with pytest.raises(ValueError, match=r"wet\.npy .*values run from 0\.5 to 2, .* value_range=\[0\.5,2\]"):
        OwnVideos(tmp_path, frames=5, split="all")


def test_all_parts_have_one_range(tmp_path: Path) -> None:
    for part, value in (("train", 200.0), ("val", 0.5), ("test", 0.5)):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "a.npy", np.full((5, 8, 8), value))
    assert float(OwnVideos(tmp_path, 5, "test")[0].mean()) == pytest.approx(0.5 / 255)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_images_of_more_than_bytes(tmp_path: Path, dtype: type) -> None:
    for number in range(3):
        Image.fromarray(np.full((8, 8), 1000 * number, dtype)).save(tmp_path / f"{number}.tif")
    with pytest.raises(ValueError, match=r"run from 0 to 2000, .* such as value_range=\[0,2000\]"):
        OwnVideos(tmp_path, frames=3, split="all")
    data = OwnVideos(tmp_path, frames=3, split="all", value_range=(0, 2000))
    assert data[0].mean(dim=(1, 2, 3)).tolist() == [0, 0.5, 1]
    assert data.notes == [f"{tmp_path.name}: images of {np.dtype(dtype)}, values 0 to 2000, as stated"]


def test_what_to_do_about_clips_that_are_cut_too_short(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", counted(60))
    with pytest.raises(ValueError, match=r"has 6; ask for fewer frames; fewer than ten clips are each cut in time"):
        OwnVideos(tmp_path, frames=10, split="validation")


def test_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 of 1 files cannot be used: .*a\.avi.*; nothing is left"):
        OwnVideos(tmp_path, frames=3, split="all", broken="skip")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        OwnVideos(tmp_path / "nowhere", frames=3)
    with pytest.raises(ValueError, match="the path of the videos is empty"):
        OwnVideos("", frames=3)
    with pytest.raises(FileNotFoundError, match="holds no videos"):
        OwnVideos(tmp_path, frames=3)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match="not known as a video or an array"):
        OwnVideos(tmp_path / "a.txt", frames=3)
    np.save(tmp_path / "empty.npy", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"empty\.npy: an empty array"):
        OwnVideos(tmp_path, frames=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split must be one of 'train'"),
        ({"broken": "ignore"}, "broken must be 'refuse' or 'skip'"),
        ({"size": (3, 4, 5)}, "size must be one number"),
        ({"seed": -1, "array_name": "b"}, "seed must be 0 or more"),
        ({"channels": 2, "array_name": "b"}, "channels must be 1"),
        ({"frames": 0, "array_name": "b"}, "frames must be at least 1"),
        ({"array_name": "x"}, r"a\.npz: it has no array 'x': it has a, b"),
        ({}, r"a\.npz: expected one array .* it has a \(5, 8, 12\), b \(5, 8, 12\): name the one with array_name"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", a=counted(5), b=counted(5))
    with pytest.raises(ValueError, match=message):
        OwnVideos(tmp_path, **{"frames": 5, **options})


LISTED = """The list of sequences, as distributed.

person15_boxing_d1\t\tframes\t1-10, 11-20, 21-30, 31-38
person17_handclapping_d3\t*missing*
person17_boxing_d1\tframes\t1-12, 10-22, 23-99
person18_walking_d4 frames 1-20
"""


@pytest.fixture
def kth(tmp_path: Path) -> Path:
    folder = tmp_path / "kth"
    save_avi(folder / "boxing" / "person15_boxing_d1_uncomp.avi", 40)
    save_avi(folder / "boxing" / "person17_boxing_d1_uncomp.avi", 40, first=50)
    (folder / "00sequences.txt").write_text(LISTED)
    return folder


def test_the_list_of_kth(kth: Path) -> None:
    assert [(video.name, video.person, video.clips) for video in read_list(kth / "00sequences.txt")] == [
        ("person15_boxing_d1", 15, ((1, 10), (11, 20), (21, 30), (31, 38))),
        ("person17_boxing_d1", 17, ((1, 12), (10, 22), (23, 99))),
        ("person18_walking_d4", 18, ((1, 20),)),
    ]


def test_kth_as_distributed(kth: Path, tmp_path: Path) -> None:
    train = KTH(kth, frames=10, size=(16, 24), cache=tmp_path / "cache")
    assert [numbers(train[index])[0] for index in range(len(train))] == [0, 10, 20]
    assert train.notes == ["left out 1 clips of fewer than 10 frames: person15_boxing_d1"]
    test = KTH(kth, frames=10, split="test", size=(16, 24), cache=tmp_path / "cache")
    assert [numbers(test[index])[0] - 50 for index in range(len(test))] == [0, 9, 22]
    assert sorted(test.notes) == [
        "not there, though listed: person18_walking_d4",
        "person17_boxing_d1: frames 10-22 overlap the clip before them",
        "person17_boxing_d1: frames 23-99 reach beyond its 40 frames",
    ]
    assert KTH(kth, frames=10, size=32, cache=tmp_path / "cache")[0].shape == (10, 1, 32, 32)
    validation = KTH(kth, 10, "validation", size=(16, 24), validation_persons=[15], cache=tmp_path / "cache")
    assert torch.equal(validation[1], train[1])
    with pytest.raises(FileNotFoundError, match="none of the 0 videos"):
        KTH(kth, 10, validation_persons=[15], cache=tmp_path / "cache")


def test_broken_kth(kth: Path, tmp_path: Path) -> None:
    (kth / "boxing" / "person17_boxing_d1_uncomp.avi").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"person17_boxing_d1_uncomp\.avi: no video, or a damaged one .*; nothing"):
        KTH(kth, 10, "test", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="name some of 1 to 16"):
        KTH(kth, 10, "validation")
    with pytest.raises(ValueError, match="of the training persons"):
        KTH(kth, 10, validation_persons=[17])
    (kth / "00sequences.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no line like"):
        KTH(kth, 10)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        KTH(kth / "nowhere", 10)
    (kth / "00sequences.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither 00sequences\.txt nor \.npz clips"):
        KTH(kth, 10)


@pytest.mark.parametrize("names", ["person{}_walking_d1.npz", "folders"])
def test_kth_as_archives(tmp_path: Path, names: str) -> None:
    for person, split in ((3, "train"), (20, "test")):
        path = tmp_path / (f"{split}/clip.npz" if names == "folders" else names.format(person))
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, data=counted(20, first=person)[..., None])
    assert numbers(KTH(tmp_path, 20, size=None)[0])[0] == 3
    test = KTH(tmp_path, 10, "test", size=None)
    assert [numbers(test[index])[0] for index in range(len(test))] == [20, 30]


def test_archives_without_a_person(tmp_path: Path) -> None:
    np.savez(tmp_path / "clip.npz", counted(20))
    with pytest.raises(ValueError, match=r"clip\.npz: neither its folder tells the split nor its name the person"):
        KTH(tmp_path, 10)


def test_the_fixed_sets_are_those_made_on_the_fly(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sequences": {"train": 3, "validation": 2, "test": 2}, "size": 40, "seed": 5}
    paths = write_fixed_moving_mnist(tmp_path, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "protocol.json",
        "test.npy",
        "train.npy",
        "validation.npy",
    ]
    assert json.loads((tmp_path / "protocol.json").read_text())["frames"] == {"train": 20, "validation": 20, "test": 40}
    stored = FixedMovingMNIST(tmp_path, 40, "test")
    made = MovingMNIST("test", 2, frames=40, size=40, seed=5)
    assert len(stored) == 2
    assert torch.equal(stored[1], made[1])
    assert torch.equal(FixedMovingMNIST(tmp_path, 15, "test")[1], made[1][:15])
    paths[0].unlink()
    kept = paths[1].stat().st_mtime_ns
    write_fixed_moving_mnist(tmp_path, **options)
    assert paths[0].exists()
    assert paths[1].stat().st_mtime_ns == kept
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_fixed_moving_mnist(tmp_path, **{**options, "seed": 6})
    with pytest.raises(ValueError, match="clips are shorter than the 30 frames"):
        FixedMovingMNIST(tmp_path, 30, "train")
    with pytest.raises(FileNotFoundError, match="tt-conv data moving_mnist"):
        FixedMovingMNIST(tmp_path / "elsewhere" / "train.npy", 30)


def test_the_usual_test_file(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (20, 100, 4, 4), np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", stored)
    np.savez(tmp_path / "any.npz", input_raw_data=stored.transpose(1, 0, 2, 3)[:, :, None])
    for name in ("mnist_test_seq.npy", "any.npz"):
        data = FixedMovingMNIST(tmp_path / name, 20, "test")
        assert len(data) == 100
        np.testing.assert_array_equal((255 * data[7]).round().byte()[:, 0], stored[:, 7])
        assert data.notes[0].startswith(f"{name} is one set of sequences, the same for training, validation and test")


def test_moving_images_of_idx_files(tmp_path: Path) -> None:
    images = np.full((30, 28, 28), 7, np.uint8)
    header = bytes((0, 0, 8, 3)) + np.array(images.shape, ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    sequence = MovingMNIST("train", idx_folder=tmp_path, frames=2)[0]
    assert {round(255 * value) for value in sequence.unique().tolist()} == {0, 7}


def test_fresh_sequences_for_every_epoch() -> None:
    fixed, fresh = (MovingMNIST(length=3, frames=2, fresh=choice) for choice in (False, True))
    longer = MovingMNIST(length=9, frames=2)
    assert torch.equal(fixed.draw(1, 2), fixed[1])
    assert torch.equal(fresh.draw(1, 2), longer[7])
    assert torch.equal(fresh.draw(1, 0), fresh[1])


def test_no_clips() -> None:
    with pytest.raises(ValueError, match="there are no clips"):
        ClipWindows([], 3)
