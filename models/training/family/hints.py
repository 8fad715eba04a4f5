"""What SAM's image encoder is told besides while it learns: of every patch, which part of it shows objects,
and how far the object in its middle reaches. A layer on the embedding answers; it is thrown away at the end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 4  # of a low-resolution mask, along a side of a patch
HINTS = CELLS**2 + 4  # coverage of each cell, and the four sides of the box
REACH = 2.0  # weight of the sides, in sides of the picture


def hints(truths: Tensor) -> Tensor:
    """Coverage [k + 1, s, s] of k objects and the background -> [HINTS + 1, s/4, s/4]: the last is 1 where
    the sides are known."""
    objects = truths[:-1]
    covered = F.pixel_unshuffle(objects.sum(0)[None], CELLS)
    shares, owners = F.avg_pool2d(objects[:, None], CELLS)[:, 0].max(0)
    side = owners.shape[0]
    middles = (torch.arange(side) + 0.5) / side
    here = torch.stack([middles.expand(side, side), middles[:, None].expand(side, side)])
    boxes = torch.stack([_box(each > 0.5) for each in objects])[owners].permute(2, 0, 1)
    return torch.cat([covered, boxes - here.repeat(2, 1, 1), (shares > 0.5)[None]])


def _box(mask: Tensor) -> Tensor:
    """x1, y1, x2, y2 in sides of the picture; zeros for nothing."""
    places = mask.nonzero()
    if not len(places):
        return torch.zeros(4)
    top, bottom = places.amin(0), places.amax(0) + 1
    return torch.stack([top[1], top[0], bottom[1], bottom[0]]) / mask.shape[0]


def hint_loss(answers: Tensor, truth: Tensor) -> Tensor:
    """Answers [n, HINTS, s, s], truth [n, HINTS + 1, s, s]."""
    cells, known = CELLS**2, truth[:, HINTS:]
    coverage = F.binary_cross_entropy_with_logits(answers[:, :cells], truth[:, :cells])
    away = ((answers[:, cells:] - truth[:, cells:HINTS]).abs() * known).sum() / (4 * known.sum()).clamp(min=1)
    return coverage + REACH * away
