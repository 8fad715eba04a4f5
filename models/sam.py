"""SAM: an image is embedded once; any number of points and boxes is then turned into masks at little cost.

The network is transformers' `SamModel`. Resizing, padding, prompts and un-padding are ours and follow the
original predictor: long side to the network's size by PIL's bilinear filter, zero padding on the right and
below, mask logits back through the padded square to the size of the frame, threshold 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.initialization import no_init_weights

from models.checkpoints import load_into, read_safetensors
from models.embedding_cache import CACHE_BYTES, CacheCounts, EmbeddingCache
from models.sam_attention import fold
from models.suppliers import MULTIMASK, PROMPTS_PER_BATCH, Prompt
from models.weights import Weights

MEAN = (123.675, 116.28, 103.53)  # RGB, of 0..255
STD = (58.395, 57.12, 57.375)
IMAGES_PER_BATCH = 16
# On a CPU batches are as small as is no slower, for the memory they take. An image at full size is 64 x 64
# places and goes alone: five together took 1.1 times as long each. Prompts gain nothing beyond eight.
CPU_IMAGE_PLACES, CPU_PROMPT_PLACES = 64 * 64, 8 * 64 * 64


def _vit(hidden: int, layers: int, heads: int, windows_every: int) -> dict[str, Any]:
    """One of the published image encoders: every n-th layer attends to the whole image."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_dim": 4 * hidden,
        "global_attn_indexes": list(range(windows_every - 1, layers, windows_every)),
    }


CONFIGS: Mapping[str, Mapping[str, dict[str, Any]]] = MappingProxyType(
    {
        "sam-vit-h": {"vision_config": _vit(1280, 32, 16, 8)},
        "sam-vit-l": {"vision_config": _vit(1024, 24, 16, 6)},
        "sam-vit-b": {"vision_config": _vit(768, 12, 12, 3)},
        "sam-tiny": {
            "vision_config": _vit(96, 4, 4, 2)
            | {"image_size": 160, "window_size": 5, "output_channels": 64, "num_pos_feats": 32},
            "prompt_encoder_config": {"hidden_size": 64, "image_size": 160},
            "mask_decoder_config": {
                "hidden_size": 64,
                "mlp_dim": 256,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 64,
            },
        },
    }
)


def build(name: str, *, initialise: bool = True) -> SamModel:
    """The network of a weight's name, in evaluation mode: random, or undefined when about to be loaded."""
    config = SamConfig(**CONFIGS[name])
    if initialise:
        return fold(SamModel(config)).eval()
    with no_init_weights():
        network = SamModel(config)
    network.tie_weights()
    return fold(network).eval()


def load(weights: Weights, device: torch.device | str = "cpu") -> Sam:
    """The installed SAM, checked, on the device."""
    name = weights.resolve("sam")
    path = weights.path(name)
    network = build(name, initialise=False)
    load_into(network, read_safetensors(path), path.name)
    return Sam(network.to(device), identity=weights.identity(name).sha256)


