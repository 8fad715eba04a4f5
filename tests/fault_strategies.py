"""Strategies that cost nothing, or go wrong in one chosen way. Test clusters have these alone.

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
from models.strategies import FrameMasks, Segmenter, Strategy
from models.strategies.options import CONFIG


@dataclass(frozen=True, config=CONFIG)
class FaultOptions:
    """What goes wrong, and how slowly."""

    seconds: float = 0.0
    """Of sleep for each frame."""
    journal: str = ""
    fault: str = ""
    """`kill` or `raise`."""
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
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("/secret/path is in this message")


def build(networks: Any) -> Segmenter:
    return segment


def fault_strategy(summary: str, needs_pixels: bool = False, **options: Any) -> Strategy:
    defaults = FaultOptions(**options)
    return Strategy(
        summary=summary,
        module="tests.faults.strategies",
        presets={"best": defaults, "paper": replace(defaults)},
        needs_pixels=needs_pixels,
    )


STRATEGIES: Mapping[str, Strategy] = {
    "free": fault_strategy("Costs nothing."),
    "pixels": fault_strategy("Costs what decoding costs.", needs_pixels=True),
    "slow": fault_strategy("Sleeps 50 ms a frame.", seconds=0.05),
    "poison": fault_strategy("Kills its worker.", fault="kill"),
    "greedy": fault_strategy("Runs on a device of four frames.", fits=4),
    "broken": fault_strategy("Raises what nobody foresaw.", fault="raise"),
}
