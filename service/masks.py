"""A mask on the wire: COCO RLE or PNG, named in every mask, and the JSON line of a frame. Torch-free."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from models.media import Window
from models.strategies import FrameMasks, Instance

BoolMask = NDArray[np.bool_]
SCORE_DIGITS = 4
PIXEL_DIGITS = 2
SECOND_DIGITS = 6


class Rle(TypedDict):
    """COCO compressed run lengths, column-major; `size` is height, width. pycocotools reads it as it is."""

    format: Literal["coco_rle"]
    size: list[int]
    counts: str


class Png(TypedDict):
    """An 8-bit grey PNG in base64; `size` is height, width."""

    format: Literal["png"]
    size: list[int]
    data: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Outputs:
    """What a frame of the answer holds."""

    mask: Literal["rle", "png"] = "rle"
    """How the masks inside JSON are written: COCO run lengths, or a PNG in base64."""
    heatmap: bool = False
    """Add the strategy's heat map, an 8-bit PNG at its own resolution, where it has one."""
    instances: bool = True
    """Add each sounding object with its own mask; without, only their union is sent."""


def to_rle(mask: BoolMask) -> Rle:
    """Encode a mask [H, W]; an empty one is a single run of zeros.

    Turning a mask column-major takes most of the time; what is all one value, as every silent frame is, need
    not be turned.
    """
    if mask.all() or not mask.any():
        runs = [0, mask.size] if mask.any() else [mask.size]
        encoded = coco.frPyObjects({"size": [*mask.shape], "counts": runs}, *mask.shape)
    else:
        encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"format": "coco_rle", "size": [*mask.shape], "counts": encoded["counts"].decode("ascii")}


def from_rle(rle: Rle) -> BoolMask:
    """The mask [H, W] of an RLE."""
    return np.ascontiguousarray(coco.decode({"size": rle["size"], "counts": rle["counts"]}), bool)


def to_png(mask: BoolMask) -> bytes:
    """An 8-bit grey PNG, 0 and 255; the same mask always gives the same bytes."""
    return grey_png(mask.astype(np.uint8) * 255)


def from_png(data: bytes) -> BoolMask:
    """The mask [H, W] of a PNG that `to_png` wrote."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image) > 127


def grey_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [H, W] as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_mask(mask: BoolMask, form: Literal["rle", "png"]) -> Rle | Png:
    """A mask as it stands inside JSON."""
    return to_rle(mask) if form == "rle" else embedded_png(to_png(mask), mask.shape)


def read_mask(document: Rle | Png) -> BoolMask:
    """The pixels of a mask that stands inside JSON, whichever form it has."""
    if document["format"] == "coco_rle":
        return from_rle(document)
    return from_png(base64.b64decode(document["data"]))


def embedded_png(data: bytes, shape: tuple[int, ...]) -> Png:
    return {"format": "png", "size": [*shape], "data": base64.b64encode(data).decode("ascii")}


def frame_line(window: Window, position: int, masks: FrameMasks, outputs: Outputs) -> bytes:
    """The frame at `position` of its window as one line of NDJSON: deterministic, no timing inside."""
    document = {
        "index": window.indices[position],
        "timestamp": round(window.timestamps[position], SECOND_DIGITS),
        "audio_window": [round(second, SECOND_DIGITS) for second in window.audio_windows[position]],
        "sounding": bool(masks.mask.any()),
        "mask": write_mask(masks.mask, outputs.mask),
        "area": int(np.count_nonzero(masks.mask)),
    }
    if masks.reason is not None:
        document["reason"] = masks.reason
    if outputs.instances:
        document["instances"] = [
            instance_document(number, instance, outputs) for number, instance in enumerate(masks.instances, 1)
        ]
    if outputs.heatmap:
        document["heatmap"] = None if masks.heatmap is None else heatmap_document(masks.heatmap)
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def instance_document(number: int, instance: Instance, outputs: Outputs) -> dict[str, Any]:
    audio_score = instance.audio_score
    return {
        "id": number,
        "label": instance.label,
        "score": round(float(instance.score), SCORE_DIGITS),
        "audio_score": None if audio_score is None else round(float(audio_score), SCORE_DIGITS),
        "bbox": [round(float(edge), PIXEL_DIGITS) for edge in instance.bbox],
        "mask": write_mask(instance.mask.pixels(), outputs.mask),
    }


def heatmap_document(heatmap: NDArray[np.float32]) -> Png:
    """A heat map [h, w] in [0, 1] as 256 levels of grey."""
    levels = np.rint(np.clip(heatmap, 0.0, 1.0) * 255).astype(np.uint8)
    return embedded_png(grey_png(levels), heatmap.shape)
