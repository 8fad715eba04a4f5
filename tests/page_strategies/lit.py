"""Objects are what stands out from the backdrop; which of them sounds, the brightness of the sound says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.media import Window
from models.packed_masks import PackedMask
from models.strategies import FrameMasks, Instance, Segmenter
from models.strategies.options import PointPromptOptions

RATE = 16_000
NAMES = ("first", "second", "third", "fourth")
SMALLEST = 0.01  # of the frame
STANDS_OUT = 60  # levels of colour
STEP = 1800  # hertz from one object to the next
SILENT = "There is no sound in this second."


def lit(window: Window, options: PointPromptOptions) -> Iterator[FrameMasks]:
    assert window.frames is not None
    for frame, sound in zip(window.frames, window.audio[RATE], strict=True):
        heat = np.linalg.norm(frame.astype(float) - np.median(frame, (0, 1)), axis=2)
        heatmap = (heat[::8, ::8] / heat.max()).astype(np.float32)
        if np.abs(sound).max() < 1e-3:
            yield FrameMasks(np.zeros(window.size, bool), reason=SILENT, heatmap=heatmap)
            continue
        found = objects(ndimage.gaussian_filter(heat, 3) > STANDS_OUT)
        chosen = min(int(brightness(sound) // STEP), len(found) - 1)
        mask = found[chosen] if found else np.zeros(window.size, bool)
        yield FrameMasks(mask, (instance(NAMES[chosen % 4], mask),) if found else (), heatmap=heatmap)


def brightness(second: NDArray[np.float32]) -> float:
    """The centre of the spectrum, in hertz."""
    spectrum = np.abs(np.fft.rfft(second))
    return float((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())


def objects(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    labels, count = ndimage.label(mask)
    return [labels == number for number in range(1, count + 1) if (labels == number).mean() > SMALLEST]


def instance(name: str, mask: NDArray[np.bool_]) -> Instance:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Instance(label=name, score=0.9, audio_score=0.5, bbox=box, mask=PackedMask.of(mask))


def build(networks: object) -> Segmenter:
    return lit
