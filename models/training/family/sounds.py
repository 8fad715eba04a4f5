"""Seconds of sound that belong to no clip: cheap, independent, and of every difficulty."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from models.datasets.kinds import CLASSES
from models.datasets.mixing import LEVEL
from models.datasets.scenes import Scene, SynthConfig, Track, voice_of
from models.datasets.synthavs import CLASS_OF_VOICE
from models.datasets.timbres import LOOP, LOOP_BITS, LOOP_RATE, TURN, Voice, increment, noise_loop, play, ramp
from models.segments import resampled

RATE = 16_000  # Hz, of SynthAVS
CHANCES = (0.08, 0.57, 0.26, 0.09)  # of none, one, two and three sources in a second
SNR = (-5.0, 30.0)  # dB


def count(rng: RandomState) -> int:
    """How many sources."""
    return int(np.searchsorted(np.cumsum(CHANCES), rng.random_sample() * sum(CHANCES)))


def seconds(
    rng: RandomState, number: int, easy: float, rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sounds float32 [n, rate] in [-1, 1], and whether each class, or nothing but noise (the last), sounds:
    float32 [n, 13]. `easy`, from 1 to 0, keeps the noise low at first."""
    config = SynthConfig()
    heard = np.zeros((number, CLASSES + 1), np.float32)
    waves = []
    for row in heard:
        kinds = rng.permutation(CLASSES)[: count(rng)]
        row[kinds] = 1
        row[CLASSES] = not len(kinds)
        low = SNR[0] + easy * (SNR[1] - SNR[0])
        voices = tuple(voice_of(config, rng, int(kind)) for kind in kinds)
        waves.append(mixed(voices, rng.uniform(low, SNR[1]), rng))
    sound = resampled(np.concatenate(waves), RATE, rate).reshape(number, rate)
    return np.ascontiguousarray(sound, np.float32), heard


def mixed(voices: tuple[Voice, ...], snr: float, rng: RandomState) -> NDArray[np.float32]:
    """A second in the middle of somewhere: every voice, and noise, through 16 bits."""
    start = int(rng.randint(5)) * RATE
    sound = np.zeros(RATE, np.float32)
    for voice in voices:
        sound += play(voice, RATE, start, RATE)
    step = increment(LOOP_RATE / LOOP, RATE)
    here = ramp(0, RATE, step, int(rng.randint(0, TURN, dtype=np.int64))) >> np.uint32(32 - LOOP_BITS)
    hiss = noise_loop(60.0, 7_200.0, float(rng.randint(3))).take(here)
    sound += hiss * np.float32(10 ** (-snr / 20))
    return np.asarray(
        np.clip(np.rint(sound * np.float32(LEVEL * 32_768)), -32_768, 32_767) / 32_768, np.float32
    )


def audible(scene: Scene, track: Track, second: int) -> NDArray[np.bool_]:
    """Which classes are heard in a second, in view or not, bool [classes]."""
    classes = np.zeros(CLASSES, bool)
    classes[[thing.kind for thing, on in zip(scene.things, track.on, strict=True) if on[second]]] = True
    classes[CLASS_OF_VOICE[track.offscreen.timbre]] |= track.offscreen_on[second]
    return classes


def best_f1(cosines: NDArray[np.float32], fits: NDArray[np.bool_]) -> tuple[float, float]:
    """The largest F1 of "the cosine reaches a threshold", over all pairs, and that threshold."""
    order = np.argsort(-cosines, axis=None)
    found = np.cumsum(fits.ravel()[order])
    f1 = 2 * found / (np.arange(1, len(found) + 1) + fits.sum())
    place = int(f1.argmax())
    return float(f1[place]), float(cosines.ravel()[order[place]])
