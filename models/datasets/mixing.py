"""The sound of a scene: every source while it is on, and noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.datasets.clip import Sound
from models.datasets.scenes import On, Scene, SynthConfig, Track
from models.datasets.timbres import LOOP, LOOP_BITS, LOOP_RATE, increment, noise_loop, play, ramp

LEVEL = 0.06  # RMS of a source at 0 dB: four of them and loud noise still fit into [-1, 1]
FADE = 0.01  # seconds in which a source comes and goes, inside its own seconds


def mix(scene: Scene, track: Track, config: SynthConfig) -> Sound:
    """Float32 [seconds * rate] in [-1, 1) on the grid of 16 bits: a wav file keeps it unchanged."""
    sound = np.zeros(config.seconds * config.rate, np.float32)
    voices = [*(thing.voice for thing in scene.things), track.offscreen]
    for voice, on in zip(voices, [*track.on, track.offscreen_on], strict=True):
        for first, end in runs(on):
            start, stop = first * config.rate, end * config.rate
            sound[start:stop] += fade(play(voice, config.rate, start, stop - start), config.rate)
    if track.snr is not None:
        sound += noise(track, config)
    sound *= np.float32(LEVEL * 32_768)
    return np.asarray(np.clip(np.rint(sound), -32_768, 32_767) / 32_768, np.float32)


def runs(on: On) -> Iterator[tuple[int, int]]:
    """The stretches of seconds in which a source is on: first second, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(np.int8), [0]])))
    return ((int(first), int(end)) for first, end in edges.reshape(-1, 2))


def fade(sound: Sound, rate: int) -> Sound:
    """Takes the clicks off both ends, in place."""
    samples = round(FADE * rate)
    slope = np.arange(samples, dtype=np.float32) / np.float32(samples)
    sound[:samples] *= slope
    sound[-samples:] *= slope[::-1]
    return sound


def noise(track: Track, config: SynthConfig) -> Sound:
    """Noise of the track's colour and level, in units of LEVEL."""
    assert track.snr is not None
    step = increment(LOOP_RATE / LOOP, config.rate)
    here = ramp(0, config.seconds * config.rate, step, track.noise_phase) >> np.uint32(32 - LOOP_BITS)
    hiss = noise_loop(60.0, 7_200.0, float(track.noise)).take(here)
    hiss *= np.float32(10 ** (-track.snr / 20))
    return hiss
