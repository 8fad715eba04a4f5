"""Every object that SAM can find in a frame: a grid of points, filters, and the best of overlapping masks.

The steps and defaults are those of segment-anything's automatic generator without crops. A full-size mask
lives for a moment: masks are made a few at a time, judged, and kept as deflated bits until somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batching import Batcher
from models.overlaps import suppressed
from models.packed_masks import PackedMask
from models.stages import stage
from models.suppliers import MASK_THRESHOLD, PROMPTS_PER_BATCH, Prompt, PromptedSegmenter

STABILITY_OFFSET = 1.0  # of the logit, to both sides of the threshold
FULL_SIZE_BYTES = 64 << 20  # of float logits at full size that exist at a time

Size = tuple[int, int]


@dataclass(frozen=True)
class GridLimits:
    """How dense the grid is and what a mask must have to stay."""

    points_per_side: int = 32
    quality: float = 0.88
    stability: float = 0.95
    overlap: float = 0.7


@dataclass(frozen=True)
class Candidate:
    """One object of a frame: `box` is x1, y1, x2, y2, last pixels inside; `quality` SAM's own estimate."""

    box: tuple[int, int, int, int]
    quality: float
    mask: PackedMask


@dataclass(frozen=True)
class Patch:
    """Points of one frame, float32 [p, 2] in its pixels, that go through SAM together."""

    embedding: Tensor
    points: NDArray[np.float32]
    size: Size
    limits: GridLimits


class MaskGrid:
    """Asks SAM at every point of a grid."""

    def __init__(self, sam: PromptedSegmenter, batcher: Batcher) -> None:
        self.sam, self.batcher = sam, batcher

    def __call__(self, embedding: Tensor, size: Size, limits: GridLimits) -> list[Candidate]:
        """The objects of one frame of `size`, best first."""
        points = grid(limits.points_per_side, size)
        patches = [
            Patch(embedding, points[start : start + PROMPTS_PER_BATCH], size, limits)
            for start in range(0, len(points), PROMPTS_PER_BATCH)
        ]
        with stage("mask_decode"):
            found = [each for patch in self.batcher(self._patches, patches, (size, limits)) for each in patch]
        boxes = np.array([each.box for each in found], np.float32).reshape(-1, 4)
        scores = np.array([each.quality for each in found], np.float32)
        return [found[index] for index in suppressed(boxes, scores, limits.overlap)]

    @torch.inference_mode()
    def _patches(self, patches: list[Patch]) -> list[list[Candidate]]:
        """One patch after the other, so that the masks of several never meet."""
        return [list(self._candidates(patch)) for patch in patches]

    def _candidates(self, patch: Patch) -> Iterator[Candidate]:
        """The good masks of a patch: by SAM's own estimate first, which needs no mask at full size."""
        inside = np.ones(1, np.int64)
        prompts = [Prompt(0, point[None], inside) for point in patch.points]
        logits, scores = self.sam.decode(patch.embedding[None], patch.size, prompts)
        good = scores.flatten() > patch.limits.quality
        low, qualities = logits.flatten(0, 1)[good], scores.flatten()[good]
        few = self.at_once(patch.size)
        for start in range(0, len(low), few):
            full = self.sam.upscale(low[start : start + few, None], patch.size)[:, 0]
            yield from stable(full, qualities[start : start + few], patch)

    def at_once(self, size: Size) -> int:
        """How many masks are brought to full size together."""
        largest = max(size[0] * size[1], self.sam.size**2)
        return max(1, min(PROMPTS_PER_BATCH, FULL_SIZE_BYTES // (4 * largest)))


def grid(per_side: int, size: Size) -> NDArray[np.float32]:
    """Points (x, y) [per_side ** 2, 2] in pixels, row by row, in the middles of equal cells."""
    height, width = size
    middles = (np.arange(per_side, dtype=np.float32) + np.float32(0.5)) / np.float32(per_side)
    across, down = np.meshgrid(middles * np.float32(width), middles * np.float32(height))
    return np.stack([across.ravel(), down.ravel()], axis=1)


def stable(logits: Tensor, qualities: Tensor, patch: Patch) -> Iterator[Candidate]:
    """Of full-size logits [m, H, W], those whose mask hardly depends on where they are cut."""
    steady = stability(logits) >= patch.limits.stability
    steady &= (logits > MASK_THRESHOLD).flatten(1).any(1)  # nothing is as steady as nothing
    masks = logits[steady] > MASK_THRESHOLD
    boxes = bounding_boxes(masks).tolist()
    for mask, box, quality in zip(masks, boxes, qualities[steady].tolist(), strict=True):
        yield Candidate(tuple(box), quality, PackedMask.of_bytes(patch.size, _packed(mask)))


def stability(logits: Tensor) -> Tensor:
    """IoU of the mask cut high with the mask cut low, [m]; not a number where even the low one is empty."""
    return _areas(logits > MASK_THRESHOLD + STABILITY_OFFSET) / _areas(
        logits > MASK_THRESHOLD - STABILITY_OFFSET
    )


def _areas(masks: Tensor) -> Tensor:
    """Pixels of each mask [m, H, W]. One by one, as torch counts whole tensors 13 times faster than rows."""
    return torch.stack([mask.count_nonzero() for mask in masks])


def bounding_boxes(masks: Tensor) -> Tensor:
    """Masks [m, H, W] -> int64 x1, y1, x2, y2 [m, 4], first and last pixels; zeros for an empty mask."""
    edges = []
    for dimension in (1, 2):  # columns, then rows
        some = masks.any(dimension).int()
        first = some.argmax(1)
        last = some.shape[1] - 1 - some.flip(1).argmax(1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], 1)
    return boxes * masks.flatten(1).any(1)[:, None]


def _packed(mask: Tensor) -> bytes:
    """Eight pixels a byte, the first in the highest bit, as NumPy packs them; done where the mask is."""
    bits = torch.nn.functional.pad(mask.flatten().byte(), (0, -mask.numel() % 8)).reshape(-1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=mask.device)
    return (bits * weights).sum(1, dtype=torch.uint8).cpu().numpy().tobytes()
