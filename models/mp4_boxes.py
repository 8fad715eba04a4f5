"""A look at the index of an MP4 or QuickTime file before libav builds it in memory.

The tables of such a file may promise a billion frames in a hundred bytes, and libav allocates what they
promise. This module adds up the promises, so that a bomb is refused from a few kilobytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from models.errors import MediaTooLarge, UndecodableMedia, UnsupportedMedia

MAX_BOXES = 200_000  # boxes looked at; a two-hour file in fragments of a tenth of a second has 150,000 or so
PARENTS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex"}
# Bytes of one entry of the tables that begin with version, flags and a 32-bit number of entries.
TABLES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"elst": 12}
STSD_SIZE = 40  # bytes to the width and height in the first sample description of a video track
TABLE_HEADER = 8  # version, flags and the number of entries


@dataclass(frozen=True)
class Box:
    """Its four-letter kind, and where in the file its content begins and ends, in bytes."""

    kind: bytes
    start: int
    end: int


@dataclass
class Track:
    """What the tables of one track promise."""

    samples: int = 0
    edits: int = 1
    handler: bytes = b""
    size: tuple[int, int] = (0, 0)  # width and height of its frames
    one_tick_samples: bool = False

    @property
    def entries(self) -> int:
        """Entries of the index that libav will build: of uncompressed sound one a chunk, which is few."""
        return 0 if self.handler == b"soun" and self.one_tick_samples else self.samples * self.edits


def check_boxes(file: BinaryIO, size: int, tracks: int, samples: int) -> list[tuple[int, int]]:
    """The width and height of each track. Refuses more than `tracks` tracks or `samples` frames."""
    found: list[Track] = []
    fragments = 0
    kinds = set()
    for box in boxes(file, size):
        kinds.add(box.kind)
        if box.kind == b"trak":
            found.append(Track())
        elif box.kind == b"trun":
            fragments += number(file, box.start + 4)
        elif box.kind == b"cmov":
            raise UnsupportedMedia("MP4 files with a compressed index are not supported.")
        elif found:
            note(file, box, found[-1])
        if len(found) > 100 * tracks:
            break  # the message below need not count them all
    if len(found) > tracks:
        raise MediaTooLarge("number of tracks", tracks, len(found), "tracks")
    promised = fragments + sum(track.entries for track in found)
    if promised > samples:
        raise MediaTooLarge("number of frames in the header", samples, promised, "frames")
    if b"moov" not in kinds:
        raise UndecodableMedia("The MP4 file has no index ('moov' box): it was cut short or never finished.")
    return [track.size for track in found]


def note(file: BinaryIO, box: Box, track: Track) -> None:
    """Add what one table promises to its track."""
    if box.kind == b"hdlr":
        track.handler = number(file, box.start + 8).to_bytes(4)
    elif box.kind == b"stsd" and track.handler == b"vide":
        sides = number(file, box.start + STSD_SIZE)
        track.size = (sides >> 16, sides & 0xFFFF)
    elif box.kind in {b"stsz", b"stz2"}:
        track.samples = max(track.samples, number(file, box.start + 8))
    elif box.kind in TABLES:
        count = number(file, box.start + 4)
        if count * TABLES[box.kind] > box.end - box.start - TABLE_HEADER:
            raise UndecodableMedia("The MP4 file is damaged: a table of its index is larger than its box.")
        if box.kind == b"elst":
            track.edits = max(1, count)
        elif box.kind in {b"stts", b"ctts"}:
            runs = pairs(file, box.start + TABLE_HEADER, count)
            track.samples = max(track.samples, int(runs[:, 0].sum(dtype=np.int64)))
            if box.kind == b"stts":
                track.one_tick_samples = count == 1 and int(runs[0, 1]) == 1


def boxes(file: BinaryIO, size: int) -> Iterator[Box]:
    """Every box that matters, parents before their children."""
    seen = 0
    pending = [(0, size)]
    while pending:
        position, end = pending.pop()
        while end - position >= 8:
            seen += 1
            if seen > MAX_BOXES:
                raise MediaTooLarge("number of boxes in this MP4 file", MAX_BOXES, seen, "boxes")
            box = box_at(file, position, end)
            if box is None:
                break
            yield box
            if box.kind in PARENTS:
                pending.append((box.end, end))
                end = box.end
                position = box.start
            else:
                position = box.end


def box_at(file: BinaryIO, position: int, end: int) -> Box | None:
    """The box that begins at `position`; None where its size makes no sense, as libav stops there too."""
    file.seek(position)
    header = file.read(16)
    length, kind = struct.unpack_from(">I4s", header)
    content = position + 8
    if length == 1 and len(header) == 16:
        length, content = struct.unpack_from(">Q", header, 8)[0], position + 16
    elif length == 0:
        length = end - position
    if position + length < content:
        return None
    return Box(kind, content, min(position + length, end))


def number(file: BinaryIO, position: int) -> int:
    """A 32-bit big-endian number; 0 past the end of the file."""
    file.seek(position)
    return int.from_bytes(file.read(4).ljust(4, b"\0"))


def pairs(file: BinaryIO, position: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """`count` rows of two 32-bit numbers."""
    file.seek(position)
    return np.frombuffer(file.read(8 * count), ">u4")[: 2 * count].reshape(-1, 2)
