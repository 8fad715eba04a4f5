"""AudioCLIP's image tower: CLIP's ResNet with a three-convolution stem and attention instead of pooling.

Images are float [n, 3, H, W], RGB, normalised as `preprocess` does. The tower gives five maps, of which the
first four are the stages and the fifth is what each place looks like in the space shared with text and sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # a bottleneck's output is this many times as wide as its inside
STRIDE = 32  # of the deepest stage: the sides of an image are multiples of it
HEAD_WIDTH = 64


@dataclass(frozen=True)
class ImageConfig:
    """Sizes of the image tower. `resolution` is the one whose grid the positional embedding holds."""

    resolution: int = 224
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the four stages, at strides 4, 8, 16 and 32."""
        base = self.width * EXPANSION
        return base, base * 2, base * 4, base * 8

    @property
    def heads(self) -> int:
        return self.channels[-1] // HEAD_WIDTH


class ImageFeatures(NamedTuple):
    """`maps`: F1..F4 [n, channels, H/4..H/32, ..] and F5 [n, embed, H/32, W/32]; `pooled` [n, embed]."""

    maps: tuple[Tensor, ...]
    pooled: Tensor


class ImageTower(nn.Module):
    """Stem, four stages, attention."""

    def __init__(self, config: ImageConfig, embed: int) -> None:
        super().__init__()
        half, width = config.width // 2, config.width
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, config.layers[0], stride=1)
        self.layer2 = stage(width * 4, width * 2, config.layers[1], stride=2)
        self.layer3 = stage(width * 8, width * 4, config.layers[2], stride=2)
        self.layer4 = stage(width * 16, width * 8, config.layers[3], stride=2)
        self.attnpool = AttentionPool(config.resolution // STRIDE, config.channels[-1], config.heads, embed)

    def forward(self, images: Tensor, *, surgery: bool = False) -> ImageFeatures:
        """Images [n, 3, H, W], sides multiples of 32. `surgery` lets values attend to values."""
        f1 = self.layer1(self.stem(images))
        f2 = self.layer2(f1)
        f3 = self.layer3(f2)
        f4 = self.layer4(f3)
        f5, pooled = self.attnpool(f4, surgery=surgery)
        return ImageFeatures((f1, f2, f3, f4, f5), pooled)

    def stem(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, width, H/4, W/4]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.avg_pool2d(x, 2)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; a stride is an average pool before the last, and before the shortcut's convolution."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        wide = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        nn.init.zeros_(self.bn3.weight)  # each block starts as the identity
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != wide:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))  # so that "0" and "1" are CLIP's keys
            self.downsample.add_module("0", nn.Conv2d(channels, wide, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        return F.relu(y + self.downsample(x))


def stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks, the first of which takes the stride."""
    rest = [Bottleneck(planes * EXPANSION, planes, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels, planes, stride), *rest)


class AttentionPool(nn.Module):
    """Attention over every place of a map and their mean: the mean's answer is the image's feature."""

    def __init__(self, side: int, channels: int, heads: int, embed: int) -> None:
        super().__init__()
        self.side, self.heads = side, heads
        self.positional_embedding = nn.Parameter(torch.randn(side * side + 1, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed)
        for projection in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(projection.weight, std=channels**-0.5)

    def forward(self, x: Tensor, *, surgery: bool = False) -> tuple[Tensor, Tensor]:
        """[n, channels, h, w] -> [n, embed, h, w] and [n, embed].

        With `surgery`, queries and keys are the values too (v-v attention), so that a place listens to places
        that look like it; without, it is CLIP's attention.
        """
        height, width = x.shape[-2:]
        places = x.flatten(2).transpose(1, 2)  # [n, hw, channels], row by row
        tokens = torch.cat([places.mean(1, keepdim=True), places], dim=1) + self.positions(height, width)
        value = self.split(self.v_proj(tokens))
        query = value if surgery else self.split(self.q_proj(tokens))
        key = value if surgery else self.split(self.k_proj(tokens))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out = self.c_proj(mixed.transpose(1, 2).flatten(2))  # [n, 1 + hw, embed]
        return out[:, 1:].transpose(1, 2).reshape(len(x), -1, height, width), out[:, 0]

    def split(self, tokens: Tensor) -> Tensor:
        """[n, tokens, channels] -> [n, heads, tokens, channels / heads]."""
        n, count, channels = tokens.shape
        return tokens.reshape(n, count, self.heads, channels // self.heads).transpose(1, 2)

    def positions(self, height: int, width: int) -> Tensor:
        """The positional embedding [1 + height * width, channels], of another grid by interpolation."""
        if (height, width) == (self.side, self.side):
            return self.positional_embedding
        grid = self.positional_embedding[1:].T.reshape(1, -1, self.side, self.side)
        grid = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
        return torch.cat([self.positional_embedding[:1], grid[0].flatten(1).T])
