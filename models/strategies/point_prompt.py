"""Point-Prompt: where a frame looks like its second of sound, points; at the points, SAM's best mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models import parts
from models.media import Window
from models.networks import Networks
from models.prompting import Prompting
from models.prompts import POINTS, Heat, Points
from models.published_size import enlarged, squashed
from models.sound_maps import SoundMapper
from models.strategies import FrameMasks, Segmenter
from models.strategies.gate import empty, mapped, united
from models.strategies.options import PointPromptOptions
from models.suppliers import Prompt

THRESHOLDS = {"global": 0.0, "local": 0.60, "dense": 0.85}  # the paper's for single sources; global has none


class PointPrompt:
    """A `Segmenter`."""

    def __init__(self, mapper: SoundMapper, prompting: Prompting) -> None:
        self.mapper, self.prompting = mapper, prompting

    def __call__(self, window: Window, options: PointPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order; SAM sees those that the gate lets pass, all in one batch."""
        looked = mapped(window, self.mapper, options)
        assert window.frames is not None, "`mapped` looked at them"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        prompts = [
            [] if each.heat is None or each.verdict else [prompt(each.heat, frames.shape[1:3], options)]
            for each in looked
        ]
        for each, segments in zip(looked, self.prompting(frames, prompts), strict=True):
            if each.verdict:
                yield empty(window.size, each.verdict, each.heat)
            else:
                masks = [enlarged(segment.mask, window.size) for segment in segments]
                yield united(window.size, masks, heat=each.heat)


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
    return PointPrompt(networks.shared(parts.sound_mapper), networks.shared(parts.prompting))
