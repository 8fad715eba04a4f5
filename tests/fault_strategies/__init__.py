"""A table of strategies for tests: the real ones, and some that misbehave. The setting is `registry`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from models.media import Window
from models.strategies import STRATEGIES as REAL
from models.strategies import FrameMasks, Strategy
from models.strategies.options import FullMaskOptions


def full(window: Window) -> FrameMasks:
    """Every pixel."""
    return FrameMasks(mask=np.ones(window.size, bool))


def fault(name: str, summary: str) -> Strategy:
    """An entry of the table: no options, no networks, no pixels."""
    return Strategy(
        summary=summary,
        module=f"{__name__}.{name}",
        presets={"best": FullMaskOptions(), "paper": FullMaskOptions()},
        needs_pixels=False,
    )


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        **REAL,
        "sleep": fault("sleep", "50 ms a frame."),
        "slow": fault("slow", "Half a second a frame."),
        "poison": fault("poison", "Kills its worker at the first frame."),
        "crash": fault("crash", "Raises an error that nobody expects."),
        "disk": fault("disk", "Raises an OSError of its own."),
        "stages": fault("stages", "A little time in every stage."),
        "oom": fault("oom", "A device that holds four frames."),
    }
)
