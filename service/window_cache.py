"""Decoded windows that a worker keeps: the next run on the same upload does not decode again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from models.media import Window

BOOKKEEPING_BYTES = 4096  # of a window without pixels or sound


class WindowCache:
    """Least recently used go first. Bounded by bytes; thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._windows: OrderedDict[Hashable, Window] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], Window]) -> Window:
        """The window of this key, read if it is not here. Two threads may both read it: equal, and rare."""
        with self._lock:
            if key in self._windows:
                self._windows.move_to_end(key)
                return self._windows[key]
        window = read()
        self._keep(key, window)
        return window

    def _keep(self, key: Hashable, window: Window) -> None:
        if size_of(window) > self.limit:
            return
        with self._lock:
            if key not in self._windows:
                self._windows[key] = window
                self.bytes += size_of(window)
            while self.bytes > self.limit:
                _, oldest = self._windows.popitem(last=False)
                self.bytes -= size_of(oldest)


def size_of(window: Window) -> int:
    """Bytes that a window holds."""
    pixels = 0 if window.frames is None else window.frames.nbytes
    return BOOKKEEPING_BYTES + pixels + sum(sound.nbytes for sound in window.audio.values())
