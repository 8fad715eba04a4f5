"""Sentences as unit rows: each is encoded once, and remembered until too many others came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.errors import InvalidOption

PER_BATCH = 64
KEPT = 8192


class TextRows:
    """`encode` makes rows [n, d] of n new sentences. Safe to share between threads."""

    def __init__(self, encode: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode
        self._rows: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Rows [n, d] of n sentences, at least one."""
        if not sentences:
            raise InvalidOption("The vocabulary is empty; name at least one sound.")
        with self._lock:
            new = [each for each in dict.fromkeys(sentences) if each not in self._rows]
            if len(self._rows) + len(new) > KEPT:
                self._rows = {each: self._rows[each] for each in sentences if each in self._rows}
            for start in range(0, len(new), PER_BATCH):
                batch = new[start : start + PER_BATCH]
                # Clones: a view would keep the rows of its whole batch alive.
                rows = [row.clone() for row in self._encode(batch)]
                self._rows |= dict(zip(batch, rows, strict=True))
            return torch.stack([self._rows[each] for each in sentences])
