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
from models.packed_masks import PackedMask
from models.strategies.options import (
    AcFpnOptions,
    BoxPromptOptions,
    DetectionThresholds,
    FullMaskOptions,
    GateOptions,
    HeatmapBoxPromptOptions,
    NoPromptOptions,
    PointPromptOptions,
    RandomSamOptions,
    TpaviOptions,
)


@dataclass(frozen=True)
class Instance:
    """One sounding object of one frame. `bbox` is x1, y1, x2, y2 in pixels of the source frame."""

    label: str
    score: float
    audio_score: float | None
    bbox: tuple[float, float, float, float]
    mask: PackedMask


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
    together: int = 1
    """Frames that are seen as one: windows hold whole groups of so many, counted from the clip's first."""
    warm_up: Any = None
    """Options of the run that warms it, where those of `best` ask for more than one call of each kernel."""

    @property
    def options(self) -> type[Any]:
        """The frozen pydantic dataclass of its options."""
        return type(self.presets["best"])


NO_GATE = GateOptions(enabled=False)

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "ac-fpn": Strategy(
            summary="AC-FPN, the supervised network: sound fused into the top of a feature pyramid.",
            module="models.strategies.ac_fpn",
            presets={
                "best": AcFpnOptions(),
                "paper": AcFpnOptions(
                    audio_scale="paper", resolution="paper", silent_is_empty=False, unevenness=0
                ),
            },
            networks=("ac-fpn",),
            audio_rates=(44_100,),
        ),
        "tpavi": Strategy(
            summary="TPAVI, the supervised baseline: every place asks what is heard over five frames.",
            module="models.strategies.tpavi",
            presets={
                "best": TpaviOptions(),
                "paper": TpaviOptions(
                    seconds="paper", resolution="paper", silent_is_empty=False, unevenness=0
                ),
            },
            networks=("tpavi", "vggish"),
            audio_rates=(16_000,),
            together=5,
        ),
        "box-prompt": Strategy(
            summary="What is heard, by name; where that is seen, boxes; in each box, SAM's mask.",
            module="models.strategies.box_prompt",
            presets={
                "best": BoxPromptOptions(),
                "paper": BoxPromptOptions(
                    top_k=1,
                    thresholds=DetectionThresholds(box=0.30),
                    nms=None,
                    max_boxes=100,
                    resolution="paper",
                    gate=NO_GATE,
                ),
            },
            networks=("clap", "audioclip", "grounding-dino", "sam"),
            audio_rates=(44_100, 48_000),
        ),
        "heatmap-box-prompt": Strategy(
            summary="A box around what looks like the sound, by AudioCLIP; in the box, SAM's mask.",
            module="models.strategies.heatmap_box_prompt",
            presets={
                "best": HeatmapBoxPromptOptions(),
                "paper": HeatmapBoxPromptOptions(
                    reverse=True, audio_scale="paper", resolution="paper", gate=NO_GATE
                ),
            },
            networks=("audioclip", "sam"),
            audio_rates=(44_100,),
        ),
        "point-prompt": Strategy(
            summary="Points where the frame looks like the sound, by AudioCLIP; at the points, SAM's mask.",
            module="models.strategies.point_prompt",
            presets={
                "best": PointPromptOptions(),
                "paper": PointPromptOptions(
                    placing="paper", reverse=True, audio_scale="paper", resolution="paper", gate=NO_GATE
                ),
            },
            networks=("audioclip", "sam"),
            audio_rates=(44_100,),
        ),
        "no-prompt": Strategy(
            summary="Everything that SAM finds in the frame, and of that, what AudioCLIP hears.",
            module="models.strategies.no_prompt",
            presets={
                "best": NoPromptOptions(),
                "paper": NoPromptOptions(crops="paper", sound="paper", resolution="paper", gate=NO_GATE),
            },
            networks=("audioclip", "sam"),
            audio_rates=(44_100, 48_000),
            warm_up=NoPromptOptions(points_per_side=8),  # one batch of points
        ),
        "random-sam": Strategy(
            summary="SAM's mask at a random point: it does not listen, and every method should beat it.",
            module="models.strategies.random_sam",
            presets={"best": RandomSamOptions(), "paper": RandomSamOptions(resolution="paper")},
            networks=("sam",),
        ),
        "full-mask": Strategy(
            summary="Every pixel of every frame: the floor that a method must beat.",
            module="models.strategies.full_mask",
            presets={"best": FullMaskOptions(), "paper": FullMaskOptions()},
            needs_pixels=False,
        ),
    }
)
