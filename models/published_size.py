"""The square in which the published code works: frames are brought to it, masks are brought back."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from models.packed_masks import PackedMask

SIDE = 224  # pixels; AVSBench ships its frames so


def squashed(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB [n, H, W, 3] -> [n, SIDE, SIDE, 3], bilinear and without smoothing, as OpenCV does by default, up
    to its fixed-point rounding. Frames of that size stay as they are."""
    if frames.shape[1:3] == (SIDE, SIDE):
        return frames
    small = np.empty((len(frames), SIDE, SIDE, 3), np.uint8)
    for target, frame in zip(small, frames, strict=True):
        # Copied: what the decoder hands over must not be written to, and torch knows no such tensor.
        pixels = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        target[:] = resized.round().byte().permute(1, 2, 0).numpy()
    return small


def at_size(mask: PackedMask, size: tuple[int, int]) -> PackedMask:
    """The same of a packed one."""
    return mask if mask.size == size else PackedMask.of(enlarged(mask.pixels(), size))


def enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask [h, w] at another size by repeating pixels."""
    if mask.shape == size:
        return mask
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    larger: NDArray[np.bool_] = mask[rows[:, None], columns]
    return larger
