"""The decoded windows that a worker keeps: bounded by bytes, the least recently used go first."""

from __future__ import annotations

import numpy as np

from models.media import Window
from service.window_cache import BOOKKEEPING_BYTES, WindowCache, size_of


def window(index: int, height: int = 10) -> Window:
    frames = np.zeros((1, height, 10, 3), np.uint8)
    return Window(
        index, (height, 10), (0.0,), (0,), ((0.0, 1.0),), frames, {8: np.zeros((1, 8), np.float32)}, True
    )


def test_a_window_is_read_once() -> None:
    cache, reads = WindowCache(10**6), []
    for _ in range(3):
        assert cache.get("a", lambda: (reads.append(1), window(1))[1]).index == 1
    assert len(reads) == 1


def test_the_oldest_go_when_the_bytes_are_used_up() -> None:
    one = size_of(window(0))
    assert one == BOOKKEEPING_BYTES + 300 + 32
    cache, reads = WindowCache(2 * one), []

    def get(key: str) -> None:
        cache.get(key, lambda: (reads.append(key), window(0))[1])

    for key in "abacaba":
        get(key)
    assert "".join(reads) == "abcb"
    assert cache.bytes == 2 * one


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = WindowCache(1000)
    cache.get("a", lambda: window(0))
    assert cache.bytes == 0
