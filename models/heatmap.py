"""Where a frame looks like its sound: a map in [0, 1] from AudioCLIP's last image map and a sound's feature.

The image tower gives that map plain, or by surgery: `visual(images, surgery=True)`, values attend to values.
The published AudioCLIP's cosines are low where the sound is and high elsewhere, on plain features and after
surgery alike: hence `reverse`. `prompts.py` makes points and boxes of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def heatmaps(features: Tensor, audio: Tensor, size: tuple[int, int], *, reverse: bool) -> Tensor:
    """Image maps [n, embed, h, w] and sounds [n, embed], frame i with sound i -> [n, *size] in [0, 1].

    `reverse` makes what is unlike the sound bright. A frame all of whose places are alike gives zeros.
    """
    similarity = cosines(features, audio)
    stretched = stretch(1 - similarity if reverse else similarity)
    return F.interpolate(stretched[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def cosines(features: Tensor, audio: Tensor) -> Tensor:
    """Cosine of every place with the frame's sound: [n, embed, h, w] and [n, embed] -> [n, h, w]."""
    sound = audio / torch.linalg.vector_norm(audio, dim=-1, keepdim=True)
    places = features / torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return torch.einsum("nehw,ne->nhw", places, sound)


def stretch(maps: Tensor) -> Tensor:
    """Each map [n, h, w] to [0, 1] by its own least and largest value."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)
