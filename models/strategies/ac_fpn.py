"""AC-FPN as a strategy: a frame and its second of sound -> one probability a pixel -> a mask.

The frame is squashed to the network's square, as the frames of AVSBench were, and the second is repeated as
often as the network is used to: to five, where it starts from the published AudioCLIP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.acfpn import ACFPN
from models.audioclip.audio import AudioScale
from models.audioclip.preprocess import image_input
from models.batching import Batcher
from models.deciding import decided
from models.media import Window
from models.networks import Networks
from models.segments import AUDIOCLIP_RATE
from models.stages import stage
from models.strategies import FrameMasks, Segmenter
from models.strategies.gate import UNLIKELY, by_ear, empty, united
from models.strategies.options import AcFpnOptions


class Sound(NamedTuple):
    """What a batch of the sound tower is made of: five seconds [1, samples] and their scale."""

    samples: Tensor
    scale: AudioScale


class Pair(NamedTuple):
    """What a batch of the pyramid is made of: an image [3, size, size] and its sound's features [embed]."""

    image: Tensor
    sound: Tensor


class AcFpn:
    """A `Segmenter`. Frames of one window, and of windows in other threads, share batches."""

    def __init__(self, network: ACFPN, batcher: Batcher, device: torch.device) -> None:
        self.network, self.batcher, self.device = network, batcher, device
        self.size = network.config.audioclip.image.resolution
        self.repeats = network.config.audioclip.repeats

    def __call__(self, window: Window, options: AcFpnOptions) -> Iterator[FrameMasks]:
        """Frames in order; those with nothing to hear cost nothing."""
        verdicts = by_ear(window.audio[AUDIOCLIP_RATE], options)
        heard = [verdict is None for verdict in verdicts]
        logits = iter(self.heard_logits(window, heard, options) if any(heard) else ())
        for verdict in verdicts:
            if verdict:
                yield empty(window.size, verdict)
                continue
            with stage("mask_decode"):
                mask = decided(next(logits), window.size, options.thresholds.mask, options.resolution)
            yield united(window.size, [mask], otherwise=UNLIKELY)

    def heard_logits(self, window: Window, heard: list[bool], options: AcFpnOptions) -> list[Tensor]:
        """Logits [size, size] of the frames that `heard` marks, at least one. `image_encode` is everything
        that looks at the picture: the image tower, the pyramid and its head are one pass."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        scale = options.audio_scale
        with stage("audio_encode"):
            seconds = torch.from_numpy(window.audio[AUDIOCLIP_RATE][heard])[:, None].tile(self.repeats)
            sounds = self.batcher(self.encoded, [Sound(each, scale) for each in seconds], scale)
        with stage("image_encode"):
            images = self.images(window.frames[heard], options)
            pairs = [Pair(image, sound) for image, sound in zip(images, sounds, strict=True)]
            return self.batcher(self.logits, pairs)

    def images(self, frames: NDArray[np.uint8], options: AcFpnOptions) -> Tensor:
        """The frames, resized on the device. The published code never averages when it shrinks."""
        antialias = options.resolution == "source"
        return image_input(frames, self.size, fit="squash", antialias=antialias, device=self.device)

    @torch.inference_mode()
    def encoded(self, sounds: list[Sound]) -> list[Tensor]:
        """One batch of sounds of one scale -> features [embed] of each, on the device."""
        samples = torch.stack([each.samples for each in sounds]).to(self.device)
        return list(self.network.aclp.encode_audio(samples, sounds[0].scale))

    @torch.inference_mode()
    def logits(self, pairs: list[Pair]) -> list[Tensor]:
        """One batch of frames and the features of their sounds -> logits [size, size] of each."""
        images = torch.stack([pair.image for pair in pairs])
        sounds = torch.stack([pair.sound for pair in pairs])
        return list(self.network.segment(images, sounds)[:, 0])


def build(networks: Networks) -> Segmenter:
    """Needs AC-FPN alone."""
    return AcFpn(networks["ac-fpn"], networks.batcher, networks.device)
