"""Single voices and noises as power spectra, made once and mixed by addition.

Played, resampled and transformed anew, a second of sound costs more than a tiny network's step with it. What
addition loses are the beats of sources that share a band; the end of a training plays true mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from models.datasets.kinds import CLASSES
from models.datasets.scenes import SynthConfig, voice_of
from models.datasets.timbres import Voice
from models.segments import resampled
from models.training.family.sounds import RATE, SNR, mixed

CHANCES = (0.18, 0.34, 0.27, 0.17, 0.04)  # of none, one, two, ... sources in a second
HUSHED = (60.0, 100.0)  # dB that what counts as silence is below a source
QUIET = 0.1  # chance that silence takes the place of noise
JITTER = 3.0  # dB up or down, on top of the loudness that a voice has

Spectra = NDArray[np.float32]


class Pool:
    """`size` seconds of each class, of noise and of near silence; `powers` turns sound [n, rate] into
    power spectra [n, time, bands]."""

    def __init__(self, powers: Callable[[Spectra], Spectra], rate: int, size: int, rng: RandomState) -> None:
        config = SynthConfig()

        def spectra(voices: tuple[Voice, ...], snr: float) -> Spectra:
            made: Spectra = powers(resampled(mixed(voices, snr, rng), RATE, rate)[None])[0]
            return made

        self.voices = np.array(
            [
                [spectra((voice_of(config, rng, kind),), math.inf) for _ in range(size)]
                for kind in range(CLASSES)
            ]
        )
        self.noises = np.array([spectra((), rng.uniform(*SNR)) for _ in range(size)])
        self.silences = np.array([spectra((), rng.uniform(*HUSHED)) for _ in range(size)])

    def mixtures(self, rng: RandomState, seconds: int, hardness: float) -> tuple[Spectra, Spectra]:
        """Spectra [n, time, bands], and whether each class, noise alone (last but one) or silence sounds:
        [n, 14]. With `hardness` 0 one source sounds and little noise; with 1 up to four, or none, in any."""
        spectra = np.zeros((seconds, *self.noises.shape[1:]), np.float32)
        heard = np.zeros((seconds, CLASSES + 2), np.float32)
        for mixture, row in zip(spectra, heard, strict=True):
            hard = rng.random_sample() < hardness
            sources = rng.choice(len(CHANCES), p=CHANCES) if hard else 1
            for kind in rng.permutation(CLASSES)[:sources]:
                gain = 10 ** (rng.uniform(-JITTER, JITTER) / 10)
                mixture += np.float32(gain) * self.voices[kind, rng.randint(self.voices.shape[1])]
                row[kind] = 1
            quiet = rng.random_sample() < (QUIET if hard else 0.5)
            behind = self.silences if quiet else self.noises
            mixture += behind[rng.randint(len(behind))]
            row[CLASSES + quiet] = not sources
        return spectra, heard
