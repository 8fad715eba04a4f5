"""Boxes that overlap: IoU of every pair, and non-maximum suppression without torchvision's operator."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(boxes: Tensor) -> Tensor:
    """Boxes x1, y1, x2, y2 [n, 4] -> IoU [n, n]; not a number between two boxes without area."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    return inside / (area[:, None] + area[None] - inside)


def suppressed(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """The places of the boxes that stay, best first: of two with more IoU than the threshold, the better."""
    order = scores.argsort(descending=True, stable=True)
    overlapping = (iou(boxes[order].float()) > threshold).cpu().numpy()
    kept, gone = [], [False] * len(order)
    for place, mine in enumerate(overlapping):
        if not gone[place]:
            kept.append(place)
            for other in mine.nonzero()[0]:
                gone[other] = True
    return [int(index) for index in order[kept]] if kept else []
