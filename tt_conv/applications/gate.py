"""Everything that is read from files comes through here: checked before it is believed, refused in one line.

A refusal is a ``ValueError`` that names the file, the place in it and a remedy. Sizes that a file only claims are
held against its own length and against the memory that is free before anything of that size is made.
"""

import json
import math
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST = 64
"""Levels of lists and mappings in a description; ours have four."""

LARGEST_TEXT = 1 << 28
"""Bytes of a JSON file; the labels of 220,000 clips are 20 MB."""

LARGEST_YAML = 1 << 20
"""Bytes of a YAML file: settings are two pages."""

_UNREADABLE = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
    EOFError,
    SyntaxError,
    TokenError,
    NotImplementedError,
    AssertionError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What libraries raise on content that is not what they expect; never ``OSError``, which names the file itself."""


def one_line(error: BaseException) -> str:
    """Return the first 300 characters of an error's words on one line."""
    words = " ".join(str(error).split())[:300]
    return words or type(error).__name__


def problem_of(path: object, error: Exception) -> str:
    """Return what is wrong with a file without its name and the remedy, for those who say both in their own way."""
    words = one_line(error).removeprefix(str(path)).removeprefix(":").strip()
    return words.rpartition(": ")[0] or words if str(error).startswith(str(path)) else words


def nearest(word: str, known: Any) -> str:
    """Return ``; did you mean ...?`` for the known name that a word resembles most, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_memory(path: object, size: int, what: str = "it") -> None:
    """Refuse to make something of so many bytes if less memory is free."""
    free = _free_memory()
    if free is not None and size > free:
        raise ValueError(f"{path}: {what} needs {size:,} bytes, and {free:,} are free: give a smaller file")


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None  # not on Linux: nothing tells it portably


# Weights.


def read_torch(path: Path | str) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain values, from an archive whose checksums are right.

    Raises
    ------
    FileNotFoundError, OSError
        If it cannot be opened.
    ValueError
        If it is no such file, is damaged, or holds tensors that are not ordinary ones.
    """
    import torch  # here, since settings are read without it

    path = Path(path)
    with path.open("rb") as file:  # for the plain error of a file that is missing or may not be read
        is_archive = file.read(2) == b"PK"
    if is_archive:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is no checkpoint, before it is refused
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, OSError) as error:
        # PyTorch's own words advise to load it all the same, which runs what it holds.
        if is_archive and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} holds Python objects beside tensors and plain values; they could run any code and are not "
                "loaded: save a state dict instead, torch.save(model.state_dict(), path)"
            ) from error
        raise ValueError(f"{path} is no checkpoint, or a damaged one: give another file") from error
    _check_tensors(path, contents)
    return contents


def _check_archive(path: Path) -> None:
    """Hold every record of an archive of ``torch.save`` against its checksum; PyTorch itself does not."""
    remedy = "give another copy of the file"
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
                raise ValueError(f"{path} is no checkpoint: its records are compressed or encrypted: {remedy}")
            if sum(record.file_size for record in records) > path.stat().st_size:
                raise ValueError(f"{path} is damaged: its records are larger than the file: {remedy}")
            damaged = archive.testzip()
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is no checkpoint, or a damaged one ({one_line(error)}): {remedy}") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: its record {damaged} does not have its checksum: {remedy}")


def _check_tensors(path: Path | str, contents: Any) -> None:
    """Refuse tensors without values of their own, wherever they are: they are lists, mappings or tensors themselves."""
    from torch import Tensor

    waiting: list[tuple[str, Any]] = [("", contents)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            if (reason := _not_ordinary(value)) is not None:
                raise ValueError(f"{path}: the tensor {name or 'in it'} {reason}: give a file with ordinary tensors")
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{name}.{str(key)[:80]}" if name else str(key)[:80], part) for key, part in items]


def _not_ordinary(value: "Tensor") -> str | None:
    """Say what keeps a tensor from being weights; nothing is computed with it for that."""
    import torch

    if value.is_nested or value.layout != torch.strided:
        return f"has the layout {value.layout}"
    if value.device.type == "meta":
        return "is on the meta device and has no values"
    if value.is_quantized:
        return f"is quantized ({value.dtype})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"repeats its values over a shape of {tuple(value.shape)}"
    return None


def check_weights(path: Path | str, weights: Mapping[Any, Any]) -> None:
    """Refuse weights that no network can have: names that are no names, types that are no numbers, infinities."""
    import torch

    for name, value in weights.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > 1000:
            raise ValueError(f"{path}: {str(name)[:40]!r} is no name of a weight: give a state dict")
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: the weight {name} is a {type(value).__name__}: give ordinary tensors")
        if (reason := _not_ordinary(value)) is not None:
            raise ValueError(f"{path}: the weight {name} {reason}: give a file with ordinary tensors")
        if value.is_complex() or (value.is_floating_point() and value.element_size() < 2):
            raise ValueError(f"{path}: the weight {name} is {value.dtype}: give weights of real floating-point types")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: the weight {name} has entries that are not finite: give another checkpoint")


# Descriptions.


def read_json(path: Path | str, remedy: str = "mend it, or give another file") -> Any:
    """Read JSON: no deeper than :data:`DEEPEST`, every number finite.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        With the file's name, if it is not such a file.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for a description: {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: not a JSON file ({one_line(error)}): {remedy}") from error
    _check_description(path, content)
    return content


def read_yaml(path: Path | str) -> Any:
    """Read YAML: one document without aliases; otherwise as :func:`read_json`."""
    import yaml

    path = Path(path)
    remedy = "mend it, or give another file"
    if path.stat().st_size > LARGEST_YAML:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for settings: {remedy}")
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {_line_of(event)} refers to another part, *{event.anchor}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"line {_line_of(event)} is nested more than {DEEPEST} levels deep")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise ValueError(f"{path} is no YAML file of settings ({one_line(error)}): {remedy}") from error
    _check_description(path, content)
    return content


def _line_of(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _check_description(path: Path, content: Any) -> None:
    """Refuse what is nested without end, and numbers that are none."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        if len(place) > DEEPEST:
            raise ValueError(f"{path} is nested more than {DEEPEST} levels deep: mend it, or give another file")
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*place, str(key)[:80]), part) for key, part in items]
        elif isinstance(value, float) and not math.isfinite(value):
            name = ".".join(place) or "it"
            raise ValueError(f"{path}: {name} is {value}: give a finite number")


