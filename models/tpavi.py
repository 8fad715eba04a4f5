"""TPAVI, the supervised baseline of AVSBench: every place of every frame asks what is heard in all frames.

    images -> backbone -> four maps -> neck (ASPP) -> TPAVI of the frames of a clip and its sound -> decoder
                                                                        -> sigmoid > 0.5: what sounds

The sound is VGGish's (`models/vggish.py`), 128 numbers a frame. Maps and sound of a clip's frames lie one
after another in a batch: n = clips * frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Discriminator, TypeAdapter
from torch import Tensor, nn

from models.checkpoints import described, load_into, read_checkpoint
from models.errors import WeightsInvalid
from models.key_rules import TPAVI as RULES
from models.pvt import Pvt, PvtConfig
from models.resnet import ResNet, ResNetConfig
from models.weights import Weights

CLIP_FRAMES = 5  # that the network sees together, one a second
STRIDE = 32  # of the deepest map: the sides of an image are multiples of it
DILATIONS = (3, 6, 12, 18)
AVSS_CLASSES = 71  # the background is 0

BackboneName = Literal["resnet50", "pvt-v2-b5"]


@dataclass(frozen=True)
class TpaviConfig:
    """Every size. The defaults are the published network for S4 and MS3 with its stronger backbone."""

    backbone: Annotated[ResNetConfig | PvtConfig, Discriminator("kind")] = field(default_factory=PvtConfig)
    channels: int = 256
    audio: int = 128
    classes: int = 1
    align_bias: bool = True

    @classmethod
    def of(cls, backbone: BackboneName, *, semantic: bool = False) -> TpaviConfig:
        """A published network. `semantic` is AVSS's: its classes, and no bias where sound is aligned."""
        sizes = ResNetConfig() if backbone == "resnet50" else PvtConfig()
        return cls(sizes, classes=AVSS_CLASSES, align_bias=False) if semantic else cls(sizes)

    @classmethod
    def tiny(cls, backbone: BackboneName = "pvt-v2-b5") -> TpaviConfig:
        """A few hundred thousand numbers."""
        sizes = ResNetConfig.tiny() if backbone == "resnet50" else PvtConfig.tiny()
        return cls(sizes, channels=16)


CONFIG = TypeAdapter(TpaviConfig)  # to JSON and back: trained weights carry their sizes


class Segmented(NamedTuple):
    """Logits [n, classes, H, W]; and for the matching loss, of each of four stages, from large to small, the
    map [n, channels, h, w], never below 0, and the sound brought to as many channels [n, channels]."""

    logits: Tensor
    maps: tuple[Tensor, ...]
    audio: tuple[Tensor, ...]


