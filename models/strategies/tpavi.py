"""TPAVI as a strategy: five frames and their five seconds together -> one probability a pixel -> masks.

What is seen and heard in one frame changes the masks of the others of its group, so groups must not depend
on how a clip is cut into windows. They are counted from the clip's first frame, and windows hold whole groups
(`together` in the table of strategies): a long job in windows equals the clip in one piece. What is left at
the end of a clip, one frame to four, is a group of its own: attention is a mean over time, and a frame alone
is answered like five of the same. Frames too large for five in a window are seen in smaller groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.audioclip.preprocess import IMAGENET, image_input
from models.batching import Batcher
from models.deciding import decided
from models.media import Window
from models.networks import Networks
from models.published_size import SIDE
from models.stages import stage
from models.strategies import FrameMasks, Segmenter
from models.strategies.gate import UNLIKELY, by_ear, empty, united
from models.strategies.options import TpaviOptions
from models.tpavi import CLIP_FRAMES, TPAVI, sounding
from models.vggish import RATE, Vggish, examples

GROUPS = 4  # that the network sees at once, as in training: decoding takes much memory


class Group(NamedTuple):
    """What a batch is made of: images [T, 3, SIDE, SIDE] and the embeddings of their sounds [T, audio]."""

    images: Tensor
    sounds: Tensor


class Tpavi:
    """A `Segmenter`. Groups of one window, and of windows in other threads, share batches."""

    def __init__(self, network: TPAVI, ears: Vggish, batcher: Batcher, device: torch.device) -> None:
        self.network, self.ears, self.batcher, self.device = network, ears, batcher, device

    def __call__(self, window: Window, options: TpaviOptions) -> Iterator[FrameMasks]:
        """Frames in order; groups with nothing to hear cost nothing."""
        verdicts = by_ear(window.audio[RATE], options)
        groups = [range(len(verdicts))[i : i + CLIP_FRAMES] for i in range(0, len(verdicts), CLIP_FRAMES)]
        logits = self.logits_of(window, [g for g in groups if None in [verdicts[i] for i in g]], options)
        for index, verdict in enumerate(verdicts):
            if verdict:
                yield empty(window.size, verdict)
                continue
            with stage("mask_decode"):
                mask = decided(logits[index], window.size, options.thresholds.mask, options.resolution)
            yield united(window.size, [mask], otherwise=UNLIKELY)

    def logits_of(self, window: Window, groups: list[range], options: TpaviOptions) -> dict[int, Tensor]:
        """Logits [SIDE, SIDE] of every frame of these groups."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        frames = [index for group in groups for index in group]
        if not frames:
            return {}
        with stage("audio_encode"):
            sound = torch.cat([sounds(window.audio[RATE][group], options) for group in map(list, groups)])
            embedded = dict(zip(frames, self.batcher(self.embedded, list(sound)), strict=True))
        with stage("image_encode"):
            images = dict(zip(frames, self.images(window.frames[frames], options), strict=True))
            logits: dict[int, Tensor] = {}
            for length in {len(group) for group in groups}:  # at most two: whole ones, and the clip's last
                alike = [group for group in groups if len(group) == length]
                asked = [
                    Group(torch.stack([images[i] for i in group]), torch.stack([embedded[i] for i in group]))
                    for group in alike
                ]
                answers = self.batcher(self.logits, asked, length)
                for group, answer in zip(alike, answers, strict=True):
                    logits |= dict(zip(group, answer, strict=True))
            return logits

    def images(self, frames: NDArray[np.uint8], options: TpaviOptions) -> Tensor:
        """The frames, squashed as AVSBench's were."""
        antialias = options.resolution == "source"
        return image_input(
            frames, SIDE, fit="squash", antialias=antialias, colours=IMAGENET, device=self.device
        )

    @torch.inference_mode()
    def embedded(self, sounds: list[Tensor]) -> list[Tensor]:
        """One batch of examples [1, 96, 64] -> 128 numbers of each, on the device."""
        return list(self.ears(torch.stack(sounds).to(self.device)))

    @torch.inference_mode()
    def logits(self, groups: list[Group]) -> list[Tensor]:
        """One batch of groups of one length -> logits [T, SIDE, SIDE] of each."""
        length = len(groups[0].images)
        answers: list[Tensor] = []
        for first in range(0, len(groups), GROUPS):
            some = groups[first : first + GROUPS]
            images, sounds = torch.cat([g.images for g in some]), torch.cat([g.sounds for g in some])
            logits = sounding(self.network(images, sounds, length).logits)
            answers += logits.reshape(len(some), length, *logits.shape[1:])
        return answers


def sounds(seconds: NDArray[np.float32], options: TpaviOptions) -> Tensor:
    """The seconds [T, RATE] of a group -> VGGish's examples [T, 1, 96, 64]."""
    if options.seconds == "paper":
        return examples(seconds.reshape(-1), len(seconds))
    return torch.cat([examples(second, 1) for second in seconds])


def build(networks: Networks) -> Segmenter:
    """Needs TPAVI, and VGGish to hear with."""
    return Tpavi(networks["tpavi"], networks["vggish"], networks.batcher, networks.device)
