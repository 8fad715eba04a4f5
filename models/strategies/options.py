"""The options of every strategy: frozen pydantic dataclasses, published as JSON schema. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, config=CONFIG)
class MaskThreshold:
    """Thresholds of a strategy that gives one probability a pixel."""

    mask: Fraction = 0.5
    """A pixel belongs to the mask when its probability is above this."""


@dataclass(frozen=True, config=CONFIG)
class AcFpnOptions:
    """Options of `ac-fpn`."""

    thresholds: MaskThreshold = MaskThreshold()
    audio_scale: Literal["int16", "paper"] = "int16"
    """`int16` feeds sound as AudioCLIP was trained (x 32768); `paper` as the published code does (+-1)."""
    resolution: Literal["source", "paper"] = "source"
    """`source` brings the logits to the size of the frame; `paper` thresholds at 224 first."""
    silent_is_empty: bool = True
    """A second without any sound gives an empty mask; the published code segments it like any other."""


@dataclass(frozen=True, config=CONFIG)
class FullMaskOptions:
    """`full-mask` has none."""
