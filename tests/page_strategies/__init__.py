"""A table of strategies for the playground's tests: masks that follow the sound, without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.strategies import STRATEGIES as REAL
from models.strategies import Strategy
from models.strategies.options import FullMaskOptions, PointPromptOptions

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "lit": Strategy(
            summary="The object that is chosen by how bright the sound is.",
            module=f"{__name__}.lit",
            presets={"best": PointPromptOptions(), "paper": PointPromptOptions(placing="paper")},
            audio_rates=(16_000,),
        ),
        "slow": Strategy(
            summary="Half a second a frame.",
            module=f"{__name__}.slow",
            presets={"best": FullMaskOptions(), "paper": FullMaskOptions()},
            needs_pixels=False,
        ),
        "tpavi": REAL["tpavi"],
        "full-mask": REAL["full-mask"],
    }
)
