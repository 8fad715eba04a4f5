"""What a run looks like: its curves, and frame | truth | prediction side by side. No display is needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.datasets.clip import Mask, Pixels

SIDE = 160  # pixels of a picture in the grid
GAP, HEAD = 6, 22
LIT = np.array([255, 72, 40], np.float32)  # what sounds, red over the frame
SMOOTHING = 0.02  # of the curve of losses: its share of the newest value


class Sample(NamedTuple):
    """A row of the grid: RGB uint8 [H, W, 3], and two bool [H, W]."""

    frame: Pixels
    truth: Mask
    answer: Mask


def save_curves(path: Path, rows: Sequence[Mapping[str, str]], title: str) -> None:
    """Loss and validation mIoU by step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps, losses = column(rows, "loss")
    left.plot(steps, losses, color="0.8", linewidth=0.8)
    left.plot(steps, smooth(losses), color="tab:red", linewidth=1.6)
    left.set(xlabel="step", ylabel="loss", title=title)
    for name, label in (("val_miou", "mIoU, per-image"), ("val_miou_plus", "mIoU+, frames with truth")):
        right.plot(*column(rows, name), "o-", markersize=3, label=label)
    right.set(xlabel="step", title="validation", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    replace_picture(path, Image.open(picture))


def column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the rows that have one."""
    pairs = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean that forgets."""
    result = values.copy()
    for i in range(1, len(result)):
        share = max(SMOOTHING, 1 / (i + 1))
        result[i] = (1 - share) * result[i - 1] + share * values[i]
    return result


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """A row a sample: the frame, and truth and prediction in red over it."""
    width = 3 * SIDE + 4 * GAP
    sheet = Image.new("RGB", (width, HEAD + len(samples) * (SIDE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(("frame", "truth", "prediction")):
        draw.text((GAP + place * (SIDE + GAP), 5), name, fill="black")
    for number, sample in enumerate(samples):
        pictures = (sample.frame, over(sample.frame, sample.truth), over(sample.frame, sample.answer))
        for place, picture in enumerate(pictures):
            at = (GAP + place * (SIDE + GAP), HEAD + number * (SIDE + GAP))
            sheet.paste(Image.fromarray(picture).resize((SIDE, SIDE)), at)
    replace_picture(path, sheet)


def over(frame: Pixels, mask: Mask) -> Pixels:
    """The frame dimmed, and what the mask covers tinted."""
    picture = frame.astype(np.float32) * 0.45
    picture[mask] = 0.45 * frame[mask] + 0.55 * LIT
    return picture.astype(np.uint8)


def replace_picture(path: Path, picture: Image.Image) -> None:
    """Written beside, then renamed."""
    hidden = path.with_name(f".{path.name}")
    try:
        picture.save(hidden, format="PNG")
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
