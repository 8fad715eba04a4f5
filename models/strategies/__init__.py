"""The strategies by name: what each needs, its options and where its code is. Imports no torch.

The API reads this table to check requests and to publish schemas; the worker imports `module` and calls its
`build(networks)` once. A new strategy is one file beside this one and one entry below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.media import Window
from models.strategies.options import AcFpnOptions, FullMaskOptions


@dataclass(frozen=True)
class Instance:
    """One sounding object of one frame. `bbox` is x1, y1, x2, y2 in pixels of the source frame."""

    label: str
    score: float
    audio_score: float | None
    bbox: tuple[float, float, float, float]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class FrameMasks:
    """What sounds in one frame: the union mask [H, W], its instances, and why the mask is empty if it is."""

    mask: NDArray[np.bool_]
    instances: tuple[Instance, ...] = ()
    reason: str | None = None
    heatmap: NDArray[np.float32] | None = None  # [h, w] in [0, 1], at the strategy's own resolution


class Segmenter(Protocol):
    """A built strategy. It sees one window, yields its frames in order, and knows nothing of jobs."""

    def __call__(self, window: Window, options: Any) -> Iterator[FrameMasks]: ...  # noqa: ANN401


@dataclass(frozen=True)
class Strategy:
    """One line of the table. `presets` holds the options of `best` (the default) and `paper`."""

    summary: str
    module: str
    presets: Mapping[str, Any]
    networks: tuple[str, ...] = ()
    needs_pixels: bool = True
    audio_rates: tuple[int, ...] = ()

    @property
    def options(self) -> type[Any]:
        """The frozen pydantic dataclass of its options."""
        return type(self.presets["best"])


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "ac-fpn": Strategy(
            summary="AC-FPN, the supervised network: sound fused into the top of a feature pyramid.",
            module="models.strategies.ac_fpn",
            presets={
                "best": AcFpnOptions(),
                "paper": AcFpnOptions(audio_scale="paper", resolution="paper", silent_is_empty=False),
            },
            networks=("ac-fpn",),
            audio_rates=(44_100,),
        ),
        "full-mask": Strategy(
            summary="Every pixel of every frame: the floor that a method must beat.",
            module="models.strategies.full_mask",
            presets={"best": FullMaskOptions(), "paper": FullMaskOptions()},
            needs_pixels=False,
        ),
    }
)
