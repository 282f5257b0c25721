"""Frames are read as players show them: turned, mirrored, in square pixels, from the stream that is the film."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.applications.data.files import corners, quarters, set_matrix, write
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.recognition.data import ClassFolders, read_clip
from tt_conv.applications.video_prediction.data import OwnVideos, read_video

# EXIF 2.3, orientation: the stored top row and left column are shown at ...; NumPy on the right.
SHOWN = {
    1: lambda picture: picture,
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture.T, 2),
    8: lambda picture: np.rot90(picture, 1),
}
# ISO/IEC 14496-12: pixel (x, y) is shown at (a x + c y, b x + d y), y downwards.
MATRICES = {
    (1, 0, 0, 1): 1,
    (0, 1, -1, 0): 6,
    (-1, 0, 0, -1): 3,
    (0, -1, 1, 0): 8,
    (-1, 0, 0, 1): 2,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, -1, -1, 0): 7,
}


def film(frames: int = 6) -> NDArray[np.uint8]:
    return corners()[None, :, :, None].repeat(frames, 0).repeat(3, 3)


@pytest.mark.parametrize(("matrix", "orientation"), MATRICES.items())
@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_display_matrices(tmp_path: Path, matrix: tuple[int, ...], orientation: int, ending: str) -> None:
    video = set_matrix(write(tmp_path / f"phone{ending}", film()), matrix)
    expected = SHOWN[orientation](corners())
    shown = read_video(video)
    assert shown.shape == (6, *expected.shape, 3)
    assert quarters(shown[0]) == quarters(expected)
    data = OwnVideos(video, 6, "all", channels=1, cache=tmp_path / "cache")
    assert data[0].shape == (6, 1, *expected.shape)
    assert quarters(255 * data[0][3, 0].numpy()) == quarters(expected)
    assert any("as the file says that they are shown" in note for note in data.notes) == (orientation != 1)
    again = OwnVideos(video, 6, "all", channels=1, cache=tmp_path / "cache")  # decoded before
    assert again.notes == data.notes
    clip = read_clip(video, 3, size=24, channels=1)
    assert quarters(255 * clip[0, 0].numpy()) == quarters(expected)


@pytest.mark.parametrize("ending", [".mkv", ".webm"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_projections_of_matroska(tmp_path: Path, ending: str, degrees: int) -> None:
    video = write(tmp_path / f"a{ending}", film(), rotation=degrees)  # counterclockwise
    assert quarters(read_video(video)[0]) == quarters(np.rot90(corners(), degrees // 90))


def test_other_angles_are_refused(tmp_path: Path) -> None:
    video = write(tmp_path / "a.mp4", film(), rotation=30)
    with pytest.raises(UnusableFile, match=r"turned by (29|30) degrees: write it anew with upright frames"):
        read_video(video)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_orientations_of_pictures(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    for name in ("1", "2"):
        if ending == ".tif":
            tag = [(274, "H", 1, orientation, True)]
            tifffile.imwrite(tmp_path / f"{name}.tif", corners(), extratags=tag)
        else:
            Image.fromarray(corners()).save(tmp_path / f"{name}{ending}", exif=exif)
    expected = SHOWN[orientation](corners())
    data = OwnVideos(tmp_path, 2, "all", channels=1)
    assert data[0].shape[2:] == expected.shape
    assert quarters(255 * data[0][1, 0].numpy()) == quarters(expected)
    assert len(data.notes) == (orientation != 1)


def test_square_pixels(tmp_path: Path) -> None:
    video = write(tmp_path / "wide.mkv", film(), aspect=(2, 1))
    data = OwnVideos(video, 6, "all", cache=tmp_path / "cache")
    assert data[0].shape == (6, 3, 32, 96)
    assert data.notes == ["wide.mkv: pixels of 2:1 are made square: 32 x 96"]
    turned = write(tmp_path / "turned.mp4", film(), aspect=(4, 3), rotation=90)
    assert read_video(turned).shape == (6, 64, 32, 3)  # wider before it is turned


def test_nothing_is_squeezed_or_cropped_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "set" / "walk").mkdir(parents=True)
    write(tmp_path / "set" / "walk" / "a.mp4", film())
    own = OwnVideos(tmp_path / "set", 6, "all", size=32, cache=tmp_path / "cache")
    assert own.notes == [
        "walk/a.mp4: frames of 32 x 48 pixels are squeezed to 32 x 32: 32 x 48 keeps their proportions"
    ]
    assert OwnVideos(tmp_path / "set", 6, "all", size=(16, 24), cache=tmp_path / "cache").notes == []
    np.save(tmp_path / "a.npy", np.zeros((6, 32, 48), np.uint8))
    assert "squeezed to 32 x 32" in OwnVideos(tmp_path / "a.npy", 6, "all", size=32).notes[-1]
    folders = ClassFolders(tmp_path / "set", 3, size=32, cache=tmp_path / "cache")
    assert "a.mp4: of frames of 32 x 48 pixels 33 % of their width is cropped" in folders.notes
    notes: list[str] = []
    read_clip(tmp_path / "set" / "walk" / "a.mp4", 3, size=32, notes=notes)
    assert notes == ["of frames of 32 x 48 pixels 33 % of their width is cropped"]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".avi", ".ts"])
@pytest.mark.parametrize("frames", [1, 6])
def test_a_preview_before_the_film(tmp_path: Path, ending: str, frames: int) -> None:
    preview = np.full((frames, 16, 16, 3), 255, np.uint8)
    codec = "mpeg4" if ending == ".avi" else "libx264"
    video = write(tmp_path / f"a{ending}", preview, film(), codec=codec)
    data = OwnVideos(video, 6, "all", cache=tmp_path / "cache")
    assert data[0].shape == (6, 3, 32, 48)
    assert quarters(255 * data[0][0].numpy().transpose(1, 2, 0)) == [20, 90, 160, 230]
    assert data.notes == [f"a{ending}: stream 1 of 2 video streams is taken, of 32 x 48 pixels"]


def test_a_large_still_before_the_film(tmp_path: Path) -> None:
    video = write(tmp_path / "a.mp4", np.full((1, 128, 128, 3), 255, np.uint8), film())
    assert read_video(video).shape == (6, 32, 48, 3)


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    """The cover is marked as such in MP4 by where it lies: moov/udta/meta/ilst/covr. FFmpeg makes a stream of it."""
    import av
    from av.stream import Disposition

    def cover_of(path: Path, *films: NDArray[np.uint8]) -> Path:
        with av.open(str(path), "w") as output:
            picture = output.add_stream("mjpeg", rate=25)
            picture.height, picture.width, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            streams = [output.add_stream("libx264", rate=25) for _ in films]
            sound = output.add_stream("aac", rate=44100)
            for stream in streams:
                stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            bright = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255, np.uint8), format="rgb24")
            output.mux([packet for frame in (bright, None) for packet in picture.encode(frame)])
            for stream, pixels in zip(streams, films, strict=True):
                for frame in pixels:
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
                output.mux(stream.encode(None))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44100, 0
            output.mux(sound.encode(silence))
            output.mux(sound.encode(None))
        return path

    assert read_video(cover_of(tmp_path / "film.mp4", film())).shape == (6, 32, 48, 3)
    with pytest.raises(UnusableFile, match="it holds a cover picture, but no film: leave it out"):
        read_video(cover_of(tmp_path / "song.mp4"))
