"""A table of strategies for tests: the real ones, and some that cost nothing or go wrong in one chosen way.

The mask depends on the frame's number only, so that two runs of a clip can be compared byte by byte.
`journal` is a file to which each start of a window adds a line: what was computed, how often, and by whom.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass

from models.batching import Batcher
from models.media import Window
from models.stages import STAGES, stage
from models.strategies import STRATEGIES as REAL
from models.strategies import FrameMasks, Segmenter, Strategy
from models.strategies.options import CONFIG

SECRET = "/srv/secret/path"
BEFORE_SECONDS = 0.2  # from a window's beginning to its worker's end, for its neighbours to be in work too
STAGE_SECONDS = 0.002


@dataclass(frozen=True, config=CONFIG)
class FaultOptions:
    """What goes wrong, and how slowly."""

    seconds: float = 0.0
    """Of sleep for each frame."""
    journal: str = ""
    fault: str = ""
    """`kill`, `raise` or `lose` (a file of its own)."""
    stages: bool = False
    """A little time in every stage that a strategy can have."""
    fits: int = 0
    """Frames that the device holds; 0: any number. The journal has a line for each call of the network."""
    window: int = 0
    """The window in which it goes wrong."""


def segment(window: Window, options: FaultOptions) -> Iterator[FrameMasks]:
    """A block of ones that moves a pixel a frame."""
    if options.journal:
        with Path(options.journal).open("a") as journal:
            journal.write(f"{window.index} {os.getpid()} {time.time():.3f}\n")
    if options.fault and window.index == options.window:
        fail(options.fault)
    if options.fits:
        Batcher()(partial(network, options), window.indices)
    for name in STAGES if options.stages else ():
        with stage(name):
            time.sleep(STAGE_SECONDS)
    height, width = window.size
    for index in window.indices:
        time.sleep(options.seconds)
        mask = np.zeros((height, width), bool)
        left = index % max(1, width // 2)
        mask[height // 4 : height // 2, left : left + width // 4] = True
        yield FrameMasks(mask=mask)


class OutOfMemoryError(RuntimeError):
    """Named and derived as torch's own."""


def network(options: FaultOptions, frames: list[int]) -> list[int]:
    """A network on a small device."""
    if options.journal:
        with Path(options.journal).open("a") as journal:
            journal.write(f"{len(frames)} frames\n")
    if len(frames) > options.fits:
        raise OutOfMemoryError("CUDA out of memory")
    return frames


def fail(fault: str) -> None:
    if fault == "kill":
        time.sleep(BEFORE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "lose":
        raise FileNotFoundError(SECRET)
    raise RuntimeError(f"{SECRET} is in this message")


def build(networks: Any) -> Segmenter:
    return segment


def fault_strategy(summary: str, needs_pixels: bool = False, **options: Any) -> Strategy:
    defaults = FaultOptions(**options)
    return Strategy(
        summary=summary,
        module=__name__,
        presets={"best": defaults, "paper": replace(defaults)},
        needs_pixels=needs_pixels,
    )


FAULTS: Mapping[str, Strategy] = {
    "free": fault_strategy("Costs nothing."),
    "pixels": fault_strategy("Costs what decoding costs.", needs_pixels=True),
    "sleep": fault_strategy("50 ms a frame.", seconds=0.05),
    "slow": fault_strategy("Half a second a frame.", seconds=0.5),
    "poison": fault_strategy("Kills its worker.", fault="kill"),
    "crash": fault_strategy("Raises an error that nobody expects.", fault="raise"),
    "disk": fault_strategy("Raises an OSError of its own.", fault="lose"),
    "stages": fault_strategy("A little time in every stage.", stages=True),
    "oom": fault_strategy("A device that holds four frames.", fits=4),
}
STRATEGIES: Mapping[str, Strategy] = {**REAL, **FAULTS}
