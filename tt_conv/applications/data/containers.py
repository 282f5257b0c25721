"""Whether a video file is whole, by the structure of its container.

FFmpeg searches for the next thing that it can read where a file is damaged, and takes its end for the end of the
video where it was cut off: frames are missing then, without an error. Containers state the length of everything they
hold, so a walk from one part to the next finds both. Only headers are read, no pictures.
"""

import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class _Damaged(Exception):
    """What is wrong, in words that follow the name of the file."""


def damage(path: Path, formats: str) -> str | None:
    """What is wrong with the structure of a video file; ``None`` if nothing is, or nothing is known of its kind.

    Parameters
    ----------
    path : Path
    formats : str
        FFmpeg's name of the container, such as ``"matroska,webm"``.

    Returns
    -------
    str or None
    """
    walks = [_WALKS[name] for name in formats.split(",") if name in _WALKS]
    if not walks or not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            walks[0](data)
        except _Damaged as error:
            return str(error)
    return None


def _require_end(end: int, data: mmap.mmap, what: str) -> None:
    if end > len(data):
        raise _Damaged(f"cut off: {what} ends at byte {end:,}, the file at {len(data):,}")


def _is_padding(data: mmap.mmap, start: int) -> bool:
    """Whether nothing but zeros follow: recorders and discs fill up sectors."""
    return not data[start:].strip(b"\0")


# Matroska and WebM: RFC 8794 (EBML), RFC 9559.
class _Element(NamedTuple):
    identity: int
    start: int  # of its content
    end: int | None  # None: not stated, as in what was written while it was recorded


_SEGMENT, _CLUSTER, _VOID, _CRC = 0x18538067, 0x1F43B675, 0xEC, 0xBF
_BLOCK_GROUP, _BLOCKS = 0xA0, (0xA1, 0xA3)
_IN_SEGMENT = {
    0x114D9B74,  # SeekHead
    0x1549A966,  # Info
    0x1654AE6B,  # Tracks
    0x1C53BB6B,  # Cues
    0x1043A770,  # Chapters
    0x1254C367,  # Tags
    0x1941A469,  # Attachments
    _CLUSTER,
    _VOID,
    _CRC,
}
_IN_CLUSTER = {0xE7, 0xA7, 0xAB, 0xA3, _BLOCK_GROUP, 0x5854, 0xAF, _VOID, _CRC}


def _element(data: mmap.mmap, place: int) -> _Element:
    head = data[place : place + 12]
    width = 9 - head[0].bit_length() if head else 9
    length = 9 - head[width].bit_length() if width <= 4 and len(head) > width else 9
    if length > 8 or width + length > len(head):
        raise _Damaged(f"no element of Matroska at byte {place:,}")
    size = int.from_bytes(head[width : width + length], "big") & ((1 << 7 * length) - 1)
    start = place + width + length
    unknown = size == (1 << 7 * length) - 1
    return _Element(int.from_bytes(head[:width], "big"), start, None if unknown else start + size)


def _matroska(data: mmap.mmap) -> None:
    place = 0
    while place < len(data):
        element = _element(data, place)
        if element.identity == _SEGMENT:
            _segment(data, element)
            return  # what follows the segment is no part of the video
        if element.end is None:
            raise _Damaged(f"an element without a length at byte {place:,}")
        place = element.end
    raise _Damaged("cut off before its first frame")


def _segment(data: mmap.mmap, segment: _Element) -> None:
    place, end = segment.start, segment.end or len(data)
    _require_end(end, data, "its segment")
    while place < end:
        element = _element(data, place)
        if element.identity not in _IN_SEGMENT:
            raise _Damaged(f"damaged at byte {place:,}: no part of a Matroska segment is there")
        if element.identity == _CLUSTER:
            place = _cluster(data, element, end)
            continue
        if element.end is None or element.end > end:
            raise _Damaged(f"damaged at byte {place:,}: a part that is longer than the file")
        place = element.end


def _cluster(data: mmap.mmap, cluster: _Element, end: int) -> int:
    place, stated = cluster.start, cluster.end
    if stated is not None and stated > end:
        raise _Damaged(f"cut off: a cluster ends at byte {stated:,}, the file at {end:,}")
    while place < (stated or end):
        element = _element(data, place)
        if stated is None and element.identity in _IN_SEGMENT - _IN_CLUSTER:
            return place
        if element.identity not in _IN_CLUSTER or element.end is None or element.end > (stated or end):
            raise _Damaged(f"damaged at byte {place:,}, within a cluster")
        if element.identity == _CRC and stated is not None and place == cluster.start:
            if zlib.crc32(data[element.end : stated]) != int.from_bytes(data[element.start : element.end], "little"):
                raise _Damaged(f"damaged between bytes {element.end:,} and {stated:,}: a checksum is wrong")
        elif element.identity in _BLOCKS:
            _block(data, element)
        elif element.identity == _BLOCK_GROUP:
            inner = element.start
            while inner < element.end:
                part = _element(data, inner)
                if part.end is None or part.end > element.end:
                    raise _Damaged(f"damaged at byte {inner:,}, within a block")
                if part.identity in _BLOCKS:
                    _block(data, part)
                inner = part.end
        place = element.end
    return place


