"""The folded attention against transformers' own, which writes its matrix out."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import SamModel

from models import sam
from models.sam_attention import FoldedAttention, fold


@pytest.fixture(scope="module")
def network() -> Any:
    """As transformers builds it, random in every parameter: as built, positions say nothing."""
    torch.manual_seed(0)
    network = SamModel(sam.build("sam-tiny").config).eval()
    with torch.no_grad():
        for parameter in network.vision_encoder.parameters():
            parameter.normal_(std=0.3)
    return network


@pytest.mark.parametrize("layer", [0, 1])
def test_each_kind_of_layer_answers_as_before(network: Any, layer: int) -> None:
    """Windows in the first layer, the whole image in the second; gradients reach the same parameters."""
    ours, theirs = fold(deepcopy(network)).vision_encoder.layers[layer].attn, deepcopy(network)
    side = theirs.vision_encoder.layers[layer].window_size or 10
    tokens, answers, gradients = torch.randn(3, side, side, 96), [], []
    for attention in (ours, theirs.vision_encoder.layers[layer].attn):
        answer = attention(tokens)[0]
        answer.square().sum().backward()
        answers.append(answer.detach())
        gradients.append({name: each.grad for name, each in attention.named_parameters()})
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max())


@torch.inference_mode()
def test_the_image_encoder_embeds_as_before(network: Any) -> None:
    frames = torch.randn(2, 3, 160, 160)
    folded = fold(deepcopy(network))
    before = network.vision_encoder(frames).last_hidden_state
    torch.testing.assert_close(folded.vision_encoder(frames).last_hidden_state, before, rtol=1e-3, atol=1e-3)


def test_names_and_values_of_the_parameters_stay(network: Any) -> None:
    folded = fold(deepcopy(network))
    assert all(isinstance(layer.attn, FoldedAttention) for layer in folded.vision_encoder.layers)
    for (name, value), (theirs, before) in zip(
        folded.state_dict().items(), network.state_dict().items(), strict=True
    ):
        assert name == theirs
        assert torch.equal(value, before)
