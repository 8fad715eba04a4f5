"""A segmented frame as the client holds it: plain fields, and masks that become arrays when asked for.

NumPy and Pillow only, so that an application that calls the service installs no COCO tools and no server.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BoolMask = NDArray[np.bool_]


@dataclass(frozen=True)
class Mask:
    """A mask as the service wrote it: COCO RLE, or a PNG in base64."""

    document: Mapping[str, Any]

    def pixels(self) -> BoolMask:
        """The mask [H, W]."""
        if self.document["format"] == "png":
            with Image.open(io.BytesIO(base64.b64decode(self.document["data"])), formats=["PNG"]) as image:
                return np.asarray(image) > 127
        height, width = self.document["size"]
        return decode_rle(self.document["counts"], height, width)


@dataclass(frozen=True)
class Instance:
    """One sounding object. `bbox` is x1, y1, x2, y2 in pixels of the frame."""

    id: int
    label: str
    score: float
    audio_score: float | None
    bbox: tuple[float, float, float, float]
    mask: Mask


@dataclass(frozen=True)
class Frame:
    """What sounds in one frame. Times are seconds, `area` is pixels, `reason` says why a mask is empty."""

    index: int
    timestamp: float
    audio_window: tuple[float, float]
    sounding: bool
    area: int
    mask: Mask
    instances: tuple[Instance, ...] = ()
    reason: str | None = None
    heatmap: Mapping[str, Any] | None = None


def read_frame(document: Mapping[str, Any]) -> Frame:
    """A frame of the JSON result."""
    start, end = document["audio_window"]
    return Frame(
        index=document["index"],
        timestamp=document["timestamp"],
        audio_window=(start, end),
        sounding=document["sounding"],
        area=document["area"],
        mask=Mask(document["mask"]),
        instances=tuple(read_instance(instance) for instance in document.get("instances", ())),
        reason=document.get("reason"),
        heatmap=document.get("heatmap"),
    )


def read_instance(document: Mapping[str, Any]) -> Instance:
    left, top, right, bottom = document["bbox"]
    return Instance(
        id=document["id"],
        label=document["label"],
        score=document["score"],
        audio_score=document["audio_score"],
        bbox=(left, top, right, bottom),
        mask=Mask(document["mask"]),
    )


def decode_rle(counts: str, height: int, width: int) -> BoolMask:
    """COCO's compressed run lengths to a mask [H, W].

    A character carries five bits of a number, lowest first, and a sixth that says whether more follow; the
    highest of the five in the last character is the sign. From the fourth on, a number is the difference to
    the run two before. Runs go down the columns and begin with zeros.
    """
    characters = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((characters & 0x20) == 0)  # where each number ends
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    place = np.arange(len(characters)) - np.repeat(first, length)
    numbers = np.add.reduceat((characters & 0x1F) << (5 * place), first)
    numbers -= np.where(characters[last] & 0x10, np.int64(1) << (5 * length), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    if runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"The runs cover {runs.sum()} pixels; the mask has {height} x {width}.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
