"""What every data set yields: a clip's frames, its sound, and the pixels that sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """T frames, one a second, their sound and their truth.

    `frames` is RGB uint8 [T, H, W, 3]; `audio` mono float32 [samples] in [-1, 1] at `rate` Hz, as long as the
    file made it. `truth` is uint8 [T, H, W]: 0 where nothing sounds, else the number of the class (1 where
    classes are not told apart). Only frames whose `annotated` is true have a truth; the others hold zeros.
    `present` is false for frames that only pad a clip to a fixed length.

    `negative` says that the sound was exchanged for one that nothing in view makes: the right answer is then
    empty, while `truth` still tells what the clip's own sound would have lit (mIoU- is measured against it).

    SynthAVS also knows every object, sounding or not: `instances` is uint8 [T, H, W], 0 the background and i
    the i-th of `things`, the class names in drawing order.
    """

    name: str
    frames: Pixels
    audio: Sound
    rate: int
    truth: Pixels
    annotated: tuple[bool, ...]
    present: tuple[bool, ...]
    category: str = ""
    negative: bool = False
    instances: Pixels | None = None
    things: tuple[str, ...] = ()

    @property
    def masks(self) -> Mask:
        """Bool [T, H, W]: the pixels of what sounds in the clip's own sound."""
        return np.asarray(self.truth != 0)

    @property
    def expected(self) -> Pixels:
        """The right answer to the sound that the clip now has: `truth`, or nothing at all."""
        return np.zeros_like(self.truth) if self.negative else self.truth


class Clips(Protocol):
    """A data set: indexed, of known length, and able to say what is in view without reading pixels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def categories(self, index: int) -> frozenset[str]:
        """Names of the classes known to be in view in clip `index`; empty where nobody knows."""
        ...


def each(clips: Clips) -> Iterator[Clip]:
    """The clips of a data set in their order."""
    return (clips[index] for index in range(len(clips)))
