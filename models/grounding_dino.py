"""Grounding DINO: boxes for a phrase. Many phrases and many frames go through together.

The paper asks for one caption per category, so a frame with ten categories was ten whole passes. Only fusion,
encoder and decoder depend on both sides: here the image backbone sees each frame once, the text backbone each
caption once, and the (frame, caption) pairs share batches. The boxes are those of one caption at a time. What
a pair answered is remembered, before any threshold: a frame that is asked the same again is not looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from models.checkpoints import load_into, read_safetensors
from models.embedding_cache import CacheCounts, EmbeddingCache, content_key
from models.grounding_dino_configs import build
from models.grounding_dino_passes import ImageFeatures, TextFeatures, answers, read, see
from models.suppliers import BOX_THRESHOLD, Detection, caption
from models.text_tokens import TextTokens, bert, tiny_bert
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
        return see(self.network, torch.stack([self.preprocess(frame) for frame in frames]).to(self.device))

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
        return read(self.network, ids.to(self.device), real)

    def pairs(
        self, image: ImageFeatures, rows: Sequence[int], texts: Sequence[TextFeatures]
    ) -> tuple[Tensor, Tensor]:
        """Frame `rows[i]` with `texts[i]` -> best token's probability [p, q], boxes cxcywh [p, q, 4]."""
        answer = answers(self.network, image, rows, texts)[-1]
        return answer.logits.max(-1).values.sigmoid(), answer.boxes


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
