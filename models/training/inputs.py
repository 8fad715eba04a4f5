"""What a network is fed of a clip: pictures in which colours, sound in which form and at which rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from models.acfpn import AcFpnConfig
from models.audioclip.preprocess import CLIP, IMAGENET, Colours
from models.datasets.clip import Clip
from models.segments import AUDIOCLIP_RATE, resampled, whole_seconds
from models.tpavi import TpaviConfig
from models.training.recipes import NetworkConfig, Recipe
from models.vggish import RATE, examples


@dataclass(frozen=True)
class Inputs:
    """`sound` makes one tensor a frame of a clip; files are read at `rate`, in Hz, to begin with."""

    rate: int
    colours: Colours
    sound: Callable[[Clip, Recipe], Tensor]


def seconds(clip: Clip, recipe: Recipe) -> Tensor:
    """Each frame's second at 44.1 kHz, as often as the recipe asks: [T, 1, samples] in [-1, 1]."""
    wave = resampled(clip.audio, clip.rate, AUDIOCLIP_RATE)
    cut = whole_seconds(wave, AUDIOCLIP_RATE, len(clip.frames))
    return torch.from_numpy(cut)[:, None].tile(recipe.seconds)


def log_mel(clip: Clip, _recipe: Recipe) -> Tensor:
    """VGGish's examples of 0.96 s, one after another, as AVSBench pairs them with frames: [T, 1, 96, 64]."""
    return examples(resampled(clip.audio, clip.rate, RATE), len(clip.frames))


INPUTS: Mapping[type[NetworkConfig], Inputs] = MappingProxyType(
    {AcFpnConfig: Inputs(AUDIOCLIP_RATE, CLIP, seconds), TpaviConfig: Inputs(RATE, IMAGENET, log_mel)}
)


def inputs_of(recipe: Recipe) -> Inputs:
    """By the network that the recipe trains."""
    return INPUTS[type(recipe.network)]
