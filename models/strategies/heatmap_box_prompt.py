"""Heatmap-Box-Prompt: a box around what is bright in the sound's heat map; in the box, SAM's best mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models import parts
from models.media import Window
from models.networks import Networks
from models.prompting import Prompting
from models.prompts import BOXES, Heat
from models.published_size import enlarged, squashed
from models.sound_maps import SoundMapper
from models.strategies import FrameMasks, Segmenter
from models.strategies.gate import NO_MASK, empty, mapped, united
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

    def __init__(self, mapper: SoundMapper, prompting: Prompting) -> None:
        self.mapper, self.prompting = mapper, prompting

    def __call__(self, window: Window, options: HeatmapBoxPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order; SAM sees those that the gate lets pass and that have a box, all in one batch."""
        looked = mapped(window, self.mapper, options)
        assert window.frames is not None, "`mapped` looked at them"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        prompts = [
            [] if each.heat is None or each.verdict else prompts_of(each.heat, frames.shape[1:3], options)
            for each in looked
        ]
        for each, segments in zip(looked, self.prompting(frames, prompts), strict=True):
            if each.verdict:
                yield empty(window.size, each.verdict, each.heat)
            else:
                masks = [enlarged(segment.mask, window.size) for segment in segments]
                reason = NO_MASK if segments else NOTHING_BRIGHT
                yield united(window.size, masks, heat=each.heat, otherwise=reason)


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
    return HeatmapBoxPrompt(networks.shared(parts.sound_mapper), networks.shared(parts.prompting))
