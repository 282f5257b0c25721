"""Damaged files are refused, sound ones never."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.applications.data.files import CODECS, scene, write
from tests.fuzz_video_files import fuzz
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.recognition.data import VideoClips
from tt_conv.applications.video_prediction.data import OwnVideos, read_video


@pytest.mark.parametrize("ending", sorted(CODECS))
def test_damaged_files_are_refused_or_read_whole(tmp_path: Path, ending: str) -> None:
    """Four places of each kind; all 20: ``python tests/fuzz_video_files.py``."""
    counts = fuzz(tmp_path, ending, places=4, seed=1)
    assert {what for _, what in counts} <= {"refused", "the same"}, counts
    assert counts["cut off", "refused"] == 4


def test_every_reader_refuses_them(tmp_path: Path) -> None:
    video = write(tmp_path / "a.mkv", scene(30))
    content = video.read_bytes()
    (tmp_path / "b.mkv").write_bytes(content[:5000] + bytes(1024) + content[6024:])
    options = {"cache": tmp_path / "cache", "broken": "skip"}
    assert [clip.name for clip in OwnVideos(tmp_path, 5, "all", **options).clips] == ["a.mkv"]
    clips = VideoClips([video, tmp_path / "b.mkv"], [0, 0], ["walk"], 4, **options)
    assert [path.name for path in clips.videos] == ["a.mkv"]


SOUND = {
    "b_frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "b_frames.ts": {"options": {"bf": "3", "g": "12"}},
    "open_gop.mkv": {"options": {"x264-params": "open-gop=1:keyint=10:bframes=2"}},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "8"}},
    "faststart.mp4": {"container": {"movflags": "faststart"}},
    "no_edit_list.mp4": {"container": {"use_editlist": "0"}},
    "live.mkv": {"container": {"live": "1"}},
    "live.webm": {"container": {"live": "1"}},
    "no_duration.flv": {"container": {"flvflags": "no_duration_filesize"}},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "motion.avi": {"codec": "mjpeg"},
    "lossless.mkv": {"codec": "ffv1"},
    "raw.avi": {"codec": "rawvideo"},
    "mpeg4_b.avi": {"options": {"bf": "2"}},
    "vp8.webm": {"codec": "libvpx"},
    "theora.ogv": {"codec": "libtheora"},
    "wm.wmv": {"codec": "wmv2"},
    "phone.3gp": {"codec": "mpeg4"},
    "disc.m2ts": {"codec": "libx264"},
    "changing.mp4": {"times": [0, 1, 2, 30, 31, 90, 91, 92, 300, 301, 302, 303]},
    "changing.mkv": {"times": [0, 1, 2, 30, 31, 90, 91, 92, 300, 301, 302, 900]},
    "changing.webm": {"times": [0, 1, 2, 30, 31, 90, 91, 92, 300, 301, 302, 900]},
    "changing.flv": {"times": [0, 1, 2, 30, 31, 90, 91, 92, 300, 301, 302, 303]},
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("black", [False, True])
def test_sound_files_are_read(tmp_path: Path, name: str, black: bool) -> None:
    frames = scene(12) if not black else np.zeros((12, 96, 128, 3), np.uint8)
    try:
        video = write(tmp_path / name, frames, **SOUND[name])
    except av.error.FFmpegError:
        pytest.skip("this FFmpeg has no such encoder")
    except ValueError as error:
        pytest.skip(str(error))
    assert len(read_video(video)) == 12
    assert VideoClips([video], [0], ["walk"], 3, cache=tmp_path, broken="refuse")[0][0].shape[0] == 3


def test_an_edit_list_hides_frames(tmp_path: Path) -> None:
    """What a phone's trimming cut away is in the file, not in the film (ISO/IEC 14496-12, 8.6.6)."""
    video = write(tmp_path / "a.mov", scene(12), codec="mjpeg")
    content = bytearray(video.read_bytes())
    place = content.index(b"elst")
    scale = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4], "big")
    movie = int.from_bytes(content[content.index(b"mvhd") + 16 :][:4], "big")
    content[place + 12 : place + 20] = (8 * movie // 25).to_bytes(4, "big") + (4 * scale // 25).to_bytes(4, "big")
    video.write_bytes(content)
    with av.open(str(video)) as container:
        expected = len([*container.decode(video=0)])
    assert expected == 8
    assert len(read_video(video)) == 8


def test_sound_beside_the_pictures_may_be_longer(tmp_path: Path) -> None:
    for ending, codec in ((".mp4", "aac"), (".mkv", "aac"), (".flv", "aac"), (".ts", "aac"), (".avi", "mp2")):
        with av.open(str(tmp_path / f"a{ending}"), "w") as output:
            stream = output.add_stream(CODECS[ending], rate=25)
            sound = output.add_stream(codec, rate=44100)
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
            for pixels in scene(10):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
            for number in range(100):
                kind = "s16" if codec == "mp2" else "fltp"
                silence = np.zeros((1, 1152), np.int16 if codec == "mp2" else np.float32)
                heard = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 44100, 1152 * number, Fraction(1, 44100)
                output.mux(sound.encode(heard))
            output.mux(sound.encode(None))
        assert len(read_video(tmp_path / f"a{ending}")) == 10


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("kind", ["zeros", "cut off"])
def test_damaged_pictures(tmp_path: Path, ending: str, kind: str) -> None:
    for number, pixels in enumerate(scene(3)):
        Image.fromarray(pixels).save(tmp_path / f"{number}{ending}")
    assert OwnVideos(tmp_path, 3, "all")[0].shape == (3, 3, 96, 128)
    content = (tmp_path / f"1{ending}").read_bytes()
    if kind == "zeros" and ending == ".tif":
        pytest.skip("pixels without compression may be zeros")
    middle = len(content) // 2
    damaged = content[:middle] + (bytes(1024) + content[middle + 1024 :] if kind == "zeros" else b"")
    (tmp_path / f"1{ending}").write_bytes(damaged)
    with pytest.raises(UnusableFile, match=rf"1\{ending}: "):
        OwnVideos(tmp_path, 3, "all")
