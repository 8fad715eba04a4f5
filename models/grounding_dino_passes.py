"""Grounding DINO's passes: over images, over captions, and over pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection
from transformers.modeling_outputs import ModelOutput
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map as phrase_masks,
)

from models.text_tokens import pad


@dataclass(frozen=True)
class ImageFeatures:
    """The levels of n frames, flattened to [n, s, d], their positions, and each level's height, width."""

    source: Tensor
    positions: Tensor
    shapes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TextFeatures:
    """One caption: BERT's features [t, d], which tokens see each other [t, t], places in the phrase [t]."""

    features: Tensor
    mask: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Answer:
    """Of n places or queries for p pairs: logits of every token [p, n, tokens], -inf where the caption has
    ended, and boxes cxcywh in 0..1 of the frame [p, n, 4]."""

    logits: Tensor
    boxes: Tensor


def see(network: GroundingDinoForObjectDetection, pixels: Tensor) -> ImageFeatures:
    """Preprocessed frames [n, 3, h, w] -> the flattened levels the encoder reads: one backbone pass."""
    model = network.model
    mask = pixels.new_ones(pixels[:, 0].shape, dtype=torch.long)  # one size: nothing is padding
    levels, positions = model.backbone(pixels, mask)
    maps = [project(level) for project, (level, _) in zip(model.input_proj_vision, levels, strict=False)]
    coarser = levels[-1][0]
    for project in model.input_proj_vision[len(levels) :]:
        coarser = project(coarser)
        maps.append(coarser)
        whole = mask.new_ones((len(pixels), *coarser.shape[-2:]), dtype=torch.bool)
        positions.append(model.backbone.position_embedding(coarser, whole).to(coarser.dtype))
    placed = [
        position.flatten(2).transpose(1, 2) + level
        for position, level in zip(positions, model.level_embed, strict=True)
    ]
    source = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
    return ImageFeatures(source, torch.cat(placed, 1), tuple((m.shape[-2], m.shape[-1]) for m in maps))


def read(network: GroundingDinoForObjectDetection, ids: Tensor, real: Tensor) -> list[TextFeatures]:
    """BERT over ids [n, t], padded on the right: padding is seen by no token and then cut off."""
    model = network.model
    mask, positions = phrase_masks(ids, special_tokens=model.special_tokens)
    hidden = model.text_backbone(ids, mask[:, None], torch.zeros_like(ids), positions).last_hidden_state
    features = model.text_projection(hidden)
    lengths = real.sum(1).tolist()
    return [
        TextFeatures(features[row, :length].clone(), mask[row, :length, :length], positions[row, :length])
        for row, length in enumerate(lengths)
    ]


def answers(
    network: GroundingDinoForObjectDetection,
    image: ImageFeatures,
    rows: Sequence[int],
    texts: Sequence[TextFeatures],
) -> list[Answer]:
    """Of the pairs frame `rows[i]` and `texts[i]`: what every place of the image says, then the queries after
    each layer of the decoder: the last answer counts, the others are for training."""
    model, device = network.model, image.source.device
    text, real = pad([each.features for each in texts])
    shapes = torch.tensor(image.shapes, device=device)
    areas = shapes.prod(1)
    source = image.source[rows]
    padding = torch.zeros(source.shape[:2], dtype=torch.bool, device=device)
    place = {
        "spatial_shapes": shapes,
        "spatial_shapes_list": list(image.shapes),
        "level_start_index": areas.cumsum(0) - areas,
        "valid_ratios": source.new_ones(len(rows), len(image.shapes), 2),
    }
    vision, text = model.encoder(
        vision_features=source,
        vision_attention_mask=padding,
        vision_position_embedding=image.positions[rows],
        text_features=text,
        text_attention_mask=~real,
        text_self_attention_masks=~sight(texts),
        text_position_ids=pad([each.positions for each in texts])[0],
        return_dict=False,
        **place,
    )[:2]
    proposed = _proposals(network, vision, text, real, padding, image.shapes)
    reference = _best(proposed, network.config.num_queries)
    decoded = model.decoder(
        inputs_embeds=model.query_position_embeddings.weight.expand(len(rows), -1, -1),
        vision_encoder_hidden_states=vision,
        vision_encoder_attention_mask=~padding,
        text_encoder_hidden_states=text,
        text_encoder_attention_mask=~real,
        reference_points=reference,
        return_dict=True,
        **place,
    )
    return [proposed, *_refined(network, decoded, reference, text, real)]


def _refined(
    network: GroundingDinoForObjectDetection, decoded: ModelOutput, before: Tensor, text: Tensor, real: Tensor
) -> Iterator[Answer]:
    """Each layer refines what the one before it proposed; its own refinement is its answer."""
    heads = zip(network.class_embed, network.bbox_embed, strict=True)
    for layer, (classify, refine) in enumerate(heads):
        hidden = decoded.intermediate_hidden_states[:, layer]
        boxes = (refine(hidden) + torch.special.logit(before, eps=1e-5)).sigmoid()
        yield Answer(classify(hidden, text, real), boxes)
        before = decoded.intermediate_reference_points[:, layer]


def _proposals(
    network: GroundingDinoForObjectDetection,
    vision: Tensor,
    text: Tensor,
    real: Tensor,
    padding: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Answer:
    """What each place of the image takes itself for."""
    model = network.model
    places, anchors = model.generate_encoder_output_proposals(vision, padding, list(shapes))
    logits = model.encoder_output_class_embed(places, text, real)
    return Answer(logits, (model.encoder_output_bbox_embed(places) + anchors).sigmoid())


def _best(proposed: Answer, queries: int) -> Tensor:
    """The boxes of the places that agree best with any token, for the queries to start from."""
    agreement = proposed.logits.max(-1).values
    # A sliver of an image has fewer places than there are queries: they start from its best ones again.
    available = agreement.shape[1]
    best = agreement.topk(min(queries, available), dim=1).indices
    best = best[:, torch.arange(queries, device=best.device) % available]
    return proposed.boxes.gather(1, best[..., None].expand(-1, -1, 4)).detach()


def sight(texts: Sequence[TextFeatures]) -> Tensor:
    """Which tokens of each caption see each other, bool [p, longest, longest]; padding sees itself."""
    longest, device = max(len(each.positions) for each in texts), texts[0].mask.device
    sees = torch.eye(longest, dtype=torch.bool, device=device).repeat(len(texts), 1, 1)
    for row, each in zip(sees, texts, strict=True):
        length = len(each.positions)
        row[:length, :length] = each.mask
    return sees
