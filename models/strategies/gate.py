"""The gate: seconds in which nothing that can be seen sounds, each with a sentence that says why.

Three judges, each with one verdict a frame, None where it has no objection: the second's waveform, which may
be silence or noise and nothing else; names of silence and noise that fit it better than any other; and how
well sound and picture agree. Their thresholds stand in `GateOptions`. What agrees depends on the weights:
null is the value that `python -m models.training.calibrate` wrote beside them, and without one nobody asks.
`energy` is what the noise of any recording stays below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.noise import FULL_BAND, SPEECH_BAND, unevenness
from models.strategies import FrameMasks, Instance
from models.strategies.options import AcFpnOptions, GateOptions, TpaviOptions

SILENT = "There is no sound in this second."
HISS = "Nothing but noise is heard in this second."
NOISY = "No name that was looked for fits the sound of this second better than silence or noise does."
UNSEEN = "Nothing that can be seen agrees with the sound of this second."
UNLIKELY = "No place of the frame is likely enough to make the sound of this second."
NO_MASK = "SAM found no pixels of an object where it was asked."
LEAST_DECIBELS = -200.0  # of a second of zeros

Verdicts = list[str | None]


def by_waveform(seconds: NDArray[np.float32], gate: GateOptions) -> Verdicts:
    """Sounds [n, samples] in [-1, 1]: is one too quiet, or too even to be more than noise?"""
    if not gate.enabled:
        return [None] * len(seconds)
    return [
        unheard(second, decibels(second) < gate.energy, gate.unevenness, SPEECH_BAND) for second in seconds
    ]


def unheard(second: NDArray[np.float32], silent: bool, least: float, highest: float) -> str | None:
    """Why a second [samples] holds nothing to look for, silence first."""
    if silent:
        return SILENT
    return HISS if least and second.any() and unevenness(second, highest) < least else None


def by_ear(seconds: NDArray[np.float32], options: AcFpnOptions | TpaviOptions) -> Verdicts:
    """The same for the networks that were trained to hear: they judge quiet sounds themselves, and noise too
    unless it fills the whole band, as a wind in noise does not."""
    silent, least = options.silent_is_empty, options.unevenness
    return [unheard(second, silent and not second.any(), least, FULL_BAND) for second in seconds]


def by_noise(names: NDArray[np.float32], noises: NDArray[np.float32], gate: GateOptions) -> Verdicts:
    """Cosines [n, m] of names and [n, k] of silence and noise: does one of the latter fit best?"""
    asked = gate.enabled and gate.noise
    return [
        NOISY if asked and noise.max(initial=-1.0) > name.max(initial=-1.0) else None
        for name, noise in zip(names, noises, strict=True)
    ]


def agreement_of(gate: GateOptions, calibrated: float | None) -> float | None:
    """The cosine that sound and picture must reach; None where nobody asks."""
    asked = calibrated if gate.agreement is None else gate.agreement
    return asked if gate.enabled else None


def by_agreement(
    cosines: NDArray[np.float32], gate: GateOptions, calibrated: float | None = None
) -> Verdicts:
    """Cosine of each frame with its sound [n]: does it reach the threshold?"""
    least = agreement_of(gate, calibrated)
    return [None if least is None or cosine >= least else UNSEEN for cosine in cosines]


def decibels(second: NDArray[np.float32]) -> float:
    """Root mean square in dB of full scale."""
    power = float(np.mean(np.square(second, dtype=np.float64)))
    return 10 * float(np.log10(power)) if power > 0 else LEAST_DECIBELS


def unopposed(verdicts: Sequence[str | None]) -> list[int]:
    """The frames that nobody objects to."""
    return [index for index, verdict in enumerate(verdicts) if verdict is None]


def empty(size: tuple[int, int], reason: str, heat: NDArray[np.float32] | None = None) -> FrameMasks:
    """A frame [H, W] in which nothing sounds."""
    return FrameMasks(mask=np.zeros(size, bool), reason=reason, heatmap=heat)


def united(
    size: tuple[int, int],
    masks: Iterable[NDArray[np.bool_]],
    *,
    instances: tuple[Instance, ...] = (),
    heat: NDArray[np.float32] | None = None,
    otherwise: str = NO_MASK,
) -> FrameMasks:
    """The union of masks [H, W] as a frame's answer; `otherwise` is the reason if it is empty."""
    mask = np.zeros(size, bool)
    for each in masks:
        mask |= each
    return FrameMasks(mask, instances, None if mask.any() else otherwise, heat)
