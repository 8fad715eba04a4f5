"""A part of a stored file, as `Range` asks for it (RFC 9110): what a player needs to seek in a video."""

from __future__ import annotations

import re

RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def part_of(header: str, size: int) -> range | None:
    """The positions of the bytes asked for; None, which is the whole file, for whatever else the header says:
    nothing, several ranges, another unit, a place behind the end. A server may ignore each of them."""
    found = RANGE.fullmatch(header.strip())
    first, last = found.groups() if found else ("", "")
    if first:
        part = range(int(first), min(int(last) + 1, size) if last else size)
    elif last:
        part = range(max(0, size - int(last)), size)
    else:
        return None
    return part or None