# Arrays.


def read_npy(path: Path | str, *, mapped: bool = False) -> NDArray:
    """Read the array of numbers in a ``.npy`` file; with ``mapped`` it stays on the disk."""
    path = Path(path)
    with path.open("rb") as file:
        array_type, shape, _ = _header(path, file)
        size, held = math.prod(shape) * array_type.itemsize, path.stat().st_size - file.tell()
        if size > held:
            raise ValueError(
                f"{path}: its header claims {shape} {array_type}, but {held:,} bytes follow: give another file"
            )
    if not mapped:
        check_memory(path, size)
    with _named_refusals(path):
        array: NDArray = np.load(path, mmap_mode="r" if mapped and size else None, allow_pickle=False)
    return array


def read_npz(source: Path | IO[bytes], name: object = None) -> dict[str, NDArray]:
    """Read the arrays in a ``.npz`` file; ``name`` is what messages call it, by default its path."""
    name = source if name is None else name
    found = {}
    with _named_refusals(name), zipfile.ZipFile(source) as archive:
        records = archive.infolist()
        for record in records:
            if record.flag_bits & 1:
                raise ValueError(f"{name}: {record.filename} is encrypted: write it with numpy.savez")
            if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name}: {record.filename} is compressed oddly: write it with numpy.savez")
        check_memory(name, sum(record.file_size for record in records), "its content")
        for record in records:
            if not record.filename.endswith(".npy"):
                continue
            place = f"{name}: {record.filename}"
            with archive.open(record) as file:
                array_type, shape, _ = _header(place, file)
                size, held = math.prod(shape) * array_type.itemsize, record.file_size - file.tell()
                if size != held:
                    raise ValueError(
                        f"{place}: its header claims {shape} {array_type}, but {held:,} bytes follow: give another file"
                    )
            with archive.open(record) as file:
                found[record.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # to the end, where the checksum is looked at
    return found


def _too_short(name: object, shape: tuple[int, ...], array_type: np.dtype, held: int) -> str:
    return f"{name}: its header claims {shape} {array_type}, but {held:,} bytes follow: give another file"


def _header(place: object, file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Read the header of an array; the file stands behind it afterwards."""
    with _named_refusals(place):
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"version {version} of the format has named fields")
        shape, order, array_type = readers[version](file)
        if array_type.hasobject:
            raise ValueError("it holds Python objects")
        if array_type.kind not in "biuf" or any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"it holds {array_type} {shape}, no array of numbers")
    return array_type, shape, order


@contextmanager
def _named_refusals(name: object) -> Iterator[None]:
    """Name the file in what goes wrong while an array is read."""
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, ValueError) and str(error).startswith(str(name)):
            raise
        words = one_line(error)
        # NumPy's words on pickles advise to load them all the same, which runs what they hold.
        if "pickle" in words or "Python objects" in words or "magic string" in words:
            words = "it holds Python objects, or no array at all"
        raise ValueError(f"{name}: not a readable array file ({words}): give another file") from error


# Pictures.


@contextmanager
def picture(path: Path | str) -> Iterator[Any]:
    """Open a picture; one of more pixels than Pillow thinks safe is refused, also while it is decoded."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as opened:
                yield opened
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            raise ValueError(f"{path}: too many pixels for a frame ({one_line(error)}): make it smaller") from error


# Room on the disk.


def reserve(path: Path | str) -> None:
    """Make sure of the room for a file that is mapped: without it, writing to the map would end the process.

    Raises
    ------
    OSError
        If the disk has no room.
    """
    path = Path(path)
    size = path.stat().st_size
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {size:,} bytes are needed", str(path)) from error