def _block(data: mmap.mmap, block: _Element) -> None:
    if block.end is None or block.end - block.start < 4 or not data[block.start]:
        raise _Damaged(f"damaged at byte {block.start:,}: a block of no track")


# Adobe Flash Video File Format Specification 10.1, annex E.
def _flv(data: mmap.mmap) -> None:
    if len(data) < 9:
        raise _Damaged("cut off within its header")
    place = int.from_bytes(data[5:9], "big") + 4
    while place < len(data):
        if _is_padding(data, place):
            return
        head = data[place : place + 11]
        size = int.from_bytes(head[1:4], "big")
        if len(head) == 11 and (head[0] & 0x1F not in (8, 9, 18) or head[8:11] != b"\0\0\0"):
            raise _Damaged(f"damaged at byte {place:,}: no tag of Flash Video is there")
        end = place + 11 + size
        _require_end(end if len(head) == 11 else place + 11, data, "its last tag")
        stated = int.from_bytes(data[end : end + 4], "big")
        if end + 4 <= len(data) and stated not in (0, size, size + 11):
            raise _Damaged(f"damaged between bytes {place:,} and {end:,}: two lengths of a tag differ")
        if head[0] == 18:
            _check_stated_size(data, place + 11, end)
        place = end + 4


def _check_stated_size(data: mmap.mmap, start: int, end: int) -> None:
    """The metadata of FFmpeg and others tell how long the file is: catches a cut between two tags."""
    where = data.find(b"\0\x08filesize\0", start, end)
    if where >= 0:
        stated = float(np.frombuffer(data[where + 11 : where + 19], ">f8")[0])
        if stated > len(data):
            raise _Damaged(f"cut off: its header tells of {stated:,.0f} bytes, it has {len(data):,}")


# Microsoft, RIFF and AVI RIFF File Reference; OpenDML AVI File Format Extensions 1.02.
_AVI_CHUNK = re.compile(rb"[0-9A-Fa-f]{2}[0-9a-zA-Z]{2}|ix[0-9A-Fa-f]{2}|JUNK|LIST|idx1|IDVX|RIFF|JUNQ|PAD ")


def _avi(data: mmap.mmap) -> None:
    place = 0
    while place + 12 <= len(data) and data[place : place + 4] == b"RIFF":
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        # Recorders that cannot go back leave 0.
        end = place + 8 + size if size else len(data)
        _require_end(end, data, "a part")
        _avi_chunks(data, place + 12, end)
        place = end + end % 2
    if not _is_padding(data, place) and place < len(data):
        # Programs append tags of their own; pictures in them would be no part of the stated length.
        raise _Damaged(f"damaged at byte {place:,}: it goes on where its header says that it ends")


def _avi_chunks(data: mmap.mmap, place: int, end: int) -> None:
    while place + 8 <= end:
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        stop = place + 8 + size
        if stop > end:
            raise _Damaged(f"damaged or cut off at byte {place:,}: a chunk is longer than what holds it")
        if kind == b"LIST" and data[place + 8 : place + 12] in (b"movi", b"rec "):
            _movie(data, place + 12, stop)
        elif not re.fullmatch(rb"[ -~]{4}", kind):
            raise _Damaged(f"damaged at byte {place:,}: no chunk is there")
        place = stop + size % 2


def _movie(data: mmap.mmap, place: int, end: int) -> None:
    while place + 8 <= end:
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        stop = place + 8 + size
        if not _AVI_CHUNK.fullmatch(kind) or stop > end:
            raise _Damaged(f"damaged at byte {place:,}: no chunk of pictures or sound is there")
        if kind == b"LIST":
            _movie(data, place + 12, stop)
        place = stop + size % 2


# ISO/IEC 14496-12: boxes of MP4, MOV, 3GP.
_HOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts"}


def _boxes(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while place + 8 <= end:
        size, kind, head = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8], 8
        if not size and not kind.strip(b"\0"):
            if data[place:end].strip(b"\0"):
                raise _Damaged(f"damaged at byte {place:,}: zeros where a box of MP4 should begin")
            return  # some writers end a box with zeros, and disks fill up sectors with them
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        stop = place + size if size else end
        if size and size < head:
            raise _Damaged(f"damaged at byte {place:,}: no box of MP4 is there")
        if stop > end:
            raise _Damaged(f"damaged or cut off: a box ends at byte {stop:,}, what holds it at {end:,}")
        yield kind, place + head, stop
        place = stop