class TPAVI(nn.Module):
    """Backbone, neck, attention, decoder: the numbers in names are the stages', 4 the deepest."""

    def __init__(self, config: TpaviConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TpaviConfig()
        # Checkpoints name the backbone by its kind.
        if isinstance(config.backbone, ResNetConfig):
            self.resnet = ResNet(config.backbone)
        else:
            self.encoder_backbone = Pvt(config.backbone)
        width, (one, two, three, four) = config.channels, config.backbone.channels
        self.conv4, self.conv3 = Aspp(four, width), Aspp(three, width)
        self.conv2, self.conv1 = Aspp(two, width), Aspp(one, width)
        self.path4, self.path3 = Fusion(width), Fusion(width)
        self.path2, self.path1 = Fusion(width), Fusion(width)
        self.tpavi_b1, self.tpavi_b2 = Attention(config), Attention(config)
        self.tpavi_b3, self.tpavi_b4 = Attention(config), Attention(config)
        self.output_conv = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(width // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, config.classes, 1),
        )

    @property
    def backbone(self) -> nn.Module:
        """What sees the images."""
        return self.resnet if isinstance(self.config.backbone, ResNetConfig) else self.encoder_backbone

    def forward(self, images: Tensor, sound: Tensor, frames: int = CLIP_FRAMES) -> Segmented:
        """Images [n, 3, H, W] normalised, sides multiples of 32; sound [n, audio]; n = clips * frames."""
        if any(side % STRIDE for side in images.shape[-2:]):
            raise ValueError(f"Sides of {tuple(images.shape[-2:])} are not multiples of {STRIDE} pixels.")
        one, two, three, four = self.backbone(images)
        x1, a1 = self.tpavi_b1(self.conv1(one), sound, frames)
        x2, a2 = self.tpavi_b2(self.conv2(two), sound, frames)
        x3, a3 = self.tpavi_b3(self.conv3(three), sound, frames)
        x4, a4 = self.tpavi_b4(self.conv4(four), sound, frames)
        # The authors' decoder clips these in place, so that the loss sees them clipped too.
        x1, x2, x3, x4 = F.relu(x1), F.relu(x2), F.relu(x3), F.relu(x4)
        x = self.path3(self.path4(x4), x3)
        x = self.path1(self.path2(x, x2), x1)
        return Segmented(self.output_conv(x), (x1, x2, x3, x4), (a1, a2, a3, a4))


class Aspp(nn.Module):
    """What a place looks like, near and far: the sum of four 3x3 convolutions of different reach."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, out, 3, padding=reach, dilation=reach) for reach in DILATIONS]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        self.conv2d_list = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        views: list[Tensor] = [conv(x) for conv in self.conv2d_list]
        return sum(views[1:], start=views[0])


class Attention(nn.Module):
    """Temporal pixel-wise audio-visual interaction: what all places of all frames of a clip show, each as far
    as the sound of its frame is what the asking place listens for."""

    def __init__(self, config: TpaviConfig) -> None:
        super().__init__()
        width, half = config.channels, config.channels // 2
        self.align_channel = nn.Linear(config.audio, width, bias=config.align_bias)
        self.norm_layer = nn.LayerNorm(width)
        self.g = nn.Conv3d(width, half, 1)
        self.W_z = nn.Sequential(nn.Conv3d(half, width, 1), nn.BatchNorm3d(width))
        for zero in self.W_z[1].parameters():
            nn.init.zeros_(zero)  # the block starts as the identity
        self.theta = nn.Conv3d(width, half, 1)
        self.phi = nn.Conv3d(width, half, 1)

    def forward(self, x: Tensor, sound: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Maps [n, channels, h, w] and sound [n, audio] -> maps of that size, and the sound [n, channels].

        The published product is softmax-free: theta^T phi g^T / (T h w), over all pairs of places. phi is the
        same at all places of a frame, so g is averaged over them first, and no pair is ever written down.
        """
        aligned = self.align_channel(sound)
        heard = aligned.reshape(-1, frames, aligned.shape[1], 1, 1).transpose(1, 2)  # [clips, c, T, 1, 1]
        seen = x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)  # [clips, c, T, h, w]
        shown = self.g(seen).mean((3, 4))  # [clips, c/2, T]
        pairs = self.phi(heard)[..., 0, 0] @ shown.transpose(1, 2) / frames  # [clips, c/2, c/2]
        y = torch.einsum("nithw,nij->njthw", self.theta(seen), pairs)
        z = self.W_z(y) + seen
        z = self.norm_layer(z.movedim(1, -1)).movedim(-1, 2)  # [clips, T, c, h, w]
        return z.flatten(0, 1), aligned


class Fusion(nn.Module):
    """The map from above joined by the stage's own, refined, and doubled in size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resConfUnit1 = Residual(width)  # of the deepest: unused, and in the checkpoints
        self.resConfUnit2 = Residual(width)

    def forward(self, above: Tensor, own: Tensor | None = None) -> Tensor:
        x = above if own is None else above + self.resConfUnit1(own)
        return F.interpolate(self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True)


class Residual(nn.Module):
    """Two convolutions of the clipped map, added to it: the authors' ReLU works in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        residual: Tensor = self.conv2(F.relu(self.conv1(x)))
        return residual + x


def sounding(logits: Tensor) -> Tensor:
    """Logits [n, classes, H, W] -> of anything sounding, [n, H, W]. Of several classes the first is the
    background: the probability of all others together."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[:, 1:].logsumexp(1) - logits[:, 0]


def config_of(path: Path, state: Mapping[str, Tensor]) -> TpaviConfig:
    """What network the tensors of a file are: as its metadata says, else a published one, by its keys."""
    if told := described(path, CONFIG):
        return told
    last = state.get("output_conv.4.weight")
    if last is None:
        raise WeightsInvalid(f"{path.name} does not fit TPAVI: output_conv.4.weight is missing.")
    backbone: BackboneName = "resnet50" if "resnet.conv1.weight" in state else "pvt-v2-b5"
    return TpaviConfig.of(backbone, semantic=len(last) > 1)


def metadata_of(config: TpaviConfig) -> dict[str, str]:
    """What a file of weights says of itself."""
    return {"config": CONFIG.dump_json(config).decode()}


def load_tpavi(path: Path) -> TPAVI:
    """A network from our file or the authors' checkpoint, in evaluation mode."""
    state = RULES.apply(read_checkpoint(path))
    with torch.device("meta"):  # no time goes into random numbers that the file replaces
        network = TPAVI(config_of(path, state)).to_empty(device="cpu")
    load_into(network, state, path.name)
    return network.eval()


def load(weights: Weights, device: torch.device | str = "cpu") -> TPAVI:
    """The installed TPAVI, checked, on the device, for inference only."""
    return load_tpavi(weights.path("tpavi")).to(device).requires_grad_(False)
