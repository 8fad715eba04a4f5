"""The result at a glance: a PNG of a few frames with their masks tinted, each with its time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.containers import Limits
from models.images import read_image
from models.media import Media, Summary, WindowPlan, read_window
from service.masks import read_mask
from service.overlay import tinted

MOST = 24  # frames; more are thinned out evenly
COLUMNS = 6
TILE = 240  # pixels of a picture's longer side
GAP, CAPTION = 8, 18  # pixels
GROUND, INK, FAINT = (18, 19, 22), (236, 238, 241), (150, 155, 164)


@dataclass(frozen=True)
class SheetRequest:
    """What the sandbox runs; `lines` is the result as NDJSON, `target` the file to write."""

    media: Media
    summary: Summary
    lines: Path
    target: Path
    limits: Limits

    def answer(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with self.lines.open("rb") as lines:
            count = sum(1 for _ in lines)
        with self.lines.open("rb") as lines:
            frames = [json.loads(line) for line in chosen(lines, count)]
        render_sheet(self.media, self.summary, frames, self.target, self.limits)
        return {}, {}


def chosen(lines: Iterable[bytes], count: int) -> Iterable[bytes]:
    """The first, the last, and what lies evenly between."""
    kept = set(np.linspace(0, count - 1, min(count, MOST)).round().astype(int).tolist())
    return (line for number, line in enumerate(lines) if number in kept)


def render_sheet(
    media: Media,
    summary: Summary,
    frames: Sequence[dict[str, Any]],
    target: Path,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> None:
    """Write `target`. One picture at a time: memory is the sheet and that picture."""
    shrink = min(1.0, TILE / max(summary.width, summary.height))
    width, height = max(1, round(summary.width * shrink)), max(1, round(summary.height * shrink))
    columns = min(COLUMNS, len(frames))
    across, down = width + GAP, height + CAPTION + GAP
    sheet = Image.new("RGB", (GAP + columns * across, GAP + math.ceil(len(frames) / columns) * down), GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, frame in enumerate(frames):
        left, top = GAP + number % columns * across, GAP + number // columns * down
        shown = tinted(picture_of(media, summary, frame, limits), read_mask(frame["mask"]))
        tile = Image.fromarray(shown[: summary.height, : summary.width])  # without what a codec needs even
        sheet.paste(tile.resize((width, height), Image.Resampling.BOX), (left, top))
        ink = INK if frame["sounding"] else FAINT
        draw.text((left, top + height + 3), f"{frame['timestamp']:.2f} s", ink)
    sheet.save(target, "PNG")


def picture_of(media: Media, summary: Summary, frame: dict[str, Any], limits: Limits) -> NDArray[np.uint8]:
    """The picture [H, W, 3] that was segmented, sought by itself."""
    if media.frames:
        return read_image(media.frames[frame["index"]], limits)
    found = read_window(media, summary, WindowPlan(0, (frame["timestamp"],)), limits=limits).frames
    assert found is not None
    picture: NDArray[np.uint8] = found[0]
    return picture
