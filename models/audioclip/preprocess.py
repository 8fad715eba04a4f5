"""Frames as AudioCLIP's image tower wants them: the short side to its resolution, the middle, normalised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, RGB of range [0, 1]
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def preprocess(frames: Tensor, side: int = 224, *, antialias: bool = False) -> Tensor:
    """RGB uint8 [n, H, W, 3] -> float [n, 3, side, side]. Frames of that size are only normalised.

    The paper's environment did not smooth before it scaled down; newer ones do (`antialias`).
    """
    images = frames.movedim(-1, 1).float() / 255
    height, width = images.shape[-2:]
    short = min(height, width)
    if short != side:
        size = (side * height // short, side * width // short)
        images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=antialias)
    top, left = (round((length - side) / 2) for length in images.shape[-2:])
    return normalise(images[..., top : top + side, left : left + side])


def normalise(images: Tensor) -> Tensor:
    """RGB [n, 3, H, W] in [0, 1] -> by CLIP's mean and deviation."""
    mean, deviation = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION)
    )
    return (images - mean) / deviation
