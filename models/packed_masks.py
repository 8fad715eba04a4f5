"""Masks at rest: deflated bits, a hundredth of their pixels' bytes. One at full size lives for a moment."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFLATE = 1  # zlib's fastest level: masks are long runs


@dataclass(frozen=True)
class PackedMask:
    """A mask of `size` (height, width): eight pixels a byte, the first in the highest bit, row by row."""

    size: tuple[int, int]
    bits: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """From pixels [H, W]."""
        return cls.of_bytes((mask.shape[0], mask.shape[1]), np.packbits(mask).tobytes())

    @classmethod
    def of_bytes(cls, size: tuple[int, int], packed: bytes) -> PackedMask:
        """From bits that were packed already."""
        return cls(size, zlib.compress(packed, DEFLATE))

    def pixels(self) -> NDArray[np.bool_]:
        """The mask [H, W], made anew."""
        height, width = self.size
        packed = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(packed, count=height * width).astype(bool).reshape(height, width)
