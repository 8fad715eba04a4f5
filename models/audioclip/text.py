"""AudioCLIP's text tower: CLIP's causal transformer over byte-pair tokens.

Its parameters have no prefix of their own in the checkpoint, so the embedding, the last norm and the
projection are members of `AudioCLIP`; the blocks are here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower: tokens of a sentence, of the vocabulary, and the transformer's."""

    context: int = 77
    vocabulary: int = 49_408
    width: int = 512
    heads: int = 8
    layers: int = 12


class Transformer(nn.Module):
    """Pre-norm blocks in which a token sees itself and what came before."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        blocks = [Block(config.width, config.heads) for _ in range(config.layers)]
        attention = config.width**-0.5
        projection = attention * (2 * config.layers) ** -0.5
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=attention)
            nn.init.normal_(block.attn.out_proj.weight, std=projection)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * config.width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=projection)
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same."""
        out: Tensor = self.resblocks(x)
        return out


class Block(nn.Module):
    """Attention, then a two-layer perceptron four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Attention(nn.Module):
    """Causal self-attention whose three input projections are one matrix, as in the checkpoint."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        mixed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        mixed = mixed.reshape(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Linear, QuickGELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c_fc(x)
        out: Tensor = self.c_proj(
            y * torch.sigmoid(1.702 * y)
        )  # CLIP was trained with this stand-in for GELU
        return out
