"""Sound cut as AVSBench's loaders cut it: five whole seconds, whatever the length of the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def whole_seconds(wave: NDArray[np.float32], rate: int, seconds: int = 5) -> NDArray[np.float32]:
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
