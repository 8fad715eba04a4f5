"""In the default environment: the original checkpoints through our key rules, the same questions, compared.

.venv/bin/python -m tests.official FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, ClapConfig, ClapModel

from models import grounding_dino, sam
from models.checkpoints import load_into, read_checkpoint
from models.clap import Clap
from models.key_rules import RULES
from models.text_tokens import tiny_bert, tiny_roberta
from tests.official import questions

Row = tuple[str, float, float]  # what, largest difference, tolerance


def main(folder: Path) -> int:
    """Print a row for each array; 1 if any differs by more than its tolerance."""
    failed = 0
    for compare in (compare_sam, compare_grounding_dino, compare_clap):
        for what, difference, tolerance in compare(folder):
            right = difference <= tolerance
            failed |= not right
            print(f"{what:44} {difference:10.2e} <= {tolerance:.1e}  {'ok' if right else 'FAILED'}")
    return int(failed)


def loaded(network: Any, rules: str, checkpoint: Path) -> Any:
    """The network with an original checkpoint, key for key."""
    load_into(network, RULES[rules].apply(read_checkpoint(checkpoint)), checkpoint.name)
    return network.eval()


def largest(ours: Any, theirs: NDArray[Any]) -> float:
    """The largest absolute difference, of arrays of one shape."""
    array = np.asarray(ours)
    assert array.shape == theirs.shape, (array.shape, theirs.shape)
    return float(np.abs(array - theirs).max())


def compare_sam(folder: Path) -> Iterator[Row]:
    """Logits at the size of the frames, for points, boxes and both."""
    segmenter = sam.Sam(loaded(sam.build("sam-tiny"), "sam", folder / "sam.pth"), identity="parity")
    expected = np.load(folder / "sam.npz")
    size = (questions.FRAMES.shape[1], questions.FRAMES.shape[2])
    low, scores = segmenter.decode(segmenter.embed(questions.FRAMES), size, questions.PROMPTS)
    yield "sam: mask logits", largest(segmenter.upscale(low, size), expected["logits"]), 3.5e-5
    yield "sam: predicted qualities", largest(scores, expected["scores"]), 3.5e-5


def compare_grounding_dino(folder: Path) -> Iterator[Row]:
    """Boxes relative to the frame, matched by score: near-ties may swap two queries."""
    small = questions.DINO
    configuration = grounding_dino.config("grounding-dino-swin-t")
    configuration.text_config = BertConfig(**questions.BERT)
    configuration.d_model, configuration.num_queries = small["hidden_dim"], small["num_queries"]
    configuration.encoder_layers, configuration.decoder_layers = small["enc_layers"], small["dec_layers"]
    configuration.encoder_ffn_dim = configuration.decoder_ffn_dim = small["dim_feedforward"]
    configuration.encoder_attention_heads = configuration.decoder_attention_heads = small["nheads"]
    network = grounding_dino.assemble(configuration, initialise=True)
    detector = grounding_dino.GroundingDino(
        loaded(network, "grounding-dino", folder / "dino.pth"),
        tiny_bert(256),
        grounding_dino.Resolution(questions.SHORT, questions.LONG),
    )
    found = detector.detect(questions.FRAMES, [questions.LABELS] * len(questions.FRAMES), threshold=0.0)
    expected = np.load(folder / "dino.npz")
    height, width = questions.FRAMES.shape[1:3]
    relative = np.array([width, height, width, height])
    boxes = np.array([[each.box for each in frame] for frame in found]) / relative
    scores = np.array([[each.score for each in frame] for frame in found])
    same = np.abs(boxes - expected["boxes"] / relative).max(-1) < 1e-3
    yield "grounding dino: share of queries that swapped", float(1 - same.mean()), 2 / 900
    yield "grounding dino: boxes", float(np.abs(boxes - expected["boxes"] / relative)[same].max()), 5e-6
    yield "grounding dino: probabilities", float(np.abs(scores - expected["scores"])[same].max()), 4.5e-5


def compare_clap(folder: Path) -> Iterator[Row]:
    """Embeddings of sound and text."""
    text = {**questions.ROBERTA, "layer_norm_eps": 1e-5}
    network = loaded(ClapModel(ClapConfig(text_config=text)), "clap", folder / "clap.pth")
    encoder, expected = Clap(network, tiny_roberta(77)), np.load(folder / "clap.npz")
    yield "clap: audio embeddings", largest(encoder.audio(questions.SOUND), expected["audio"]), 1e-6
    yield "clap: text embeddings", largest(encoder.text(list(questions.SENTENCES)), expected["text"]), 1e-6


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main(Path(sys.argv[1])))
