"""Frames of SynthAVS in many sizes and shapes, with a box around what shows of each thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from models.datasets.drawing import draw
from models.datasets.kinds import KINDS
from models.datasets.scenes import SynthConfig, compose
from models.datasets.shapes import area

SIZES = (96, 96, 96, 96, 128, 160, 256)  # pixels of a frame's height
ASPECTS = (1.0, 1.0, 1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)
LONGEST = 3.0  # seconds
HIDDEN = 0.4  # of a thing: where less of it shows, it is not asked for


@dataclass(frozen=True)
class Picture:
    """`kinds` are numbers of classes, `boxes` [k, 4] cxcywh in 0..1 of the frame; of the classes in `unsure`
    too little shows to say that they are in view, or that they are not."""

    pixels: NDArray[np.uint8]
    kinds: tuple[int, ...]
    boxes: NDArray[np.float32]
    unsure: frozenset[int]


def setting(rng: RandomState) -> SynthConfig:
    """How a batch of pictures is: their size and shape, and how large and how many the things in them are."""
    return SynthConfig(
        size=SIZES[rng.randint(len(SIZES))],
        aspect=ASPECTS[rng.randint(len(ASPECTS))],
        area=(0.03 if rng.random_sample() < 0.8 else 0.015, 0.40),
        objects=(0.1, 0.2, 0.35, 0.35),
        twins=0.2,
        seconds=1,
        tracks=1,
    )


def picture(config: SynthConfig, rng: RandomState) -> Picture:
    """One frame of a scene, at any of its first moments: later on, things run into each other."""
    scene = compose(config, rng)
    frames, instances = draw(scene, config, [LONGEST * rng.random_sample()])
    kinds, boxes, unsure = [], [], set()
    for number, thing in enumerate(scene.things, start=1):
        shown = instances[0] == number
        if shown.sum() < HIDDEN * area(KINDS[thing.kind].shape) * (thing.radius * config.size) ** 2:
            unsure.add(thing.kind)
        if shown.any():
            kinds.append(thing.kind)
            boxes.append(box(shown))
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Picture(frames[0], tuple(kinds), found, frozenset(unsure))


def box(shown: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Around the true pixels of [H, W]: cxcywh in 0..1."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    top, bottom = rows[0] / shown.shape[0], (rows[-1] + 1) / shown.shape[0]
    left, right = columns[0] / shown.shape[1], (columns[-1] + 1) / shown.shape[1]
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
