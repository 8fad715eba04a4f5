"""In the default environment: the original checkpoints through our key rules, the same questions, compared.

.venv/bin/python -m tests.official FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, ClapConfig, ClapModel, SamConfig, SamModel

from models import grounding_dino, grounding_dino_configs, sam
from models.batching import Batcher
from models.checkpoints import load_into, read_checkpoint
from models.clap import Clap
from models.key_rules import RULES
from models.mask_grid import MaskGrid
from models.networks import Networks
from models.sam_attention import fold
from models.strategies import STRATEGIES
from models.text_tokens import tiny_bert, tiny_roberta
from models.weights import Weights
from tests.official import questions

Row = tuple[str, float, float]  # what, largest difference, tolerance
SIZE = (questions.FRAMES.shape[1], questions.FRAMES.shape[2])


def main(folder: Path) -> int:
    """Print a row for each array; 1 if any differs by more than its tolerance."""
    weights = Weights(folder / "weights", tiny=folder / "tiny")
    networks = Converted(weights)
    failed = 0
    for compare in (compare_sam, compare_grid, compare_grounding_dino, compare_clap, compare_strategies):
        for what, difference, tolerance in compare(networks, folder):
            right = difference <= tolerance
            failed |= not right
            print(f"{what:52} {difference:10.2e} <= {tolerance:.1e}  {'ok' if right else 'FAILED'}")
    return int(failed)


class Converted(Networks):
    """The default supplier's networks, with the official environment's checkpoints, key for key."""

    def __init__(self, weights: Weights) -> None:
        super().__init__("cpu", weights)
        self._loaded = {"sam": self.sam(), "grounding-dino": self.dino(), "clap": self.clap()}

    def filled(self, network: Any, name: str, rules: str) -> Any:
        """A network with the tensors of an original checkpoint."""
        checkpoint = self.weights.original(name)
        load_into(network, RULES[rules].apply(read_checkpoint(checkpoint)), checkpoint.name)
        return network.eval()

    def sam(self) -> sam.Sam:
        """A small one."""
        network = fold(SamModel(SamConfig(**questions.SAM)))
        return sam.Sam(self.filled(network, "sam", "sam"), identity="parity")

    def dino(self) -> grounding_dino.GroundingDino:
        """Swin-T as it is and the rest small."""
        small = questions.DINO
        configuration = grounding_dino_configs.config("grounding-dino-swin-t")
        configuration.text_config = BertConfig(**questions.BERT)
        configuration.d_model, configuration.num_queries = small["hidden_dim"], small["num_queries"]
        configuration.encoder_layers, configuration.decoder_layers = small["enc_layers"], small["dec_layers"]
        configuration.encoder_ffn_dim = configuration.decoder_ffn_dim = small["dim_feedforward"]
        configuration.encoder_attention_heads = configuration.decoder_attention_heads = small["nheads"]
        network = grounding_dino_configs.assemble(configuration, initialise=True)
        return grounding_dino.GroundingDino(
            self.filled(network, "grounding-dino", "grounding-dino"),
            tiny_bert(256),
            grounding_dino.Resolution(questions.SHORT, questions.LONG),
            identity="parity",
        )

    def clap(self) -> Clap:
        """HTSAT-tiny as it is and a small RoBERTa."""
        text = {**questions.ROBERTA, "layer_norm_eps": 1e-5}
        network = ClapModel(ClapConfig(text_config=text))
        return Clap(self.filled(network, "clap", "clap"), tiny_roberta(77))


def largest(ours: Any, theirs: NDArray[Any]) -> float:
    """The largest absolute difference, of arrays of one shape."""
    array = np.asarray(ours)
    if array.shape != theirs.shape:
        return float("inf")
    return float(np.abs(array.astype(np.float64) - theirs).max(initial=0))


def compare_sam(_: Networks, folder: Path) -> Iterator[Row]:
    """Logits at the size of the frames, for points, boxes and both: the authors' predictor against both
    suppliers."""
    network, expected = fold(SamModel(SamConfig(**questions.SAM))).eval(), np.load(folder / "sam.npz")
    load_into(network, RULES["sam"].apply(read_checkpoint(folder / "sam.pth")), "sam.pth")
    segmenter = sam.Sam(network, identity="plain")
    low, scores = segmenter.decode(segmenter.embed(questions.FRAMES), SIZE, questions.PROMPTS)
    answers = {
        "default": (segmenter.upscale(low, SIZE), scores),
        "official": (expected["supplied_logits"], expected["supplied_scores"]),
    }
    for supplier, (logits, qualities) in answers.items():
        yield f"sam, {supplier}: mask logits", largest(logits, expected["logits"]), 3.5e-5
        yield f"sam, {supplier}: predicted qualities", largest(qualities, expected["scores"]), 3.5e-5


def compare_grid(networks: Networks, folder: Path) -> Iterator[Row]:
    """What `no-prompt` finds in a frame against segment-anything's automatic generator: as many objects, in
    the same order, with the same masks, boxes and scores. These masks' logits and opinions are stretched, and
    so is what parts the two networks: a pixel may differ where a logit is next to 0."""
    expected = np.load(folder / "grid.npz")
    mask_grid = MaskGrid(networks["sam"], Batcher())
    for kind, limits in questions.GRIDS.items():
        for index, embedding in enumerate(networks["sam"].embed(questions.FRAMES)):
            found = mask_grid(embedding, SIZE, limits)
            masks, boxes, scores = (expected[f"{of}_{kind}_{index}"] for of in ("masks", "boxes", "scores"))
            asked = 3 * limits.points_per_side**2
            title = f"grid {kind}, frame {index}, {len(masks)} of {asked}"
            assert len(masks) < asked, "the limits should refuse some"
            corners = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (each.box for each in found)]
            yield f"{title}: boxes", largest(corners, boxes), 0.0
            yield f"{title}: scores", largest([each.quality for each in found], scores), 1e-4
            pixels = np.array([each.mask.pixels() for each in found])
            differ = float((pixels != masks).mean()) if pixels.shape == masks.shape else 1.0
            yield f"{title}: pixels", differ, 5e-5


def compare_grounding_dino(networks: Networks, folder: Path) -> Iterator[Row]:
    """Boxes relative to the frame, matched by score: near-ties may swap two queries."""
    detector, expected = networks["grounding-dino"], np.load(folder / "dino.npz")
    found = detector.detect(questions.FRAMES, [questions.LABELS] * len(questions.FRAMES), threshold=0.0)
    relative = np.array([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    boxes = np.array([[each.box for each in frame] for frame in found]) / relative
    scores = np.array([[each.score for each in frame] for frame in found])
    same = np.abs(boxes - expected["boxes"] / relative).max(-1) < 1e-3
    yield "grounding dino: share of queries that swapped", float(1 - same.mean()), 2 / 900
    yield "grounding dino: boxes", float(np.abs(boxes - expected["boxes"] / relative)[same].max()), 5e-6
    yield "grounding dino: probabilities", float(np.abs(scores - expected["scores"])[same].max()), 4.5e-5


def compare_clap(networks: Networks, folder: Path) -> Iterator[Row]:
    """Embeddings of sound and text."""
    encoder, expected = networks["clap"], np.load(folder / "clap.npz")
    yield "clap: audio embeddings", largest(encoder.audio(questions.SOUND), expected["audio"]), 1e-6
    yield "clap: text embeddings", largest(encoder.text(list(questions.SENTENCES)), expected["text"]), 1e-6


def compare_strategies(networks: Networks, folder: Path) -> Iterator[Row]:
    """Whole strategies, there with `supplier` = official: the share of pixels on which the masks differ."""
    for name, options in questions.STRATEGIES.items():
        segmenter = import_module(STRATEGIES[name].module).build(networks)
        masks = np.stack([frame.mask for frame in segmenter(questions.clip(), options)])
        expected = np.load(folder / f"{name}.npz")["masks"]
        lit = float(expected.mean())
        assert lit > 0, f"{name} lit nothing: there is nothing to compare"
        yield f"{name}, {lit:.0%} lit: pixels that differ", float((masks != expected).mean()), 1e-3


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main(Path(sys.argv[1])))
