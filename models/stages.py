"""How long the parts of a strategy take: it names its stages, and whoever runs it reads the sums.

    with measured() as seconds:            # the worker
        with stage("image_encode"):        # a strategy, around what it asks of a network
            ...
    seconds == {"image_encode": 0.073}

A strategy puts `stage` around its call of the batcher, not inside the function that the batcher runs: that
runs in the thread of whoever leads the batch, and every window that rides along has waited just as long.
Outside `measured`, and in other threads, `stage` does nothing. Stages do not nest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

STAGES = ("audio_encode", "image_encode", "detect", "mask_decode")


@dataclass
class Clock:
    """Seconds by stage, and what to wait for before a stage counts as over."""

    settle: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)


_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def measured(settle: Callable[[], None] = lambda: None) -> Iterator[dict[str, float]]:
    """Seconds by stage, summed while the block runs. `settle` waits for a device that works asynchronously,
    whose work would else be counted to whatever stage first needs a result."""
    clock = Clock(settle)
    token = _clock.set(clock)
    try:
        yield clock.seconds
    finally:
        _clock.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is one of STAGES."""
    clock = _clock.get()
    if clock is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
        clock.settle()
    finally:
        clock.seconds[name] = clock.seconds.get(name, 0.0) + time.perf_counter() - began
