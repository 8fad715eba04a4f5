"""RGB frames as an image tower wants them: 224 pixels a side, with the colours that it was trained on."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


class Colours(NamedTuple):
    """Mean and deviation of red, green and blue in 0..1, which become 0 and 1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Fit = Literal["crop", "squash"]


def image_input(
    frames: NDArray[np.uint8],
    size: int = 224,
    *,
    fit: Fit = "crop",
    antialias: bool = False,
    colours: Colours = CLIP,
    device: torch.device | str = "cpu",
) -> Tensor:
    """RGB uint8 [n, H, W, 3] -> float [n, 3, size, size], normalised, on the device.

    `crop` brings the short side to `size` and cuts the middle out, as AudioCLIP does; `squash` changes the
    aspect, as the frames of AVSBench were made. The reference resizes without `antialias`, which on a large
    frame picks single pixels.
    """
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in colours)
    # One by one: a large frame is 12 times larger in float than what remains of it.
    fitted = [fit_one(pixels(frame, device), size, fit, antialias) for frame in frames]
    return (torch.cat(fitted) - mean) / std


def pixels(frame: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """RGB uint8 [H, W, 3] -> float [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float() / 255


def fit_one(image: Tensor, size: int, fit: Fit, antialias: bool) -> Tensor:
    """[1, 3, H, W] -> [1, 3, size, size]; what has the size already stays as it is."""
    if fit == "squash":
        return resized(image, size, size, antialias)
    height, width = image.shape[-2:]
    short = min(height, width)
    height, width = size * height // short, size * width // short
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resized(image, height, width, antialias)[..., top : top + size, left : left + size]


def resized(image: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    """Bicubic, not clipped to [0, 1]."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=antialias)
