"""The gate for what is read from files: descriptions, arrays and pictures that are refused in one line."""

import ast
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tt_conv.applications import gate
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.own_videos import load_array
from tt_conv.applications.data.picture_files import pictures_in
from tt_conv.applications.training.settings import read_settings, settings_from_dict, task_of_arguments

PACKAGE = Path(gate.__file__).parent
READERS = {
    ("torch", "load"),
    ("np", "load"),
    ("numpy", "load"),
    ("json", "load"),
    ("json", "loads"),
    ("yaml", "load"),
    ("yaml", "safe_load"),
    ("yaml", "parse"),
    ("Image", "open"),
    ("zipfile", "ZipFile"),
    ("pickle", "load"),
    ("pickle", "loads"),
}


def calls(path: Path) -> set[tuple[str, str]]:
    """Return the readers that a file calls; text that was written by ``json.dumps`` in the same breath is none."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            own = bool(node.args) and "dumps" in ast.dump(node.args[0])
            if not own:
                found.add((node.func.value.id, node.func.attr))
    return found & READERS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_gate_opens_files(path: Path) -> None:
    if path != Path(gate.__file__):
        assert not calls(path)


def refused(call: Callable[[], object], name: str, *words: str) -> None:
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
        call()
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 700
    assert ": " in said
    for word in words:
        assert word in said


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
YAML = {
    "an alias bomb": (BOMB, "line 2"),
    "an alias to itself": ("a: &a\n  b: *a\n", "line 2"),
    "deep lists": ("data: " + "[" * 2000 + "]" * 2000, "nested"),
    "deep mappings": ("{a: " * 2000 + "1" + "}" * 2000, "nested"),
    "deep blocks": ("\n".join("  " * i + "a:" for i in range(300)), "nested"),
    "infinity": ("training:\n  learning_rate: .inf\n", "training.learning_rate is inf"),
    "no number": ("training: {clip_norm: .nan}", "training.clip_norm is nan"),
    "a list for a mapping": ("data: [1, 2]", "data must be named values"),
    "text for a mapping": ("model: large", "model must be named values"),
    "a list of all": ("- data\n- model\n", ""),
    "an unknown part": ("trainig:\n  epochs: 1\n", "did you mean training?"),
    "an unknown setting": ("training:\n  epohcs: 1\n", "did you mean epochs?"),
    "an unhashable key": ("? [a]\n: 1\n", ""),
    "Python objects": ("!!python/object/apply:os.system ['true']", ""),
    "an endless number": ("training: {epochs: " + "9" * 5000 + "}", ""),
    "a task that is a list": ("task: [a]", "task"),
    "null bytes": ("a: \0", ""),
}


@pytest.mark.parametrize("damage", YAML)
def test_settings(damage: str, tmp_path: Path) -> None:
    text, words = YAML[damage]
    (tmp_path / "settings.yaml").write_text(text)
    refused(lambda: read_settings(tmp_path / "settings.yaml"), "settings.yaml", words)
    if "unknown" not in damage and damage != "a task that is a list":  # which the parser names
        refused(lambda: task_of_arguments(["--config", str(tmp_path / "settings.yaml")]), "settings.yaml", words)


def test_settings_that_are_no_text_or_too_long(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b"a: 1\n" * (1 << 18)):
        (tmp_path / "settings.yaml").write_bytes(content)
        refused(lambda: read_settings(tmp_path / "settings.yaml"), "settings.yaml")


def test_unknown_keys_from_python() -> None:
    with pytest.raises(ValueError, match="did you mean training"):
        settings_from_dict({"trainig": {"epochs": 3}})
    with pytest.raises(ValueError, match=r"training\.epoch.*did you mean epochs"):
        settings_from_dict({"training": {"epoch": 3}})


JSON = {
    "deep lists": "[" * 100_000,
    "deep and closed": "[" * 500 + "]" * 500,
    "infinity": '{"a": -Infinity}',
    "not a number": '{"a": [NaN]}',
    "too large": '{"a": 1e999}',
    "endless digits": "9" * 5000,
    "two documents": "{}{}",
    "empty": "",
}


@pytest.mark.parametrize("damage", JSON)
def test_json(damage: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(JSON[damage])
    refused(lambda: gate.read_json(tmp_path / "labels.json"), "labels.json")


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    size = len(header) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", size) + header.encode() + data


def said(shape: object, kind: str = "'<f4'") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n"


NPY = {
    "terabytes": npy(said((1 << 40, 4))),
    "more than can be counted": npy(said((1 << 62, 1 << 62))),
    "a negative size": npy(said((-4, 4)), bytes(64)),
    "a size that is no number": npy(said("('a',)"), bytes(64)),
    "a size that is a truth value": npy(said((True, 4)), bytes(64)),
    "a size without end": npy(said("(" + "9" * 5000 + ",)"), bytes(64)),
    "Python objects": npy(said((4,), "'|O'"), bytes(64)),
    "named fields": npy(said((4,), "[('a', '<f4')]"), bytes(64)),
    "text": npy(said((4,), "'<U4'"), bytes(64)),
    "complex numbers": npy(said((4,), "'<c8'"), bytes(64)),
    "times": npy(said((4,), "'<M8[s]'"), bytes(64)),
    "no such type": npy(said((4,), "'<q99'"), bytes(64)),
    "a long header": npy(" " * 60_000 + said((4,)), bytes(64)),
    "a header of 4 GB": npy(said((4,)), bytes(64), b"\x02\x00", (1 << 32) - 1),
    "a deep header": npy("(" * 5000 + ")" * 5000, bytes(64)),
    "a header that is code": npy("__import__('os').getcwd()\n", bytes(64)),
    "a header that is cut off": npy("{'descr': '<f4'", bytes(64)),
    "an unknown version": npy(said((4,)), bytes(64), b"\x09\x00"),
    "no header": b"\x93NUMPY",
    "empty": b"",
    "half": npy(said((100,)), bytes(64)),
}


def zipped(content: bytes, name: str = "a.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def patched(content: bytes, local: int, central: int, value: bytes) -> bytes:
    """Change a field in the local header and in the directory of a zip with one member."""
    changed = bytearray(content)
    start = content.index(b"PK\x01\x02")
    changed[local : local + len(value)] = value
    changed[start + central : start + central + len(value)] = value
    return bytes(changed)


WHOLE = npy(said((2, 3, 4, 4)), np.ones(96, np.float32).tobytes())
NPZ = {
    "encrypted": patched(zipped(WHOLE), 6, 8, b"\x01\x00"),
    "bzip2": zipped(WHOLE, method=zipfile.ZIP_BZIP2),
    "lzma": zipped(WHOLE, method=zipfile.ZIP_LZMA),
    "no such method": patched(zipped(WHOLE), 8, 10, b"\x63\x00"),
    "a wrong checksum": patched(zipped(WHOLE), 14, 16, b"abcd"),
    "a size of 4 GB": patched(zipped(WHOLE), 22, 24, b"\xfe\xff\xff\xff"),
    "half": zipped(WHOLE)[:60],
    "no directory": b"PK\x03\x04" + bytes(100),
    "no array": zipped(b"text", "readme.txt"),
    **{f"{name} in it": zipped(content) for name, content in NPY.items()},
}


@pytest.mark.parametrize(("ending", "damage"), [*(("npy", k) for k in NPY), *(("npz", k) for k in NPZ)])
def test_arrays(ending: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"frames.{ending}"
    path.write_bytes((NPY if ending == "npy" else NPZ)[damage])
    with pytest.raises(UnusableFile) as error:
        load_array(path, path.name, None)
    assert error.value.name == path.name
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_arrays_that_are_whole(tmp_path: Path) -> None:
    for name, content in {"a.npy": WHOLE, "a.npz": zipped(WHOLE), "b.npz": zipped(WHOLE, method=0)}.items():
        (tmp_path / name).write_bytes(content)
        array, mapped = load_array(tmp_path / name, name, None)
        assert (array.shape, mapped) == ((2, 3, 4, 4), name == "a.npy")
        assert bool((array == 1).all())


def test_a_zip_bomb_is_held_against_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_free_memory", lambda: 1 << 20)
    (tmp_path / "bomb.npz").write_bytes(zipped(npy(said((1 << 20,)), bytes(1 << 22))))
    refused(lambda: gate.read_npz(tmp_path / "bomb.npz"), "bomb.npz", "4,194,", "1,048,576 are free")


def png(width: int, height: int) -> bytes:
    """A picture of zeros that claims its size, compressed to almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


