"""Looks for a file that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

SECRET = "/srv/secret/path"


def disk(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
    yield full(window)
    raise FileNotFoundError(SECRET)


def build(networks: object) -> Segmenter:
    return disk
