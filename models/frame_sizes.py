"""The frame sizes that an AVI or a Matroska header promises.

libav replaces them by what it decodes, so a header of 100,000 x 100,000 pixels is seen here or not at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

Size = tuple[int, int]  # width, height

MAX_ELEMENTS = 10_000  # looked at; a header has a few hundred
AVI_LISTS = {b"hdrl", b"strl"}
UNKNOWN_LENGTH = -1
# Elements of Matroska by their numbers. The frame's size is in Segment / Tracks / TrackEntry / Video.
SEGMENT, TRACKS, TRACK_ENTRY, VIDEO, CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
PIXEL_WIDTH, PIXEL_HEIGHT = 0xB0, 0xBA


def avi_sizes(file: BinaryIO, size: int) -> Iterator[Size]:
    """Of every video track: the 'strf' chunk after a 'strh' chunk of kind 'vids'."""
    position, picture = 12, False
    for _ in range(MAX_ELEMENTS):
        file.seek(position)
        header = file.read(12)
        if len(header) < 12 or position >= size:
            return
        kind, length = struct.unpack_from("<4sI", header)
        if kind == b"LIST" and header[8:12] in AVI_LISTS:
            position += 12
            continue
        if kind == b"LIST" and header[8:12] == b"movi":
            return
        if kind == b"strh":
            picture = header[8:12] == b"vids"
        elif kind == b"strf" and picture:
            fields = file.read(8)  # the width and the height, after the header's own size
            if len(fields) == 8:
                width, height = struct.unpack("<ii", fields)
                yield abs(width), abs(height)
        position += 8 + length + length % 2


def matroska_sizes(file: BinaryIO, size: int) -> Iterator[Size]:
    """Of every video track."""
    width = 0
    for element, start, end in elements(file, size):
        if element == PIXEL_WIDTH:
            width = unsigned(file, start, end)
        elif element == PIXEL_HEIGHT:
            yield width, unsigned(file, start, end)


def elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the header's elements, up to the first frames."""
    position = 0
    for _ in range(MAX_ELEMENTS):
        if position >= size:
            return
        file.seek(position)
        element = variable(file, keep_marker=True)
        length = variable(file, keep_marker=False)
        start = file.tell()
        if element in {None, CLUSTER} or length is None:
            return
        end = size if length == UNKNOWN_LENGTH else start + length
        yield element or 0, start, end
        position = start if element in {SEGMENT, TRACKS, TRACK_ENTRY, VIDEO} else end


def variable(file: BinaryIO, keep_marker: bool) -> int | None:
    """A number of EBML: as many zero bits as it has more bytes, a one as marker, then its value."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more))
    if keep_marker:
        return value
    bits = 7 * (more + 1)
    value &= (1 << bits) - 1
    return UNKNOWN_LENGTH if value == (1 << bits) - 1 else value


def unsigned(file: BinaryIO, start: int, end: int) -> int:
    """An unsigned integer of at most eight bytes."""
    file.seek(start)
    return int.from_bytes(file.read(min(end - start, 8)))
