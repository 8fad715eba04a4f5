"""Has a bug, whose message no client should read."""

from __future__ import annotations

from collections.abc import Iterator

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

SECRET = "/srv/secret/path"


def crash(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
    yield full(window)
    raise ZeroDivisionError(SECRET)


def build(networks: object) -> Segmenter:
    return crash
