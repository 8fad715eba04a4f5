"""Heatmap-Box-Prompt: a box around what is bright in the sound's heat map; in the box, SAM's best mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models import parts
from models.heat_prompting import HeatPrompting
from models.media import Window
from models.networks import Networks
from models.prompts import BOXES, Heat
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import HeatmapBoxPromptOptions
from models.suppliers import Prompt

COMPONENTS = {
    "largest": "single_maxarea",
    "all": "all",
    "brightest": "single_maxscore",
}  # -> the published name
NOTHING_BRIGHT = "Nothing in the heat map of this second reaches the threshold."


class HeatmapBoxPrompt:
    """A `Segmenter`."""

    def __init__(self, heat_prompting: HeatPrompting) -> None:
        self.heat_prompting = heat_prompting

    def __call__(self, window: Window, options: HeatmapBoxPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order."""
        return self.heat_prompting(
            window, options, lambda heat, size: prompts_of(heat, size, options), NOTHING_BRIGHT
        )


def prompts_of(heat: Heat, size: tuple[int, ...], options: HeatmapBoxPromptOptions) -> list[Prompt]:
    """The boxes of a heat map [s, s], in pixels of a frame of `size` (height, width).

    The published box ends at the last pixel inside. At another size than the map's it ends behind that pixel.
    """
    found = boxes(heat, options).astype(np.float64)
    if options.resolution == "source":
        found[:, 2:] += 1
        found *= np.tile([size[1] / heat.shape[1], size[0] / heat.shape[0]], 2)
    return [Prompt(0, box=(x1, y1, x2, y2)) for x1, y1, x2, y2 in found.tolist()]


def boxes(heat: Heat, options: HeatmapBoxPromptOptions) -> NDArray[np.int64]:
    """Boxes [n, 4] of a heat map, in its own pixels: left, top, right, bottom, the last pixels inside."""
    return BOXES[COMPONENTS[options.component]](heat, options.thresholds.heatmap)


def build(networks: Networks) -> Segmenter:
    """Needs AudioCLIP and SAM."""
    return HeatmapBoxPrompt(networks.shared(parts.heat_prompting))
