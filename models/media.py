"""A clip becomes frames, timestamps and one-second pieces of sound, a bounded window at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW_FRAMES = 16
WINDOW_PIXELS = 64 * 1024 * 1024  # RGB frames of one window stay under 192 MiB, whatever the size of a frame

Source = Path | bytes


@dataclass(frozen=True)
class Media:
    """Where pixels and sound are: one container, a video and a sound file, or images and a sound file."""

    video: Source | None = None
    audio: Source | None = None
    frames: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Window:
    """A bounded piece of a clip. `frames` is RGB uint8 [n, H, W, 3], or None where no pixels are needed.

    `audio` maps a sample rate to float32 [n, rate] in [-1, 1]: the second of mono sound of each frame,
    the one that `audio_windows` names by its start and end in seconds.
    """

    index: int
    size: tuple[int, int]  # height, width after rotation
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    audio_windows: tuple[tuple[float, float], ...]
    frames: NDArray[np.uint8] | None
    audio: Mapping[int, NDArray[np.float32]]
    has_audio: bool
