"""AC-FPN: AudioCLIP's image tower as the backbone of a feature pyramid, with the sound fused into its top.

    images -> F1 F2 F3 F4 F5                                 logits
    sound  -> f_a    F4, F5 and f_a -> fusion -> neck -> head -> sigmoid > 0.5: what sounds

Frame i and sound i belong together; a clip's five frames and five seconds are one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_in
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.audioclip.audio import AudioScale
from models.audioclip.image import STRIDE
from models.checkpoints import described, load_into, read_checkpoint
from models.errors import WeightsInvalid
from models.files import metadata
from models.key_rules import AC_FPN
from models.weights import Weights

STEM_STRIDE = 4  # of the first map, and of the head's sum

FusionName = Literal["hadamard", "concat", "normed-hadamard", "scoremap", "audio-only", "replace", "none"]
Upsampling = Literal["bilinear", "nearest"]


def hadamard(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:
    """F4 and F5 times the sound."""
    return torch.cat([f4, f5 * sound], dim=1)


def concat(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:
    """F4, F5 and the sound at every place."""
    return torch.cat([f4, f5, sound.expand_as(f5)], dim=1)


def normed_hadamard(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:
    """As `hadamard`, of unit vectors."""
    return torch.cat([f4, F.normalize(f5, dim=1) * F.normalize(sound, dim=1)], dim=1)


def scoremap(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:
    """F4 and one channel: the cosine of each place and the sound."""
    cosine = (F.normalize(f5, dim=1) * F.normalize(sound, dim=1)).sum(1, keepdim=True)
    return torch.cat([f4, cosine], dim=1)


def audio_only(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:
    """F4 and the sound at every place."""
    return torch.cat([f4, sound.expand_as(f5)], dim=1)


def replace(f4: Tensor, f5: Tensor, sound: Tensor) -> Tensor:  # noqa: ARG001
    """F5 times the sound, in place of F4."""
    return f5 * sound


@dataclass(frozen=True)
class Fusion:
    """How F4 [n, c, h, w], F5 [n, embed, h, w] and the sound [n, embed, 1, 1] become the pyramid's top, and
    how many channels that has. `reference` is what the authors' code calls it."""

    fuse: Callable[[Tensor, Tensor, Tensor], Tensor]
    channels: Callable[[int, int], int]  # of F4, of F5 -> of the result
    reference: str


FUSIONS: Mapping[FusionName, Fusion] = MappingProxyType(
    {
        "hadamard": Fusion(hadamard, lambda top, embed: top + embed, "concate"),
        "concat": Fusion(concat, lambda top, embed: top + 2 * embed, "naive_concate"),
        "normed-hadamard": Fusion(normed_hadamard, lambda top, embed: top + embed, "normed_concate"),
        "scoremap": Fusion(scoremap, lambda top, _embed: top + 1, "score_fusion"),
        "audio-only": Fusion(audio_only, lambda top, embed: top + embed, "noprior"),
        "replace": Fusion(replace, lambda _top, embed: embed, "skip"),
        "none": Fusion(lambda f4, _f5, _sound: f4, lambda top, _embed: top, "none"),
    }
)


@dataclass(frozen=True)
class AcFpnConfig:
    """Every size, and the fusion. The defaults are the published network."""

    audioclip: AudioCLIPConfig = field(default_factory=AudioCLIPConfig)
    fusion: FusionName = "hadamard"
    upsampling: Upsampling = "bilinear"  # of the neck; the authors' other choice is "nearest"
    neck: int = 256
    head: int = 128
    groups: int = 32  # of the head's group norms

    @classmethod
    def tiny(cls, fusion: FusionName = "hadamard") -> AcFpnConfig:
        """About two million numbers."""
        return cls(AudioCLIPConfig.tiny(), fusion, neck=64, head=32, groups=8)


CONFIG = TypeAdapter(AcFpnConfig)  # to JSON and back: trained weights carry their sizes


class ACFPN(nn.Module):
    """The whole of AudioCLIP, of which the text tower has nothing to do here, a neck and a head."""

    def __init__(self, config: AcFpnConfig | None = None, aclp: AudioCLIP | None = None) -> None:
        """`aclp` is used as it is, and shared, where the caller has one."""
        super().__init__()
        self.config = config = config or AcFpnConfig()
        self.aclp = aclp or AudioCLIP(config.audioclip)
        self.fusion = FUSIONS[config.fusion]
        channels = config.audioclip.image.channels
        top = self.fusion.channels(channels[-1], config.audioclip.embed)
        self.neck = Neck((*channels[:-1], top), config.neck, config.upsampling)
        self.head = Head(config.neck, config.head, config.groups, levels=len(channels))

    def forward(self, images: Tensor, sound: Tensor, audio_scale: AudioScale = "int16") -> Tensor:
        """Images [n, 3, H, W] normalised, sides multiples of 32; sound [n, 1, samples] in [-1, 1] at 44.1 kHz
        -> logits [n, 1, H, W]."""
        if any(side % STRIDE for side in images.shape[-2:]):
            raise ValueError(f"Sides of {tuple(images.shape[-2:])} are not multiples of {STRIDE} pixels.")
        return self.segment(images, self.aclp.encode_audio(sound, audio_scale))

    def segment(self, images: Tensor, sound: Tensor) -> Tensor:
        """As `forward`, where the sound is already features [n, embed]."""
        return self.decode(self.aclp.visual(images).maps, sound)

    def decode(self, maps: tuple[Tensor, ...], sound: Tensor) -> Tensor:
        """As `segment`, where the images are already the five maps of the image tower."""
        *maps_below, f4, f5 = maps
        top = self.fusion.fuse(f4, f5, sound[:, :, None, None])
        logits: Tensor = self.head(self.neck([*maps_below, top]))
        return logits


