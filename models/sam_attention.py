"""The attention of SAM's image encoder, without the matrix that it adds to its scores.

SAM adds to each score what the query says of the key's row and column. Written out, as the original and
transformers do, that is a number for every head and pair of places: 805 MB an image in ViT-B's global layers.
But row(q, k) is the product of (what q says of each row) with (1 in k's row, else 0): as further channels of
queries and keys both terms come out of the product of queries and keys itself, and nothing is written out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamVisionAttention


class FoldedAttention(SamVisionAttention):  # type: ignore[misc]
    """Same parameters and, within rounding, same answers as the one that it stands for."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """Tokens [n, h, w, channels] -> the same shape."""
        count, height, width, _ = hidden_states.shape
        places, heads = height * width, self.num_attention_heads
        qkv = self.qkv(hidden_states).reshape(count, places, 3, heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        rows, columns = self.positions(query, height, width)
        queries = torch.cat((query * self.scale, rows, columns), dim=-1)
        keys = torch.cat((key, one_hot_places(height, width, key).expand(count, heads, -1, -1)), dim=-1)
        values = F.pad(value, (0, height + width))  # fast kernels want all three of one width
        answers = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        answers = answers[..., : value.shape[-1]].transpose(1, 2).reshape(count, height, width, -1)
        return self.proj(answers), None

    def positions(self, query: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Queries [n, heads, h * w, c] -> what each says of every row [..., h] and column [..., w]."""
        across = query.reshape(*query.shape[:2], height, width, -1)
        rows = self.get_rel_pos(height, height, self.rel_pos_h)
        columns = self.get_rel_pos(width, width, self.rel_pos_w)
        of_rows = torch.einsum("nghwc,hkc->nghwk", across, rows)
        of_columns = torch.einsum("nghwc,wkc->nghwk", across, columns)
        return of_rows.flatten(2, 3), of_columns.flatten(2, 3)


def one_hot_places(height: int, width: int, like: Tensor) -> Tensor:
    """[h * w, h + w]: the row and the column of each place, as one-hots."""
    rows = torch.eye(height, device=like.device, dtype=like.dtype).repeat_interleave(width, dim=0)
    columns = torch.eye(width, device=like.device, dtype=like.dtype).repeat(height, 1)
    return torch.cat((rows, columns), dim=-1)


def fold(network: SamModel) -> SamModel:
    """Every attention of the image encoder replaced, its parameters kept."""
    for layer in network.vision_encoder.layers:
        with torch.device("meta"):
            folded = FoldedAttention(network.config.vision_config, layer.window_size)
        folded.load_state_dict(layer.attn.state_dict(keep_vars=True), assign=True)
        layer.attn = folded.train(layer.attn.training)
    return network
