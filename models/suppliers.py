"""The seam between strategies and networks: what SAM, Grounding DINO and CLAP are asked and answer.

Two suppliers stand behind it: `models/sam.py`, `grounding_dino.py` and `clap.py` over transformers, the
default, and `models/official.py` over the original packages. Frames and sounds go in as NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.errors import InvalidOption

BOX_THRESHOLD = 0.30  # of the best token's probability, as the paper's code
MASK_THRESHOLD = 0.0  # of SAM's logit
PROMPTS_PER_BATCH = 64  # of SAM's decoder
MULTIMASK = 3  # SAM's masks for a prompt when several are asked for: part, subpart, whole


@dataclass(frozen=True)
class Prompt:
    """Where to segment in one frame of a batch: points, a box, or both, in pixels of the frame, x first.

    `points` is [n, 2]; `labels` [n] holds 1 for a point of the object and 0 for one outside it; `box` is
    x1, y1, x2, y2.
    """

    frame: int
    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def shape(self) -> tuple[int, bool]:
        """What prompts must share to go through SAM together: the number of points, a box or none."""
        return -1 if self.points is None else len(self.points), self.box is not None


class PromptedSegmenter(Protocol):
    """What strategies need of SAM, whoever supplies it. `size` is the side of its square, in pixels."""

    size: int

    def embed(self, frames: NDArray[np.uint8]) -> Tensor:
        """RGB [n, H, W, 3] -> embeddings [n, C, s, s] on the device; frames seen before cost nothing."""
        ...

    def decode(
        self, embeddings: Tensor, size: tuple[int, int], prompts: Sequence[Prompt], *, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution mask logits [p, k, size/4, size/4] and the IoU that SAM predicts for each [p, k]."""
        ...

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits [p, k, s, s] -> logits at the size of the frame [p, k, H, W]."""
        ...


@dataclass(frozen=True)
class Detection:
    """A box x1, y1, x2, y2 in pixels of the frame, its best token's probability, and what was asked for."""

    box: tuple[float, float, float, float]
    score: float
    label: str


class Detector(Protocol):
    """What a strategy needs of Grounding DINO, whoever supplies it: for each frame its own list of labels."""

    def detect(
        self, frames: NDArray[np.uint8], labels: Sequence[Sequence[str]], threshold: float = BOX_THRESHOLD
    ) -> list[list[Detection]]: ...


class SoundTextEncoder(Protocol):
    """What a strategy needs of CLAP, whoever supplies it: rows of length 1 in one space."""

    def audio(self, sound: NDArray[np.float32]) -> Tensor: ...

    def text(self, sentences: Sequence[str]) -> Tensor: ...


def caption(label: str) -> str:
    """The caption of one category as the original code writes it: lower case, with a full stop."""
    text = label.lower().strip()
    if not text:
        raise InvalidOption("A label is empty; every label must name something to look for.")
    return text if text.endswith(".") else text + "."
