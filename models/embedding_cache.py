"""A bounded memory of tensors by content: the same pixels through the same weights are computed once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CACHE_BYTES = 512 << 20  # 128 frames of SAM at full size: 256 x 64 x 64 floats are 4 MiB


@dataclass(frozen=True)
class CacheCounts:
    """How often a lookup found its tensor, and what the cache holds now."""

    hits: int
    misses: int
    entries: int
    bytes: int


class EmbeddingCache:
    """Least recently used tensors leave first when their bytes exceed `limit`. Safe between threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Tensor | None:
        """The tensor of this key, which becomes the most recent one; counts the hit or the miss."""
        with self._lock:
            if key not in self._entries:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: bytes, value: Tensor) -> None:
        """Keep a tensor, unless it alone exceeds the limit. Not a view: that would keep its base alive."""
        size = value.nbytes
        with self._lock:
            if key in self._entries or size > self._limit:
                return
            self._entries[key] = value
            self._bytes += size
            while self._bytes > self._limit:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.nbytes

    def clear(self) -> None:
        """Keep nothing of what was put; the counts of hits and misses stay."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def of_frames(
        self,
        frames: NDArray[np.uint8],
        weights: str,
        compute: Callable[[NDArray[np.uint8]], Tensor],
        per_batch: int,
    ) -> Tensor:
        """Frames [n, ...] -> tensors [n, ...], those that are not here computed `per_batch` at a time."""
        keys = [content_key(frame, weights) for frame in frames]
        cached = {key: self.get(key) for key in dict.fromkeys(keys)}
        found = {key: tensor for key, tensor in cached.items() if tensor is not None}
        missing = [key for key in cached if key not in found]
        for start in range(0, len(missing), per_batch):
            batch = missing[start : start + per_batch]
            computed = compute(frames[[keys.index(key) for key in batch]])
            for key, tensor in zip(batch, computed, strict=True):
                found[key] = tensor.clone()
                self.put(key, found[key])
        return torch.stack([found[key] for key in keys])

    @property
    def counts(self) -> CacheCounts:
        """A consistent snapshot."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._entries), self._bytes)


def content_key(pixels: NDArray[np.uint8], weights: str) -> bytes:
    """sha256 of the pixels, their shape and the identity of the weights that will see them."""
    hasher = hashlib.sha256(f"{weights} {pixels.shape}".encode())
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()
