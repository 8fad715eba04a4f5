"""The published losses of AC-FPN: the mean binary cross-entropy of the probabilities, over what is annotated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES_PER_CLIP = 5


def s4_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """S4 annotates the first frame of a clip: the others are computed and not judged.

    Logits [clips * 5, H, W]; masks {0, 1}, [clips, H, W] or one a frame.
    """
    if len(masks) == len(logits):
        masks = masks[::FRAMES_PER_CLIP]
    return ms3_loss(logits[::FRAMES_PER_CLIP], masks)


def ms3_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """MS3 annotates every frame: logits and masks {0, 1} [n, H, W]."""
    return F.binary_cross_entropy(torch.sigmoid(logits), masks)
