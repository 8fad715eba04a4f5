"""Grounding DINO: boxes for a phrase. Many phrases and many frames go through together.

The paper asks for one caption per category, so a frame with ten categories was ten whole passes. Only fusion,
encoder and decoder depend on both sides: here the image backbone sees each frame once, the text backbone each
caption once, and the (frame, caption) pairs share batches. The boxes are those of one caption at a time. What
a pair answered is remembered, before any threshold: a frame that is asked the same again is not looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoForObjectDetection
from transformers.modeling_outputs import ModelOutput
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map as phrase_masks,
)

from models.checkpoints import load_into, read_safetensors
from models.embedding_cache import CacheCounts, EmbeddingCache, content_key
from models.grounding_dino_configs import build
from models.suppliers import BOX_THRESHOLD, Detection, caption
from models.text_tokens import TextTokens, bert, pad, tiny_bert
from models.weights import Weights

MEAN = (0.485, 0.456, 0.406)  # RGB, of 0..1
STD = (0.229, 0.224, 0.225)
PAIRS_PER_BATCH = 4  # (frame, caption) pairs; one at 800 x 1333 needs some 22,000 tokens through the encoder
# On a CPU such a pair goes alone: four together took 1.1 times as long each, and 3.6 GB more.
CPU_TOKENS = 22_000
IMAGES_PER_BATCH = 8
CAPTIONS_KEPT = 4096
ANSWERS_BYTES = 64 << 20  # the 900 scores and boxes of a pair are 18 kB


@dataclass(frozen=True)
class Resolution:
    """The short side that frames are brought to, unless the long side would exceed `long`. In pixels."""

    short: int
    long: int


PUBLISHED, TINY = Resolution(800, 1333), Resolution(96, 192)


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


def load(weights: Weights, device: torch.device | str = "cpu") -> GroundingDino:
    """The installed Grounding DINO, checked, on the device."""
    name = weights.resolve("grounding-dino")
    path = weights.path(name)
    network = build(name, initialise=False)
    load_into(network, read_safetensors(path), path.name)
    limit = network.config.max_text_len
    if name == "grounding-dino-tiny":
        tokens, resolution = tiny_bert(limit), TINY
    else:
        tokens, resolution = bert(weights.path("bert-base-uncased"), limit), PUBLISHED
    return GroundingDino(network.to(device), tokens, resolution, identity=weights.identity(name).sha256)


class GroundingDino:
    """Implements `Detector`. Safe to share between threads."""

    def __init__(
        self,
        network: GroundingDinoForObjectDetection,
        tokens: TextTokens,
        resolution: Resolution,
        *,
        identity: str,
        cache_bytes: int = ANSWERS_BYTES,
        pairs_per_batch: int = PAIRS_PER_BATCH,
        images_per_batch: int = IMAGES_PER_BATCH,
    ) -> None:
        self.network, self._tokens, self._resolution = network, tokens, resolution
        self._pairs_per_batch, self._images_per_batch = pairs_per_batch, images_per_batch
        self._captions: dict[str, TextFeatures] = {}
        self._identity, self._answers = identity, EmbeddingCache(cache_bytes)
        self._lock = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    @property
    def cache_counts(self) -> CacheCounts:
        """Hits and misses since the start, entries and bytes now, of (frame, caption) pairs."""
        return self._answers.counts

    def forget(self) -> None:
        """Everything that was remembered: the network has learned since, or is to be timed."""
        with self._lock:
            self._captions = {}
        self._answers.clear()

    @torch.inference_mode()
    def detect(
        self, frames: NDArray[np.uint8], labels: Sequence[Sequence[str]], threshold: float = BOX_THRESHOLD
    ) -> list[list[Detection]]:
        """RGB uint8 [n, H, W, 3] and n lists of labels -> for each frame its boxes, label after label.

        Boxes above the threshold come in the order of the network's queries, without suppression of overlaps.
        """
        contents = [content_key(frame, self._identity) for frame in frames]
        keys = {
            (frame, label): contents[frame] + caption(label).encode()
            for frame, asked in enumerate(labels)
            for label in asked
        }
        remembered = {key: self._answers.get(key) for key in dict.fromkeys(keys.values())}
        answers = {key: answer for key, answer in remembered.items() if answer is not None}
        new = {key: pair for pair, key in keys.items() if key not in answers}
        computed = self._computed(frames, list(new.values()))
        for key, pair in new.items():
            answers[key] = computed[pair]
            self._answers.put(key, computed[pair])
        return [
            [
                detection
                for label in asked
                for detection in _detections(answers[keys[frame, label]], label, threshold, frames.shape[1:3])
            ]
            for frame, asked in enumerate(labels)
        ]

    def _computed(
        self, frames: NDArray[np.uint8], pairs: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], Tensor]:
        """Pairs of a frame's place and a label -> score and box cxcywh of each query [q, 5]."""
        texts, answers = self.text([label for _, label in pairs]), dict[tuple[int, str], Tensor]()
        seen = sorted({frame for frame, _ in pairs})
        for start in range(0, len(seen), self._images_per_batch):
            chunk = seen[start : start + self._images_per_batch]
            image = self.image(frames[chunk])
            mine = [pair for pair in pairs if pair[0] in chunk]
            at_once = self._pairs_at_once(image)
            for first in range(0, len(mine), at_once):
                batch = mine[first : first + at_once]
                rows = [chunk.index(frame) for frame, _ in batch]
                scores, boxes = self.pairs(image, rows, [texts[label] for _, label in batch])
                answers |= {
                    pair: torch.cat((score[:, None], box), 1)  # not a view of the batch: it is kept
                    for pair, score, box in zip(batch, scores, boxes, strict=True)
                }
        return answers

    def _pairs_at_once(self, image: ImageFeatures) -> int:
        if self.device.type != "cpu":
            return self._pairs_per_batch
        return min(self._pairs_per_batch, max(1, CPU_TOKENS // image.source.shape[1]))

    def image(self, frames: NDArray[np.uint8]) -> ImageFeatures:
        """Frames of one size [n, H, W, 3] -> the flattened levels the encoder reads: one backbone pass."""
        return self.see(torch.stack([self.preprocess(frame) for frame in frames]).to(self.device))

    def see(self, pixels: Tensor) -> ImageFeatures:
        """The same of frames preprocessed already, [n, 3, h, w]."""
        model = self.network.model
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

    def preprocess(self, frame: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 [H, W, 3] -> normalised float [3, h, w] at the network's resolution."""
        height, width = fitted(frame.shape[0], frame.shape[1], self._resolution)
        resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    @torch.inference_mode()
    def text(self, labels: Sequence[str]) -> dict[str, TextFeatures]:
        """Label -> features of its caption. Captions seen before are not computed again."""
        captions = {label: caption(label) for label in labels}
        with self._lock:
            new = [each for each in dict.fromkeys(captions.values()) if each not in self._captions]
            if new:
                if len(self._captions) + len(new) > CAPTIONS_KEPT:
                    self._captions = {
                        each: self._captions[each] for each in captions.values() if each not in new
                    }
                self._captions |= dict(zip(new, self._encode(new), strict=True))
            return {label: self._captions[each] for label, each in captions.items()}

    def _encode(self, captions: Sequence[str]) -> list[TextFeatures]:
        """Captions of any lengths, in one pass."""
        ids, real = self._tokens.batch(captions)
        return self.read(ids.to(self.device), real)

    def read(self, ids: Tensor, real: Tensor) -> list[TextFeatures]:
        """BERT over ids [n, t], padded on the right: padding is seen by no token and then cut off."""
        model = self.network.model
        mask, positions = phrase_masks(ids, special_tokens=model.special_tokens)
        hidden = model.text_backbone(ids, mask[:, None], torch.zeros_like(ids), positions).last_hidden_state
        features = model.text_projection(hidden)
        lengths = real.sum(1).tolist()
        return [
            TextFeatures(features[row, :length].clone(), mask[row, :length, :length], positions[row, :length])
            for row, length in enumerate(lengths)
        ]

    def pairs(
        self, image: ImageFeatures, rows: Sequence[int], texts: Sequence[TextFeatures]
    ) -> tuple[Tensor, Tensor]:
        """Frame `rows[i]` with `texts[i]` -> best token's probability [p, q], boxes cxcywh [p, q, 4]."""
        answer = self.answers(image, rows, texts)[-1]
        return answer.logits.max(-1).values.sigmoid(), answer.boxes

    def answers(
        self, image: ImageFeatures, rows: Sequence[int], texts: Sequence[TextFeatures]
    ) -> list[Answer]:
        """What every place of the image says, then the queries after each layer of the decoder: the last
        answer counts, the others are for training."""
        model = self.network.model
        text, real = pad([each.features for each in texts])
        shapes = torch.tensor(image.shapes, device=self.device)
        areas = shapes.prod(1)
        source = image.source[rows]
        padding = torch.zeros(source.shape[:2], dtype=torch.bool, device=self.device)
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
        proposed = self._proposals(vision, text, real, padding, image.shapes)
        reference = self._best(proposed)
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
        return [proposed, *self._refined(decoded, reference, text, real)]

    def _refined(self, decoded: ModelOutput, before: Tensor, text: Tensor, real: Tensor) -> Iterator[Answer]:
        """Each layer refines what the one before it proposed; its own refinement is its answer."""
        heads = zip(self.network.class_embed, self.network.bbox_embed, strict=True)
        for layer, (classify, refine) in enumerate(heads):
            hidden = decoded.intermediate_hidden_states[:, layer]
            boxes = (refine(hidden) + torch.special.logit(before, eps=1e-5)).sigmoid()
            yield Answer(classify(hidden, text, real), boxes)
            before = decoded.intermediate_reference_points[:, layer]

    def _proposals(
        self, vision: Tensor, text: Tensor, real: Tensor, padding: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Answer:
        """What each place of the image takes itself for."""
        model = self.network.model
        places, anchors = model.generate_encoder_output_proposals(vision, padding, list(shapes))
        logits = model.encoder_output_class_embed(places, text, real)
        return Answer(logits, (model.encoder_output_bbox_embed(places) + anchors).sigmoid())

    def _best(self, proposed: Answer) -> Tensor:
        """The boxes of the places that agree best with any token, for the queries to start from."""
        agreement = proposed.logits.max(-1).values
        # A sliver of an image has fewer places than there are queries: they start from its best ones again.
        queries, available = self.network.config.num_queries, agreement.shape[1]
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


def fitted(height: int, width: int, resolution: Resolution) -> tuple[int, int]:
    """The size of a frame once its short side has the wanted length, or its long side the longest allowed.
    The short side of a sliver, which the original brings to nothing, is a pixel."""
    short, long = min(height, width), max(height, width)
    target = resolution.short
    if long / short * target > resolution.long:
        target = round(resolution.long * short / long)
    other = int(target * long / short) if target else resolution.long
    return (max(1, target), other) if height < width else (other, max(1, target))


def _detections(answer: Tensor, label: str, threshold: float, size: tuple[int, ...]) -> list[Detection]:
    """The queries [q, 5] above the threshold, their boxes in pixels of the frame."""
    (height, width), scores, boxes = size, answer[:, 0], answer[:, 1:]
    kept = scores > threshold
    scale = boxes.new_tensor([width, height, width, height])
    centre, extent = (boxes[kept] * scale).chunk(2, dim=-1)
    corners = torch.cat([centre - extent / 2, centre + extent / 2], -1)
    return [
        Detection((x1, y1, x2, y2), score, label)
        for (x1, y1, x2, y2), score in zip(corners.tolist(), scores[kept].tolist(), strict=True)
    ]
