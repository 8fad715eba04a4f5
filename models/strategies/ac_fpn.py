"""AC-FPN as a strategy: a frame and its second of sound -> one probability a pixel -> a mask.

The frame is squashed to the network's square, as the frames of AVSBench were, and the second is repeated to
the five that AudioCLIP was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.acfpn import ACFPN
from models.audioclip.audio import AudioScale
from models.audioclip.preprocess import image_input
from models.batching import Batcher
from models.media import Window
from models.networks import Networks
from models.segments import AUDIOCLIP_RATE, SECONDS
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import AcFpnOptions

SILENT = "There is no sound in this second."


class Item(NamedTuple):
    """What a batch is made of: an image [3, size, size], five seconds [1, samples] and their scale."""

    image: Tensor
    sound: Tensor
    scale: AudioScale


class AcFpn:
    """A `Segmenter`. Frames of one window, and of windows in other threads, share batches."""

    def __init__(self, network: ACFPN, batcher: Batcher, device: torch.device) -> None:
        self.network, self.batcher, self.device = network, batcher, device
        self.size = network.config.audioclip.image.resolution

    def __call__(self, window: Window, options: AcFpnOptions) -> Iterator[FrameMasks]:
        """Frames in order; those in silence cost nothing where `silent_is_empty`."""
        sounds = window.audio[AUDIOCLIP_RATE]
        heard = [bool(sound.any()) or not options.silent_is_empty for sound in sounds]
        logits = iter(self.batcher(self.logits, self.items(window, heard, options), options.audio_scale))
        for audible in heard:
            if audible:
                yield FrameMasks(mask=mask(next(logits), window.size, options))
            else:
                yield FrameMasks(mask=np.zeros(window.size, bool), reason=SILENT)

    def items(self, window: Window, heard: list[bool], options: AcFpnOptions) -> list[Item]:
        """The frames to look at, resized on the device. The published code never averages when it shrinks."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        if not any(heard):
            return []
        images = image_input(
            window.frames[heard],
            self.size,
            fit="squash",
            antialias=options.resolution == "source",
            device=self.device,
        )
        seconds = torch.from_numpy(window.audio[AUDIOCLIP_RATE][heard])[:, None].tile(SECONDS)
        return [Item(image, sound, options.audio_scale) for image, sound in zip(images, seconds, strict=True)]

    @torch.inference_mode()
    def logits(self, items: list[Item]) -> list[Tensor]:
        """One batch of frames and sounds of one scale -> logits [size, size] of each, on the device."""
        images = torch.stack([item.image for item in items])
        sounds = torch.stack([item.sound for item in items]).to(self.device)
        return list(self.network(images, sounds, items[0].scale)[:, 0])


def mask(logits: Tensor, size: tuple[int, int], options: AcFpnOptions) -> NDArray[np.bool_]:
    """Logits [s, s] -> bool [height, width] of the frame. `paper` decides at s and repeats pixels."""
    grid = logits[None, None]
    if options.resolution == "source":
        grid = F.interpolate(grid, size, mode="bilinear", align_corners=False)
    sure = torch.sigmoid(grid) > options.thresholds.mask
    if options.resolution == "paper":
        sure = F.interpolate(sure.float(), size, mode="nearest") > 0
    return sure[0, 0].cpu().numpy()


def build(networks: Networks) -> Segmenter:
    """Needs AC-FPN alone."""
    return AcFpn(networks["ac-fpn"], networks.batcher, networks.device)
