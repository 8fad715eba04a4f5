"""A device that holds four frames: eight pass in halves, sixteen do not."""

from __future__ import annotations

from collections.abc import Iterator

from models.batching import Batcher
from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

FITS = 4


class OutOfMemoryError(RuntimeError):
    """Named and derived as torch's own."""


def network(windows: list[Window]) -> list[FrameMasks]:
    if len(windows) > FITS:
        raise OutOfMemoryError("CUDA out of memory")
    return [full(window) for window in windows]


def build(networks: object) -> Segmenter:
    batcher = Batcher()

    def oom(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
        yield from batcher(network, [window] * len(window.timestamps), key=window.index)

    return oom