class Sam:
    """Implements `PromptedSegmenter`. Safe to share between threads."""

    def __init__(
        self,
        network: SamModel,
        *,
        identity: str,
        cache_bytes: int = CACHE_BYTES,
        images_per_batch: int = IMAGES_PER_BATCH,
        prompts_per_batch: int = PROMPTS_PER_BATCH,
    ) -> None:
        self.network = network
        self.size: int = network.config.vision_config.image_size
        self._identity = identity
        self._cache = EmbeddingCache(cache_bytes)
        self._images_per_batch, self._prompts_per_batch = images_per_batch, prompts_per_batch

    @property
    def cache_counts(self) -> CacheCounts:
        """Hits and misses since the start, entries and bytes now."""
        return self._cache.counts

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    @torch.inference_mode()
    def embed(self, frames: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 [n, H, W, 3] -> image embeddings [n, C, s, s] on the device, new frames in one batch."""
        at_once = self._at_once(self._images_per_batch, CPU_IMAGE_PLACES)
        return self._cache.of_frames(frames, self._identity, self._embed, at_once)

    def _at_once(self, limit: int, cpu_places: int) -> int:
        """How many images or prompts a batch holds on this device."""
        if self.device.type != "cpu":
            return limit
        places: int = (self.size // self.network.config.vision_config.patch_size) ** 2
        return min(limit, max(1, cpu_places // places))

    def _embed(self, frames: NDArray[np.uint8]) -> Tensor:
        pixels = torch.stack([self.preprocess(frame) for frame in frames])
        embeddings: Tensor = self.network.vision_encoder(pixels.to(self.device)).last_hidden_state
        return embeddings

    def preprocess(self, frame: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 [H, W, 3] -> float [3, size, size], normalised, the frame in the upper left corner."""
        height, width = self.fitted(frame.shape[:2])
        resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()
        normal = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        return F.pad(normal, (0, self.size - width, 0, self.size - height))

    def fitted(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of a frame once its long side has the network's size. The short side of a sliver,
        which the original brings to nothing, is a pixel."""
        scale = self.size / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))

    @torch.inference_mode()
    def decode(
        self, embeddings: Tensor, size: tuple[int, int], prompts: Sequence[Prompt], *, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution mask logits [p, k, size/4, size/4] and predicted qualities [p, k], on the device.

        Prompts of any frames share batches, but only with prompts of as many points: a padded point would be
        one more token that the others attend to.
        """
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[prompt.shape].append(index)
        side, count = self.size // 4, MULTIMASK if multimask else 1
        logits = embeddings.new_empty((len(prompts), count, side, side))
        scores = embeddings.new_empty((len(prompts), count))
        at_once = self._at_once(self._prompts_per_batch, CPU_PROMPT_PLACES)
        for indices in groups.values():
            for start in range(0, len(indices), at_once):
                batch = indices[start : start + at_once]
                chosen = [prompts[index] for index in batch]
                logits[batch], scores[batch] = self._decode_batch(embeddings, size, chosen, multimask)
        return logits, scores

    def _decode_batch(
        self, embeddings: Tensor, size: tuple[int, int], prompts: Sequence[Prompt], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Prompts of one shape, each an item of the batch with the embedding of its frame."""
        height, width = self.fitted(size)
        scale = np.array([width / size[1], height / size[0]], np.float32)
        points = labels = boxes = None
        if prompts[0].points is not None:
            points = self._tensor([np.asarray(prompt.points, np.float32) * scale for prompt in prompts])
            labels = self._tensor([prompt.labels for prompt in prompts])
        if prompts[0].box is not None:
            boxes = self._tensor(
                [np.asarray(prompt.box, np.float32) * np.tile(scale, 2) for prompt in prompts]
            )
        mine = embeddings[[prompt.frame for prompt in prompts]]
        return self.answer(mine, points, labels, boxes, multimask=multimask)

    def answer(
        self,
        embeddings: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits [p, k, s, s] and qualities [p, k] of prompts, each with the embedding of its frame.

        Points [p, n, 2] with labels [p, n], boxes [p, 4], both in pixels of the network.
        """
        network = self.network
        # The network wants prompts as (image, prompt of the image, ...).
        sparse, dense = network.prompt_encoder(
            *(None if each is None else each[:, None] for each in (points, labels, boxes)), None
        )
        positions = network.get_image_wide_positional_embeddings().expand(len(embeddings), -1, -1, -1)
        logits, scores = network.mask_decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits[:, 0], scores[:, 0]

    def _tensor(self, rows: Sequence[Any]) -> Tensor:
        """One row a prompt -> [p, ...] on the device."""
        return torch.from_numpy(np.stack(rows)).to(self.device)

    @torch.inference_mode()
    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits [p, k, s, s] -> logits at the size of the frame [p, k, H, W]."""
        height, width = self.fitted(size)
        square = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        return F.interpolate(square[..., :height, :width], size, mode="bilinear", align_corners=False)
