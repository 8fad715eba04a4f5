"""From a network's logits to the mask of a frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def decided(
    logits: Tensor, size: tuple[int, int], threshold: float, resolution: Literal["source", "paper"]
) -> NDArray[np.bool_]:
    """Logits [s, s] -> bool [height, width] of the frame. `paper` decides at s and repeats pixels."""
    grid = logits[None, None]
    if resolution == "source":
        grid = F.interpolate(grid, size, mode="bilinear", align_corners=False)
    sure = torch.sigmoid(grid) > threshold
    if resolution == "paper":
        sure = F.interpolate(sure.float(), size, mode="nearest") > 0
    return sure[0, 0].cpu().numpy()
