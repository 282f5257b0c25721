"""IDX files, video files, and the cache of decoded videos."""

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tt_conv.applications.data.cache import cache_folder, decoded_file
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.video_prediction.data import idx_digits, read_idx, read_video, write_video


def gradient(frames: int = 9, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A smooth picture that drifts: what codecs keep."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(120 + 80 * np.sin((rows + columns + 2 * t) / 9)).astype(np.uint8) for t in range(frames)])


def idx(values: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx(tmp_path: Path, pack: object) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "file").write_bytes(pack(idx(values)))
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), values)


def test_idx_of_other_types(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0]], ">f4")
    (tmp_path / "file").write_bytes(bytes((0, 0, 13, 2)) + np.array([1, 2], ">u4").tobytes() + values.tobytes())
    assert read_idx(tmp_path / "file").tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file"),
        (b"hello world", "no IDX file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"tells of 18 bytes \(shape \(2, 3\)\), it has 17"),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_a_broken_idx_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(tmp_path / "train-images-idx3-ubyte")
    assert "train-images-idx3-ubyte" in str(error.value)


def test_digits_from_idx_files(tmp_path: Path) -> None:
    train = np.arange(20, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(train)))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(train[:3] + 100))
    assert idx_digits(tmp_path, "train")[:, 0, 0].tolist() == [*range(18)]
    assert idx_digits(tmp_path, "validation")[:, 0, 0].tolist() == [18, 19]
    assert idx_digits(tmp_path, "test")[:, 0, 0].tolist() == [100, 101, 102]
    with pytest.raises(FileNotFoundError, match="holds neither train-images-idx3-ubyte nor"):
        idx_digits(tmp_path / "elsewhere", "train")


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("mjpeg.avi", "mjpeg", "yuvj420p"),
        ("h264.mp4", "libx264", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("lossless.avi", "ffv1", "gray"),
    ],
)
def test_videos_come_back(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    frames = gradient()
    write_video(tmp_path / name, frames, codec=codec, pixel_format=pixel_format)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    gray = read_video(tmp_path / name, channels=1)
    assert gray.shape == (9, 32, 48, 1)
    assert np.abs(gray[..., 0].astype(int) - frames).mean() < 4
    # Each frame is closest to the one that was written at its place.
    distances = np.abs(gray[:, None, ..., 0].astype(int) - frames).mean(axis=(2, 3))
    assert distances.argmin(axis=1).tolist() == [*range(9)]
    expected = 1 if pixel_format == "gray" else 3
    assert read_video(tmp_path / name, frames=2).shape == (2, 32, 48, expected)
    assert read_video(tmp_path / name, size=(16, 24), channels=3).shape == (9, 16, 24, 3)


def test_colours_and_odd_sides(tmp_path: Path) -> None:
    frames = np.zeros((4, 15, 31, 3), np.uint8)
    frames[..., 0] = 200
    write_video(tmp_path / "red.mp4", frames)
    back = read_video(tmp_path / "red.mp4")
    assert back.shape == (4, 16, 32, 3)
    np.testing.assert_allclose(back.mean(axis=(0, 1, 2)), [200, 0, 0], atol=12)


def test_a_gif(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in gradient(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    assert np.abs(read_video(tmp_path / "a.gif", channels=1)[..., 0].astype(int) - gradient(4)).max() <= 3


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(UnusableFile, match=r"a\.avi: no video, or a damaged one .*: replace it, or leave it out"):
        read_video(tmp_path / "a.avi")
    with pytest.raises(FileNotFoundError):
        read_video(tmp_path / "b.avi")


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("a.avi", np.zeros((0, 8, 8), np.uint8), "expected frames"),
        ("a.avi", np.zeros((3, 8, 8)), "of bytes"),
        ("a.xyz", np.zeros((3, 8, 8), np.uint8), "the name may end in"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, frames: NDArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames)
    assert not [*tmp_path.iterdir()]


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, cache = tmp_path / "a.avi", tmp_path / "cache"
    write_video(video, gradient())
    path = decoded_file(video, cache, size=(16, 24), channels=1)
    stored = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(stored, read_video(video, size=(16, 24), channels=1))
    before = path.stat().st_mtime_ns
    assert decoded_file(video, cache, size=(16, 24), channels=1) == path
    assert path.stat().st_mtime_ns == before
    assert decoded_file(video, cache, size=(8, 12), channels=1) != path
    os.utime(video, ns=(1, 1))
    assert decoded_file(video, cache, size=(16, 24), channels=1) != path
    (tmp_path / "b.avi").write_bytes(b"broken")
    held = len([*cache.iterdir()])
    with pytest.raises(UnusableFile):
        decoded_file(tmp_path / "b.avi", cache, size=None, channels=None)
    assert len([*cache.iterdir()]) == held
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "tt-conv" / "videos"


@pytest.mark.parametrize("name", ["mpeg4.avi", "mjpeg.avi", "h264.mp4", "vp9.webm", "h264.mkv", "picture.gif"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_video_that_was_cut_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """FFmpeg gives the first frames of some of them without a word."""
    whole, cut = tmp_path / name, tmp_path / f"cut_{name}"
    frames = gradient(40)
    if name.endswith("gif"):
        pictures = [Image.fromarray(frame) for frame in frames]
        pictures[0].save(whole, save_all=True, append_images=pictures[1:], duration=100)
    else:
        write_video(
            whole,
            frames,
            codec="mjpeg" if "mjpeg" in name else None,
            pixel_format="yuvj420p" if "mjpeg" in name else None,
        )
    assert len(read_video(whole)) == 40
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnusableFile, match=f"cut_{name}: (cut off|broken after|no video, or a damaged one)"):
        read_video(cut)


def test_a_gif_without_delays_is_refused(tmp_path: Path) -> None:
    """FFmpeg reads all its images as one."""
    pictures = [Image.fromarray(frame) for frame in gradient(5)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    content = re.sub(rb"!\xf9\x04....\x00", b"", (tmp_path / "a.gif").read_bytes(), flags=re.DOTALL)
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(UnusableFile, match=r"its 5 images state no delays, so they are read as 1: .*duration"):
        read_video(tmp_path / "a.gif")


def test_a_video_that_lost_frames_inside_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", gradient(40))
    content = bytearray((tmp_path / "a.avi").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 12000] = np.random.default_rng(0).bytes(12000)
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(UnusableFile, match=r"a\.avi: (damaged|cut off|broken after)"):
        read_video(tmp_path / "a.avi")
