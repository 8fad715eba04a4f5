"""What a model reaches that lacks one sense: a score means hearing only where it is above the deaf ceiling.

Both use the mean IoU per frame. Frames whose truth is empty count in one of three ways (`empty`): "skip"
leaves them out; "honest" gives 1 to an empty answer and 0 to any other; "paper" gives the share of true
negatives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.datasets.clip import Clips, Mask, each

Empty = Literal["skip", "honest", "paper"]
LEVELS = 50  # thresholds tried for the blind


def deaf_ceiling(families: Iterable[Mask], empty: Empty = "skip") -> float:
    """The best mean IoU that any predictor reaches which sees the frames and not the sound. Exact.

    A family is bool [tracks, T, H, W]: the truths of the same pictures under sounds that are equally likely.
    The deaf must answer all of them with one mask. Pixels that lie in the same truths are interchangeable, so
    a mask is told by how much of each such cell it takes; and the mean IoU is convex in each of these amounts
    (more of a cell adds linearly where it is true and dilutes as 1/x where it is not), so the best mask takes
    every cell whole or not at all. Those few masks are all tried.
    """
    best = counted = 0.0
    for family in families:
        for frame in range(family.shape[1]):
            score, tracks = _best_deaf(family[:, frame], empty)
            best, counted = best + score, counted + tracks
    assert counted, "There is no frame to count."
    return best / counted


def _best_deaf(truths: Mask, empty: Empty) -> tuple[float, int]:
    """The best sum of IoUs of one mask with the truths [tracks, H, W], and how many truths count."""
    codes = np.zeros(truths.shape[1:], np.int64)
    for number, truth in enumerate(truths):
        codes |= truth.astype(np.int64) << number
    pixels = np.bincount(codes.ravel(), minlength=1 << len(truths))
    cells = np.flatnonzero(pixels)
    cells = cells[cells > 0]
    taken = (np.arange(1 << len(cells))[:, None] >> np.arange(len(cells))) & 1  # [masks, cells]
    member = (cells[:, None] >> np.arange(len(truths))) & 1  # [cells, tracks]
    sizes = pixels[cells]
    answer = taken @ sizes
    hit = taken @ (sizes[:, None] * member)
    truth = sizes @ member
    scores = hit / np.maximum(answer[:, None] + truth - hit, 1)
    scores[:, truth == 0] = _of_empty(answer, codes.size, empty)[:, None]
    counted = np.ones(len(truths), bool) if empty != "skip" else truth > 0
    return float(scores[:, counted].sum(axis=1).max()), int(counted.sum())


def _of_empty(answer: NDArray[np.int64], pixels: int, empty: Empty) -> NDArray[np.float64]:
    """What answers of these sizes score on an empty truth."""
    return np.asarray(1 - answer / pixels if empty == "paper" else (answer == 0) * 1.0)


def blind_ceiling(clips: Clips, empty: Empty = "skip") -> float:
    """An estimate of the best that a predictor reaches which hears and does not see.

    It is granted perfect ears: it answers nothing when nothing in view sounds. Otherwise it gives one
    constant mask, the pixels that are lit more often than a threshold, chosen on these very clips. Where
    things are does not depend on what they are, so no other mask of the blind should do much better.
    """
    truths = np.concatenate([clip.expected != 0 for clip in each(clips)])
    lit = truths[truths.any(axis=(1, 2))]
    often = lit.mean(axis=0)
    scores = []
    for level in np.linspace(0, often.max(), LEVELS, endpoint=False):
        mask = often >= level
        hit = (lit & mask).sum(axis=(1, 2))
        scores.append(float((hit / (lit | mask).sum(axis=(1, 2))).mean()))
    best = max(scores)
    if empty == "skip":
        return best
    return (best * len(lit) + len(truths) - len(lit)) / len(truths)