class Neck(nn.Module):
    """A feature pyramid: each level takes what the one above it knows. All levels leave equally wide."""

    def __init__(self, channels: tuple[int, ...], width: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps from large to small, each half the one before it -> as many, `width` channels each."""
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in reversed(range(1, len(levels))):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], scale_factor=2, mode=self.upsampling)
        return [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=True)]


class Head(nn.Module):
    """Every level brought to a quarter of the image's sides, summed, and read by one convolution."""

    def __init__(self, channels: int, width: int, groups: int, levels: int) -> None:
        super().__init__()
        self.scale_heads = nn.ModuleList(
            self.climb(channels, width, groups, level) for level in range(levels)
        )
        self.seg_conv = nn.Conv2d(width, 1, 1)

    @staticmethod
    def climb(channels: int, width: int, groups: int, level: int) -> nn.Sequential:
        """A block for each doubling that `level` needs, and one without doubling for level 0."""
        steps: list[nn.Module] = []
        for block in range(max(1, level)):
            steps += [
                nn.Conv2d(channels if block == 0 else width, width, 1),
                nn.GroupNorm(groups, width),
                nn.ReLU(),
            ]
            if level > 0:
                steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
        return nn.Sequential(*steps)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels [n, channels, H/4, W/4], [.., H/8, W/8]... -> logits [n, 1, H, W]."""
        first, *rest = [climb(x) for climb, x in zip(self.scale_heads, levels, strict=True)]
        x = self.seg_conv(sum(rest, start=first))
        return F.interpolate(x, scale_factor=STEM_STRIDE, mode="bilinear", align_corners=True)


def load_acfpn(path: Path, config: AcFpnConfig | None = None, fusion: FusionName | None = None) -> ACFPN:
    """A network from our file or the authors' checkpoint. A file that describes its sizes is believed; else
    they are `config`'s. Its fusion is read from the file, unless given.
    """
    state = AC_FPN.apply(read_checkpoint(path))
    with torch.device("meta"):  # no time goes into random numbers that the file replaces
        network = ACFPN(config_of(path, state, config, fusion)).to_empty(device="cpu")
    load_into(network, state, path.name)
    return network.eval()


def config_of(
    path: Path,
    state: Mapping[str, Tensor],
    config: AcFpnConfig | None = None,
    fusion: FusionName | None = None,
) -> AcFpnConfig:
    """What network the tensors of a file are: as its metadata says, else `config` with the fusion that fits.

    Fusions that widen the top alike cannot be told apart by shape; a file that does not say which it is, as
    the authors' do not, is taken for the first of them in `FUSIONS`.
    """
    told = metadata(path) if path.suffix == ".safetensors" else {}
    config = described(path, CONFIG) or config or AcFpnConfig()
    fusion = fusion or named(told.get("fusion"), path) or guessed(state, config, path)
    return replace_in(config, fusion=fusion)


def metadata_of(config: AcFpnConfig) -> dict[str, str]:
    """What a file of weights says of itself."""
    return {"fusion": config.fusion, "config": CONFIG.dump_json(config).decode()}


def named(fusion: str | None, path: Path) -> FusionName | None:
    """The fusion that a file's metadata names, by our name or the authors'."""
    for name, entry in FUSIONS.items():
        if fusion in (name, entry.reference):
            return name
    if fusion is not None:
        raise WeightsInvalid(f"{path.name} names the fusion {fusion}; known are {', '.join(FUSIONS)}.")
    return None


def guessed(state: Mapping[str, Tensor], config: AcFpnConfig, path: Path) -> FusionName:
    """The first fusion whose top is as wide as the checkpoint's."""
    lateral = state.get("neck.lateral_convs.3.weight")
    if lateral is None:
        raise WeightsInvalid(f"{path.name} does not fit ACFPN: neck.lateral_convs.3.weight is missing.")
    top, embed = config.audioclip.image.channels[-1], config.audioclip.embed
    for name, entry in FUSIONS.items():
        if entry.channels(top, embed) == lateral.shape[1]:
            return name
    raise WeightsInvalid(f"{path.name} fits no fusion: its pyramid's top has {lateral.shape[1]} channels.")


def load(weights: Weights, device: torch.device | str = "cpu") -> ACFPN:
    """The installed AC-FPN, checked, on the device, for inference only."""
    tiny = weights.identity("ac-fpn").family == "tiny"
    network = load_acfpn(weights.path("ac-fpn"), AcFpnConfig.tiny() if tiny else None)
    return network.to(device).requires_grad_(False)
