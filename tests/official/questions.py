"""What both suppliers are asked: small frames, prompts, labels and sounds, the same in both environments."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.mask_grid import GridLimits
from models.media import Window
from models.strategies.options import (
    BoxPromptOptions,
    GateOptions,
    GridThresholds,
    HeatmapBoxPromptOptions,
    NoPromptOptions,
    PointPromptOptions,
    RandomSamOptions,
)
from models.suppliers import Prompt

_RNG = np.random.default_rng(7)
FRAMES = _RNG.integers(0, 256, (2, 90, 120, 3)).astype(np.uint8)
PROMPTS = (
    Prompt(0, np.array([[30, 40]], np.float32), np.array([1])),
    Prompt(1, np.array([[30, 40], [100, 5], [60, 60]], np.float32), np.array([1, 0, 1])),
    Prompt(0, box=(10.0, 20.0, 80.0, 70.0)),
    Prompt(1, np.array([[50, 50]], np.float32), np.array([0]), (5.0, 5.0, 100.0, 80.0)),
)
LABELS = ("dog", "a man speaking", "Church bell")
SHORT, LONG = 160, 260  # pixels; Grounding DINO's resolution here
SOUND = (_RNG.normal(size=(2, 48_000)) * 0.2).astype(np.float32)
SENTENCES = ("dog", "a man speaking", "Church bell, ringing")
ROBERTA = {
    "vocab_size": 260,
    "hidden_size": 768,  # laion-clap's projection wants RoBERTa's own width
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 256,
}
SAM: dict[str, dict[str, Any]] = {  # as transformers names them; `reference.sam` reads them too
    "vision_config": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "mlp_dim": 384,
        "global_attn_indexes": [1, 3],
        "image_size": 256,
        "window_size": 14,
        "output_channels": 64,
        "num_pos_feats": 32,
    },
    "prompt_encoder_config": {"hidden_size": 64, "image_size": 256},
    "mask_decoder_config": {
        "hidden_size": 64,
        "mlp_dim": 256,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 64,
    },
}
BERT = {
    "vocab_size": 1030,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
}
DINO = {
    "hidden_dim": 256,  # groundingdino's text positions are made for 256
    "dim_feedforward": 512,
    "enc_layers": 2,
    "dec_layers": 2,
    "nheads": 8,
    "num_queries": 60,
}

# The grid of `no-prompt`. The limits keep some random masks and refuse some. Boxes of random masks overlap
# nearly whole: `filtered` keeps what passes the filters, `suppressed` the best of those.
GRIDS = {
    "filtered": GridLimits(points_per_side=6, quality=0.8, stability=0.97, overlap=1.0),
    "suppressed": GridLimits(points_per_side=6, quality=0.7, stability=0.96, overlap=0.98),
}

# Whole strategies, through the setting that chooses the supplier. Random networks hear noise in anything, and
# what they hear here is noise.
_DEAF = GateOptions(noise=False, unevenness=0)
STRATEGIES = {
    "random-sam": RandomSamOptions(),
    "point-prompt": PointPromptOptions(gate=_DEAF),
    "heatmap-box-prompt": HeatmapBoxPromptOptions(gate=_DEAF),
    "box-prompt": BoxPromptOptions(labels=LABELS, top_k=2, gate=_DEAF),
    "no-prompt": NoPromptOptions(
        points_per_side=2,
        thresholds=GridThresholds(quality=0.7, stability=0.9, score=0.5),
        gate=_DEAF,
    ),
}


def clip() -> Window:
    """The frames, each with a second of sound at both rates."""
    count = len(FRAMES)
    return Window(
        index=0,
        size=(FRAMES.shape[1], FRAMES.shape[2]),
        timestamps=tuple(map(float, range(count))),
        indices=tuple(range(count)),
        audio_windows=tuple((float(i), i + 1.0) for i in range(count)),
        frames=FRAMES,
        audio={44_100: SOUND[:, :44_100], 48_000: SOUND},
        has_audio=True,
    )
