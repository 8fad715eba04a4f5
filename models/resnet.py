"""ResNet's residual block and stages, and the ResNet-50 that TPAVI looks through.

The block is also ResNeXt's, where its 3x3 convolution works in groups: AudioCLIP's audio tower is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # a bottleneck's output is this many times as wide as its planes


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of the image tower; the defaults are ResNet-50's."""

    kind: Literal["resnet"] = "resnet"
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the four stages, at strides 4, 8, 16 and 32."""
        base = self.width * EXPANSION
        return base, base * 2, base * 4, base * 8

    @classmethod
    def tiny(cls) -> ResNetConfig:
        """A block a stage."""
        return cls(layers=(1, 1, 1, 1), width=8)


class ResNet(nn.Module):
    """Images [n, 3, H, W] -> the four stages' maps.

    TPAVI's authors built the upper half twice and use the first. Their checkpoints hold both, so both are
    here: `layer3_2` and `layer4_2` compute nothing.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width, (one, two, three, _) = config.width, config.channels
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, config.layers[0], stride=1)
        self.layer2 = stage(one, width * 2, config.layers[1], stride=2)
        self.layer3_1 = stage(two, width * 4, config.layers[2], stride=2)
        self.layer4_1 = stage(three, width * 8, config.layers[3], stride=2)
        self.layer3_2 = stage(two, width * 4, config.layers[2], stride=2)
        self.layer4_2 = stage(three, width * 8, config.layers[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Sides multiples of 32 -> [n, channels, H/4, W/4] to [.., H/32, W/32]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        one = self.layer1(x)
        two = self.layer2(one)
        three = self.layer3_1(two)
        return one, two, three, self.layer4_1(three)


class Bottleneck(nn.Module):
    """1x1, 3x3 of `inside` channels that takes the stride, 1x1."""

    def __init__(self, channels: int, inside: int, wide: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != wide:
            shortcut = nn.Conv2d(channels, wide, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def stage(
    channels: int, planes: int, blocks: int, stride: int, *, inside: int | None = None, groups: int = 1
) -> nn.Sequential:
    """`blocks` bottlenecks, the first of which takes the stride; as wide inside as `planes` unless told."""
    inside, wide = inside or planes, planes * EXPANSION
    first = Bottleneck(channels, inside, wide, stride, groups)
    rest = [Bottleneck(wide, inside, wide, 1, groups) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
