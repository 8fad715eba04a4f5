"""What both suppliers are asked: small frames, prompts, labels and sounds, the same in both environments."""

from __future__ import annotations

import numpy as np

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
