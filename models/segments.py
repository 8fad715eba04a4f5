"""Sound cut as the loaders of AVSBench cut it: five whole seconds, whatever the length. Imports no torch."""

from __future__ import annotations

from math import ceil

import numpy as np
import soxr
from numpy.typing import NDArray

SECONDS = 5  # of a clip in AVSBench
AUDIOCLIP_RATE = 44_100  # Hz
CLAP_RATE = 48_000  # Hz
FULL_SCALE = 32_767.0  # of int16

Wave = NDArray[np.float32]


def quantised(wave: Wave) -> Wave:
    """Through 16-bit integers and back: what CLAP heard in training had been stored so."""
    integers = (np.clip(wave, -1.0, 1.0) * FULL_SCALE).astype(np.int16)
    return (integers / FULL_SCALE).astype(np.float32)


def resampled(wave: Wave, rate: int, target: int) -> Wave:
    """The mean of the channels at `target` Hz, as long as `librosa.load` makes it."""
    mono = wave if wave.ndim == 1 else wave.mean(axis=1)
    if rate == target or not len(mono):
        return mono
    length = ceil(len(mono) * target / rate)  # soxr rounds to the nearest; librosa cuts or adds a zero
    sound = soxr.resample(mono, rate, target, quality="HQ")[:length]
    return np.pad(sound, (0, length - len(sound)))


def whole_seconds(wave: Wave, rate: int, seconds: int = SECONDS) -> Wave:
    """[samples] -> [seconds, rate]. Too long is cut off; of a short one the last second fills the rest.

    The last second is the last `rate` samples, so it may overlap the second before. Sound shorter than a
    second, on which the published code fails, is repeated to fill one; no sound at all is silence.
    """
    if not len(wave):
        return np.zeros((seconds, rate), np.float32)
    if len(wave) < rate:
        wave = np.resize(wave, rate)
    kept = min(seconds, len(wave) // rate)
    pieces = [wave[: kept * rate]] + [wave[-rate:]] * (seconds - kept)
    return np.concatenate(pieces).reshape(seconds, rate)
