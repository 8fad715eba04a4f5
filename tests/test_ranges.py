"""A header that asks for a part of a file."""

from __future__ import annotations

import pytest

from service.ranges import part_of


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=90-", range(90, 100)),
        ("bytes=-5", range(95, 100)),
        ("bytes=-500", range(100)),
        ("bytes=99-500", range(99, 100)),
        ("", None),
        ("bytes=100-", None),
        ("bytes=5-2", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=٣-", None),
    ],
)
def test_one_range_or_the_whole_file(header: str, part: range | None) -> None:
    assert part_of(header, 100) == part