BITMAP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6)
PICTURES = {
    "a bomb of 4 gigapixels": ("png", png(65_500, 65_500)),
    "a bomb that Pillow only warns of": ("png", png(10_000, 10_000)),
    "pixels that are not there": ("png", png(100, 100)),
    "no size": ("png", png(0, 100)),
    "a bomb in a bitmap": (
        "bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6),
    ),
    "text": ("png", b"text"),
    "empty": ("jpg", b""),
}


@pytest.mark.parametrize("damage", PICTURES)
def test_pictures(damage: str, tmp_path: Path) -> None:
    ending, content = PICTURES[damage]
    path = tmp_path / f"frame.{ending}"
    path.write_bytes(content)
    refused(lambda: pictures_in(path), f"frame.{ending}", "pixels" if "bomb" in damage else "")


def test_pictures_with_turned_or_many_pages_are_bombs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for ending in ("gif", "webp", "png", "jpg"):
        path = tmp_path / f"frame.{ending}"
        Image.new("RGB", (20, 20)).save(path)
        refused(lambda path=path: pictures_in(path), path.name, "pixels")


def test_labels_of_one_wrong_value_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"a": "0"} | {f"b{i}": [i] for i in range(100)}))
    from tt_conv.applications.recognition.data.something_something import read_labels

    refused(lambda: read_labels(tmp_path / "labels.json"), "labels.json")
