"""Where each frame of a window looks like its second of sound: AudioCLIP's towers, once a window, batched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.audioclip.audio import AudioScale
from models.audioclip.encoder import AudioClipEncoder
from models.audioclip.preprocess import image_input
from models.batching import Batcher
from models.heatmap import heatmaps
from models.stages import stage


class SoundMaps(NamedTuple):
    """Of n frames: heat maps float32 [n, size, size] in [0, 1], and the cosines of frame and sound [n]."""

    heat: NDArray[np.float32]
    agreement: NDArray[np.float32]


class SoundMapper:
    """Makes `SoundMaps`. Frames and sounds of concurrent windows share batches. `calibrated` is the agreement
    that these weights reach when the source is in view, None where nobody measured it."""

    def __init__(self, encoder: AudioClipEncoder, batcher: Batcher, calibrated: float | None = None) -> None:
        self.encoder, self.batcher, self.size = encoder, batcher, encoder.resolution
        self.calibrated = calibrated

    def __call__(
        self,
        frames: NDArray[np.uint8],
        seconds: NDArray[np.float32],
        *,
        surgery: bool,
        reverse: bool | None,
        scale: AudioScale,
        antialias: bool = True,
    ) -> SoundMaps:
        """RGB uint8 [n, H, W, 3], squashed to the network's square, and sounds [n, samples] at 44.1 kHz."""
        if not len(frames):
            return SoundMaps(np.zeros((0, self.size, self.size), np.float32), np.zeros(0, np.float32))
        images = image_input(frames, self.size, fit="squash", antialias=antialias, device=self.encoder.device)
        return self.of_images(images, seconds, surgery=surgery, reverse=reverse, scale=scale)

    def of_images(
        self,
        images: Tensor,
        seconds: NDArray[np.float32],
        *,
        surgery: bool,
        reverse: bool | None,
        scale: AudioScale,
    ) -> SoundMaps:
        """The same, from images [n, 3, size, size] that are normalised already. Where `reverse` is None, the
        network knows."""
        reverse = self.encoder.inverted if reverse is None else reverse
        with stage("audio_encode"):
            sounds = torch.stack(self.batcher(self._hear, [(each, scale) for each in seconds], scale))
        with stage("image_encode"):
            seen = self.batcher(self._look, [(image, surgery) for image in images], surgery)
        places, wholes = (torch.stack(part) for part in zip(*seen, strict=True))
        with torch.inference_mode():
            heat = heatmaps(places, sounds, (self.size, self.size), reverse=reverse)
            agreement = (wholes * sounds).sum(-1)
        return SoundMaps(heat.cpu().numpy(), agreement.cpu().numpy())

    def _hear(self, items: list[tuple[NDArray[np.float32], AudioScale]]) -> list[Tensor]:
        """One batch of seconds of one scale."""
        return list(self.encoder.audio(np.stack([second for second, _ in items]), items[0][1]))

    def _look(self, items: list[tuple[Tensor, bool]]) -> list[tuple[Tensor, Tensor]]:
        """One batch of images, all with surgery or all without."""
        places, wholes = self.encoder.maps(torch.stack([image for image, _ in items]), surgery=items[0][1])
        return list(zip(places, wholes, strict=True))