def _mp4(data: mmap.mmap, place: int = 0, end: int | None = None) -> None:
    for kind, start, stop in _boxes(data, place, len(data) if end is None else end):
        if kind in _HOLDERS:
            _mp4(data, start, stop)
        elif kind in (b"stco", b"co64"):
            width = 4 if kind == b"stco" else 8
            count = int.from_bytes(data[start + 4 : start + 8], "big")
            offsets = np.frombuffer(data[start + 8 : stop], f">u{width}")
            if len(offsets) < count or (offsets[:count] == 0).any() or (offsets[:count] >= len(data)).any():
                raise _Damaged(f"damaged at byte {start:,}: its table of places is wrong, or it was cut off")
        elif kind == b"stsz":
            same, count = (int.from_bytes(data[start + at : start + at + 4], "big") for at in (4, 8))
            sizes = np.frombuffer(data[start + 12 : start + 12 + 4 * count], ">u4")
            # Ten in a row, since a picture that stays may be stored as nothing.
            if not same and (len(sizes) < count or _longest_run(sizes == 0) >= 10):
                raise _Damaged(f"damaged at byte {start:,}: its table of sizes is wrong")


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# ISO/IEC 13818-1: transport stream (TS), and program stream (MPG).
_PACKET = 188


def _transport(data: mmap.mmap) -> None:
    stride, lead = _packets(data)
    count, rest = divmod(len(data), stride)
    everything = np.frombuffer(data, np.uint8)
    rows = everything[: count * stride].reshape(count, stride)
    packets, controls = rows[:, lead : lead + 4].copy(), rows[:, lead + 4 : lead + 6].copy()
    del everything, rows  # or the file could not be closed
    lost = np.flatnonzero(packets[:, 0] != 0x47)
    if len(lost):
        raise _Damaged(f"damaged at byte {lead + int(lost[0]) * stride:,}: no packet is there")
    if rest and not _is_padding(data, len(data) - rest):
        raise _Damaged(f"cut off within its last packet, of {_PACKET} bytes")
    if (packets[:, 1] & 0x80).any():
        raise _Damaged("damaged: packets are marked as received with errors")
    program = (packets[:, 1].astype(np.int64) & 0x1F) << 8 | packets[:, 2]
    tables = np.flatnonzero(program == 0)
    starts, filled = (packets[:, 1] & 0x40) > 0, (packets[:, 3] & 0x10) > 0
    jumps = ((packets[:, 3] & 0x20) > 0) & (controls[:, 0] > 0) & ((controls[:, 1] & 0x80) > 0)
    for which in np.unique(program[program != 0x1FFF]):
        own = np.flatnonzero((program == which) & filled)
        if not len(own):
            continue
        if not starts[own[0]]:
            raise _Damaged("it begins in the middle of a picture or sound: cut off at its start")
        step = np.diff((packets[own, 3] & 0x0F).astype(np.int64)) % 16
        for gap in np.flatnonzero((step > 1) & ~jumps[own[1:]]):
            before, after = own[gap], own[gap + 1]
            # Parts that were put together count anew, each beginning with a table.
            joined = starts[after] and np.searchsorted(tables, before) < np.searchsorted(tables, after)
            if not joined:
                raise _Damaged(f"damaged: packets are missing before byte {lead + int(after) * stride:,}")


def _packets(data: mmap.mmap) -> tuple[int, int]:
    """Bytes from one packet to the next, and before the first: plain, with a time before each (Blu-ray), or parity."""
    for stride, lead in ((_PACKET, 0), (192, 4), (204, 0)):
        known = range(lead, min(len(data), lead + 10 * stride), stride)
        if sum(data[place] == 0x47 for place in known) > 0.7 * len(known):
            return stride, lead
    raise _Damaged("damaged or cut off at its start: its packets do not begin there")


def _program(data: mmap.mmap) -> None:
    place = 0
    if data[:3] != b"\0\0\1":
        raise _Damaged("damaged or cut off at its start: no pack begins there")
    while place < len(data):
        if _is_padding(data, place):
            return
        head = data[place : place + 14]
        if len(head) < 4:
            raise _Damaged("cut off within its last packet")
        code = head[3]
        if head[:3] != b"\0\0\1" or code < 0xB9:
            raise _Damaged(f"damaged at byte {place:,}: no packet is there")
        if code == 0xB9:
            place += 4
        elif code == 0xBA:
            if len(head) < 14:
                raise _Damaged("cut off within its last packet")
            place += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
        else:
            end = place + 6 + int.from_bytes(head[4:6], "big")
            _require_end(end, data, "its last packet")
            place = end


_WALKS: dict[str, Callable[[mmap.mmap], None]] = {
    "matroska": _matroska,
    "flv": _flv,
    "avi": _avi,
    "mov": _mp4,
    "mpegts": _transport,
    "mpeg": _program,
}
