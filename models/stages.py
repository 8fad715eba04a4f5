"""How long the parts of a strategy take: a network names its stage, whoever runs the strategy reads the sums.

    with measured() as seconds:            # the worker
        with stage("image_encode"):        # a network, anywhere below
            ...
    seconds == {"image_encode": 0.073}

Outside `measured`, and in other threads, `stage` does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

STAGES = ("audio_encode", "image_encode", "detect", "mask_decode")
_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds by stage, summed while the block runs."""
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is one of STAGES."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = _seconds.get()
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
