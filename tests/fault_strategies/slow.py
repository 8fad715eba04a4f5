"""Half a second a frame: a window of 16 takes 8 s."""

from __future__ import annotations

import time
from collections.abc import Iterator

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

FRAME_SECONDS = 0.5


def slow(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
    for _ in window.timestamps:
        time.sleep(FRAME_SECONDS)
        yield full(window)


def build(networks: object) -> Segmenter:
    return slow
