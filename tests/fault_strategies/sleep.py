"""Costs 50 ms a frame, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

FRAME_SECONDS = 0.05


def sleep(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
    for _ in window.timestamps:
        time.sleep(FRAME_SECONDS)
        yield full(window)


def build(networks: object) -> Segmenter:
    return sleep
