"""Noise and nothing else: sound that is steady, and whose spectrum is a slope without anything on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIECES = 44_100 / 1024  # a second: 23 ms each, and every half of one another begins
MOMENT = 4  # pieces whose loudness is taken together
LOWEST = 80.0  # Hz
SPEECH_BAND, FULL_BAND = 6_000.0, 14_000.0  # Hz: what every recording passes on, and what every good one does
PASSED = 0.44  # of the rate: above, resampling may have taken something away
FLOOR = 1e-20  # power, of digital silence


def unevenness(second: NDArray[np.float32], highest: float = SPEECH_BAND) -> float:
    """How far a second of sound [samples] is from white, pink, brown or any such noise, in dB: the deviation
    of its spectrum from a straight line over octaves, or if that is more, of its loudness from moment to
    moment. Noise is random and deviates by some 0.5 dB. Up to the `highest` Hz."""
    size = round(len(second) / PIECES)
    pieces = np.lib.stride_tricks.sliding_window_view(second.astype(np.float64), size)[:: size // 2]
    power = np.abs(np.fft.rfft(pieces * np.hanning(size), axis=1)) ** 2 + FLOOR
    hertz = np.fft.rfftfreq(size, 1 / len(second))
    heard = (hertz >= LOWEST) & (hertz <= min(highest, PASSED * len(second)))
    spectrum = 10 * np.log10(power[:, heard].mean(0))
    octaves = np.log2(hertz[heard])
    ripple = np.std(spectrum - np.polynomial.Polynomial.fit(octaves, spectrum, 1)(octaves))
    loudness = 10 * np.log10(power[:, heard]).mean(1)
    moments = loudness[: len(loudness) // MOMENT * MOMENT].reshape(-1, MOMENT).mean(1)
    return float(max(ripple, moments.std()))
