"""The shapes of Grounding DINO: the published ones, the tiny one, and the network of a shape."""

from __future__ import annotations

import torch
from transformers import (
    BertConfig,
    BitConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SwinConfig,
)
from transformers.initialization import no_init_weights

from models.text_tokens import TINY_WORDPIECES

# Of each kind of backbone: made and never used. Published checkpoints do not hold it.
UNUSED_NORM = {"swin": "layernorm", "bit": "norm"}
STAGES = ("stage2", "stage3", "stage4")  # of the backbone: 8, 16 and 32 pixels a place


def build(name: str, *, initialise: bool = True) -> GroundingDinoForObjectDetection:
    """The network of a weight's name, in evaluation mode: random, or undefined when about to be loaded."""
    return assemble(config(name), initialise=initialise)


def assemble(configuration: GroundingDinoConfig, *, initialise: bool) -> GroundingDinoForObjectDetection:
    """The network of any configuration."""
    if initialise:
        network = GroundingDinoForObjectDetection(configuration)
    else:
        with no_init_weights():
            network = GroundingDinoForObjectDetection(configuration)
        network.tie_weights()
    kind = configuration.backbone_config.model_type
    backbone = getattr(network.model.backbone.conv_encoder.model, kind)
    setattr(backbone, UNUSED_NORM[kind], torch.nn.Identity())
    return network.eval()


def _swin(width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int) -> SwinConfig:
    return SwinConfig(
        embed_dim=width,
        depths=list(depths),
        num_heads=list(heads),
        window_size=window,
        out_features=list(STAGES),
    )


def config(name: str) -> GroundingDinoConfig:
    """The configuration of a weight's name."""
    if name == "grounding-dino-swin-t":
        return GroundingDinoConfig(backbone_config=_swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7))
    if name == "grounding-dino-swin-b":
        return GroundingDinoConfig(backbone_config=_swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12))
    # From nothing, on a CPU: in a trial of 150 steps the convolutions of BiT told the classes apart twice as
    # often as those of ConvNeXt at the same cost.
    eyes = BitConfig(
        embedding_size=32,
        hidden_sizes=[64, 96, 128, 192],
        depths=[1, 2, 2, 1],
        num_groups=8,
        out_features=list(STAGES),
    )
    # Nothing is dropped out: SynthAVS never shows the same picture twice.
    text = BertConfig(
        vocab_size=TINY_WORDPIECES,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=eyes,
        text_config=text,
        d_model=64,
        num_queries=20,
        num_feature_levels=3,
        encoder_layers=1,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        encoder_n_points=2,
        decoder_layers=2,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        decoder_n_points=2,
        dropout=0.0,
        fusion_droppath=0.0,
    )
