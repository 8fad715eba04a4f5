"""Point-Prompt: where a frame looks like its second of sound, points; at the points, SAM's best mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models import parts
from models.heat_prompting import HeatPrompting
from models.media import Window
from models.networks import Networks
from models.prompts import POINTS, Heat, Points
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import PointPromptOptions
from models.suppliers import Prompt

THRESHOLDS = {"global": 0.0, "local": 0.60, "dense": 0.85}  # the paper's for single sources; global has none
# Where the published search finds no peak, every pixel of a flat map is a point: 50,000 of them cost SAM
# minutes and say nothing.
MOST_POINTS = 4096
FLAT = "The frame looks alike everywhere to this second of sound: no place stands out."


class PointPrompt:
    """A `Segmenter`."""

    def __init__(self, heat_prompting: HeatPrompting) -> None:
        self.heat_prompting = heat_prompting

    def __call__(self, window: Window, options: PointPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order."""

        def ask(heat: Heat, size: tuple[int, ...]) -> list[Prompt]:
            asked = prompt(heat, size, options)
            assert asked.labels is not None, "a prompt of points has labels"
            return [asked] if len(asked.labels) <= MOST_POINTS else []

        return self.heat_prompting(window, options, ask, FLAT)


def prompt(heat: Heat, size: tuple[int, ...], options: PointPromptOptions) -> Prompt:
    """All points of a heat map [s, s], in pixels of a frame of `size` (height, width)."""
    found = points(heat, options)
    scale = np.array([size[1] / heat.shape[1], size[0] / heat.shape[0]])
    return Prompt(0, (found.xy * scale).astype(np.float32), found.labels)


def points(heat: Heat, options: PointPromptOptions) -> Points:
    """The points of a heat map, in its own pixels."""
    threshold = options.thresholds.heatmap
    finder = POINTS["paper" if options.placing == "paper" else "best"][options.points]
    return finder(heat, THRESHOLDS[options.points] if threshold is None else threshold)


def build(networks: Networks) -> Segmenter:
    """Needs AudioCLIP and SAM."""
    return PointPrompt(networks.shared(parts.heat_prompting))
