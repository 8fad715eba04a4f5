"""PVT-v2-b5, the transformer that TPAVI looks through: four stages of attention to a shrunken map.

Tokens are [n, places, channels], row by row. Each stage first merges places that overlap, so that its map has
half the sides of the one before (a quarter for the first).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

STAGE_EPS = 1e-6  # of the norms of blocks and stages; those of patches and of shrunken maps have PyTorch's
Sizes = tuple[int, int, int, int]


@dataclass(frozen=True)
class PvtConfig:
    """Sizes; the defaults are PVT-v2-b5's. `shrink` is how many times smaller, a side, the map is that each
    stage attends to; `drop` the share of blocks skipped at the end of the last, rising from 0."""

    kind: Literal["pvt"] = "pvt"
    channels: Sizes = (64, 128, 320, 512)
    heads: Sizes = (1, 2, 5, 8)
    layers: Sizes = (3, 6, 40, 3)
    shrink: Sizes = (8, 4, 2, 1)
    expansion: int = 4
    drop: float = 0.1

    @classmethod
    def tiny(cls) -> PvtConfig:
        """A block a stage."""
        return cls(channels=(16, 32, 48, 64), heads=(1, 2, 3, 4), layers=(1, 1, 1, 1), expansion=2)


class Pvt(nn.Module):
    """Images [n, 3, H, W] -> the four stages' maps. The numbers are in the names of the authors' files."""

    def __init__(self, config: PvtConfig) -> None:
        super().__init__()
        one, two, three, four = config.channels
        self.patch_embed1 = PatchEmbed(3, one, size=7, stride=4)
        self.block1 = blocks(config, 0)
        self.norm1 = nn.LayerNorm(one, STAGE_EPS)
        self.patch_embed2 = PatchEmbed(one, two, size=3, stride=2)
        self.block2 = blocks(config, 1)
        self.norm2 = nn.LayerNorm(two, STAGE_EPS)
        self.patch_embed3 = PatchEmbed(two, three, size=3, stride=2)
        self.block3 = blocks(config, 2)
        self.norm3 = nn.LayerNorm(three, STAGE_EPS)
        self.patch_embed4 = PatchEmbed(three, four, size=3, stride=2)
        self.block4 = blocks(config, 3)
        self.norm4 = nn.LayerNorm(four, STAGE_EPS)
        self.apply(initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Sides multiples of 32 -> [n, channels, H/4, W/4] to [.., H/32, W/32]."""
        one = stage(images, self.patch_embed1, self.block1, self.norm1)
        two = stage(one, self.patch_embed2, self.block2, self.norm2)
        three = stage(two, self.patch_embed3, self.block3, self.norm3)
        return one, two, three, stage(three, self.patch_embed4, self.block4, self.norm4)


def stage(x: Tensor, merge: nn.Module, layers: nn.ModuleList, norm: nn.Module) -> Tensor:
    """A map -> the next one."""
    x = merge(x)
    tokens = as_tokens(x)
    for layer in layers:
        tokens = layer(tokens, x.shape[-2:])
    return as_map(norm(tokens), x.shape[-2:])


def blocks(config: PvtConfig, level: int) -> nn.ModuleList:
    """The blocks of stage `level`; each is skipped a little more often than the one before it."""
    before, depth = sum(config.layers[:level]), sum(config.layers)
    drops = [config.drop * (before + i) / max(1, depth - 1) for i in range(config.layers[level])]
    channels, heads = config.channels[level], config.heads[level]
    return nn.ModuleList(
        Block(channels, heads, config.shrink[level], config.expansion, drop) for drop in drops
    )


def as_tokens(x: Tensor) -> Tensor:
    """[n, channels, h, w] -> [n, hw, channels]."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """[n, hw, channels] -> [n, channels, h, w]."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


class PatchEmbed(nn.Module):
    """A map -> a smaller one, of patches that overlap, normalised."""

    def __init__(self, channels: int, out: int, size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out, size, stride, padding=size // 2)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return as_map(self.norm(as_tokens(x)), x.shape[-2:])


class Block(nn.Module):
    """Attention and an MLP, each a residual; in training each is skipped now and then, image by image."""

    def __init__(self, channels: int, heads: int, shrink: int, expansion: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(channels, STAGE_EPS)
        self.attn = Attention(channels, heads, shrink)
        self.norm2 = nn.LayerNorm(channels, STAGE_EPS)
        self.mlp = Mlp(channels, channels * expansion)

    def forward(self, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        tokens = tokens + self.kept(self.attn(self.norm1(tokens), size))
        return tokens + self.kept(self.mlp(self.norm2(tokens), size))

    def kept(self, residual: Tensor) -> Tensor:
        """The residual, or in training for some images nothing, and for the others as much more."""
        if not self.training or not self.drop:
            return residual
        keep = residual.new_empty(len(residual), 1, 1).bernoulli_(1 - self.drop)
        return residual * keep / (1 - self.drop)


class Attention(nn.Module):
    """Every place asks all places of the map, shrunken where the map is large."""

    def __init__(self, channels: int, heads: int, shrink: int) -> None:
        super().__init__()
        self.heads, self.shrink = heads, shrink
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, channels * 2)
        self.proj = nn.Linear(channels, channels)
        if shrink > 1:
            self.sr = nn.Conv2d(channels, channels, shrink, shrink)
            self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        asked = self.norm(as_tokens(self.sr(as_map(tokens, size)))) if self.shrink > 1 else tokens
        query = self.split(self.q(tokens))
        key, value = (self.split(half) for half in self.kv(asked).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result

    def split(self, tokens: Tensor) -> Tensor:
        """[n, places, channels] -> [n, heads, places, channels / heads]."""
        n, places, channels = tokens.shape
        return tokens.reshape(n, places, self.heads, channels // self.heads).transpose(1, 2)


class Mlp(nn.Module):
    """Two layers, and between them a 3x3 convolution, channel by channel, that tells places apart."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, inside)
        self.dwconv = DepthWise(inside)
        self.fc2 = nn.Linear(inside, channels)

    def forward(self, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(tokens), size)))
        return result


class DepthWise(nn.Module):
    """A 3x3 convolution of tokens, channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        return as_tokens(self.dwconv(as_map(tokens, size)))


def initialise(module: nn.Module) -> None:
    """As its authors do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
