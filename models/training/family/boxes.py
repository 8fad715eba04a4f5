"""Boxes learn: which places and queries answer for an object, and how wrong their answers are.

Boxes are cxcywh in 0..1 of the frame unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

SIZES = (1.6, 5.5)  # an object is for the levels at which its side is so many places long, or nearly
CENTRAL = 0.25  # of an object's width and height: how far from its centre a place still answers for it
NEAREST = 0.6  # places: how far a place may be from the centre of however small an object
ALPHA, GAMMA = 0.4, 2.0  # of the focal loss: the weight of what is there; how little the easy counts


def centres(shapes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every place of all levels its centre and its size, x and y: [s, 2] each."""
    middles, sizes = [], []
    for height, width in shapes:
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        size = torch.tensor([1 / width, 1 / height])
        middles.append(torch.stack([x, y], -1).reshape(-1, 2) * size)
        sizes.append(size.expand(height * width, 2))
    return torch.cat(middles).to(device), torch.cat(sizes).to(device)


def answering(shapes: Sequence[tuple[int, int]], boxes: Tensor) -> Tensor:
    """Which places answer for which boxes [..., 4], near the centre at a fitting level: bool [..., s]."""
    middle, size = centres(shapes, boxes.device)
    extent = boxes[..., None, 2:]
    places = (extent / size).prod(-1).sqrt()
    smallest, largest = SIZES
    fits = (places >= smallest) & (places <= largest)
    # What is smaller than any level likes is for the finest one, what is larger for the coarsest.
    finest = torch.arange(len(size), device=boxes.device) < shapes[0][0] * shapes[0][1]
    coarsest = torch.arange(len(size), device=boxes.device) >= len(size) - shapes[-1][0] * shapes[-1][1]
    fits = fits | (finest & (places < smallest)) | (coarsest & (places > largest))
    reach = torch.maximum(CENTRAL * extent, NEAREST * size)
    near = ((middle - boxes[..., None, :2]).abs() <= reach).all(-1)
    return fits & near & (extent > 0).all(-1)


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the sigmoid, elementwise, in which what is certain and right hardly counts."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    chance = logits.sigmoid()
    wrong = chance * (1 - target) + (1 - chance) * target
    weight: Tensor = ALPHA * target + (1 - ALPHA) * (1 - target)
    return weight * wrong**GAMMA * loss


def corners(boxes: Tensor) -> Tensor:
    """Cxcywh -> x1, y1, x2, y2."""
    centre, extent = boxes.chunk(2, dim=-1)
    return torch.cat([centre - extent / 2, centre + extent / 2], -1)


def overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes that broadcast, [...] each."""
    a, b = corners(one), corners(other)
    inside = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared, hull = inside.prod(-1), around.prod(-1).clamp(min=1e-9)
    union = (one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared).clamp(min=1e-9)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def misplaced(found: Tensor, wanted: Tensor) -> Tensor:
    """How far boxes [n, 4] are from those wanted: [n], in the published proportion of L1 and GIoU."""
    return 5 * (found - wanted).abs().sum(-1) + 2 * (1 - overlap(found, wanted)[1])


def matched(chances: Tensor, found: Tensor, wanted: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The queries [q] with boxes [q, 4] that answer for `wanted` [k, 4], one each, and for which of them."""
    cost = misplaced(found[:, None], wanted) - 2 * chances[:, None]
    queries, objects = linear_sum_assignment(cost.cpu().numpy())
    return queries, objects
