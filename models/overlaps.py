"""Boxes that overlap: IoU, and non-maximum suppression without torchvision's operator. NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def iou(box: Floats, boxes: Floats) -> Floats:
    """A box x1, y1, x2, y2 [4] and others [4, n] -> IoU [n]; not a number between two without area."""
    x1, y1, x2, y2 = boxes
    inside = (np.minimum(x2, box[2]) - np.maximum(x1, box[0])).clip(0)
    inside *= (np.minimum(y2, box[3]) - np.maximum(y1, box[1])).clip(0)
    with np.errstate(invalid="ignore"):
        shares: Floats = inside / ((box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - inside)
    return shares


def suppressed(boxes: Floats, scores: Floats, threshold: float) -> list[int]:
    """The places of the boxes [n, 4] that stay, best first: of two with more IoU than the threshold, the
    better. A box at a time: every pair of the 12,288 that a caller may ask for would be gigabytes."""
    order = np.argsort(-scores, kind="stable")
    best_first = np.ascontiguousarray(boxes[order].T)
    gone = np.zeros(len(order), bool)
    kept = []
    for place in range(len(order)):
        if not gone[place]:
            kept.append(int(order[place]))
            gone[place:] |= iou(best_first[:, place], best_first[:, place:]) > threshold
    return kept
