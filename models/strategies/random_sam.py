"""Random-SAM: SAM's best mask at a random point. It does not listen; every method should beat it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models import parts
from models.media import Window
from models.networks import Networks
from models.prompting import Prompting
from models.published_size import enlarged, squashed
from models.strategies import FrameMasks, Segmenter
from models.strategies.gate import united
from models.strategies.options import RandomSamOptions
from models.suppliers import Prompt

INSIDE = np.ones(1, np.int64)


class RandomSam:
    """A `Segmenter`."""

    def __init__(self, prompting: Prompting) -> None:
        self.prompting = prompting

    def __call__(self, window: Window, options: RandomSamOptions) -> Iterator[FrameMasks]:
        """Frames in order; a frame gets the same point however its clip was cut into windows."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        prompts = [[prompt(options.seed, index, frames.shape[1:3])] for index in window.indices]
        for segments in self.prompting(frames, prompts):
            yield united(window.size, (enlarged(segment.mask, window.size) for segment in segments))


def prompt(seed: int, index: int, size: tuple[int, ...]) -> Prompt:
    """One point inside the object, anywhere in a frame of `size` (height, width)."""
    across, down = np.random.default_rng((seed, index)).random(2)
    return Prompt(0, np.array([[across * size[1], down * size[0]]], np.float32), INSIDE)


def build(networks: Networks) -> Segmenter:
    """Needs SAM alone."""
    return RandomSam(networks.shared(parts.prompting))
