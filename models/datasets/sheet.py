"""A contact sheet: clips for people to look at, each with its frames, what sounds in them, and the sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from models.datasets.clip import Clip, Mask, Pixels, Sound

Colour = tuple[int, int, int]

TILE = 150  # pixels of a frame on the sheet
GAP, MARGIN = 3, 44
TITLE, CAPTION, SPECTRUM = 104, 34, 84  # heights in pixels
COLUMNS = 2
PAPER, INK, FAINT = (17, 18, 24), (236, 232, 225), (134, 136, 150)
LIT: Colour = (255, 196, 84)
DB_RANGE = 62.0
LOWEST, HIGHEST = 60.0, 7_500.0  # Hz on the spectrogram's axis, equal steps being equal intervals
# From silence to full level: night, plum, ember, straw.
GLOW = ((17, 18, 24), (44, 26, 74), (113, 33, 100), (196, 62, 82), (247, 140, 66), (255, 236, 178))


def contact_sheet(clips: Sequence[Clip], title: str, subtitle: str) -> Image.Image:
    """A picture of the clips, two abreast: of each the frames, the truth, and the spectrogram below."""
    shown = max(len(clip.frames) for clip in clips)
    width = shown * (TILE + GAP) - GAP
    height = CAPTION + 2 * TILE + GAP + GAP + SPECTRUM
    rows = -(-len(clips) // COLUMNS)
    sheet = Image.new(
        "RGB",
        (MARGIN + COLUMNS * (width + MARGIN), TITLE + rows * (height + MARGIN) + MARGIN // 2),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 30), title, INK, ImageFont.load_default(34))
    draw.text((MARGIN, 72), subtitle, FAINT, ImageFont.load_default(17))
    for number, clip in enumerate(clips):
        corner = (
            MARGIN + number % COLUMNS * (width + MARGIN),
            TITLE + number // COLUMNS * (height + MARGIN),
        )
        _block(sheet, clip, corner)
    return sheet


def save_sheet(path: Path, sheet: Image.Image) -> None:
    """Written beside its place and then moved there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    try:
        sheet.save(half, format="png")
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)


def _block(sheet: Image.Image, clip: Clip, corner: tuple[int, int]) -> None:
    """One clip: caption, frames, truth, spectrogram; a second is as wide everywhere."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    _caption(draw, clip, corner)
    top += CAPTION
    for second, (frame, mask) in enumerate(zip(clip.frames, clip.expected != 0, strict=True)):
        x = left + second * (TILE + GAP)
        sheet.paste(_tile(frame), (x, top))
        sheet.paste(_tile(lit(frame, mask)), (x, top + TILE + GAP))
        second_of_sound = clip.audio[second * clip.rate : (second + 1) * clip.rate]
        glow = spectrogram(second_of_sound, clip.rate, TILE, SPECTRUM)
        sheet.paste(Image.fromarray(glow), (x, top + 2 * (TILE + GAP)))


def _caption(draw: ImageDraw.ImageDraw, clip: Clip, corner: tuple[int, int]) -> None:
    """What is in view: names of what sounds glow, names of what keeps silent are faint."""
    x, y = float(corner[0]), corner[1] + 6
    font = ImageFont.load_default(17)
    sounding = set()
    if clip.instances is not None:
        numbers = np.unique(clip.instances[clip.expected != 0])
        sounding = {clip.things[number - 1] for number in numbers if number}
    names = list(dict.fromkeys(clip.things)) or [clip.category.replace("_", " ") or clip.name]
    for name in names:
        colour = LIT if name in sounding or not clip.things else FAINT
        draw.ellipse((x, y + 6, x + 9, y + 15), fill=colour if colour == LIT else None, outline=colour)
        draw.text((x + 16, y), name, colour, font)
        x += 16 + draw.textlength(name, font) + 24


def _tile(frame: Pixels) -> Image.Image:
    return Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.LANCZOS)


def lit(frame: Pixels, mask: Mask) -> Pixels:
    """The frame in the dark, but for what sounds, which is drawn round with light."""
    grey = frame.mean(axis=2, keepdims=True)
    dark = 0.34 * (0.35 * frame + 0.65 * grey) + 0.4 * np.asarray(PAPER)
    shown = np.where(mask[..., None], frame, dark)
    width = max(1, len(frame) // 90)
    edge = binary_dilation(mask, iterations=width) & ~binary_erosion(mask, iterations=width, border_value=1)
    return np.where(edge[..., None], np.asarray(LIT), shown).astype(np.uint8)


def spectrogram(sound: Sound, rate: int, width: int, height: int) -> Pixels:
    """A stretch of sound as RGB uint8 [height, width, 3], low tones at the bottom."""
    length = 1 << round(np.log2(0.064 * rate))
    padded = np.pad(sound, (length // 2, length))
    starts = (np.arange(width) * max(len(sound), 1) / width).astype(int)
    pieces = padded[starts[:, None] + np.arange(length)] * np.hanning(length)
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2 / length
    tones = np.geomspace(HIGHEST, LOWEST, height) * length / rate
    low = np.minimum(tones.astype(int), power.shape[1] - 2)
    between = (tones - low)[:, None]
    column = power.T[low] * (1 - between) + power.T[low + 1] * between
    level = np.clip((10 * np.log10(column + 1e-12) + 42) / DB_RANGE + 0.3, 0, 1)
    return glow(level)


def glow(level: NDArray[np.float64]) -> Pixels:
    """Levels in [0, 1] as colours that grow lighter throughout."""
    stops = np.linspace(0, 1, len(GLOW))
    return np.stack([np.interp(level, stops, channel) for channel in zip(*GLOW, strict=True)], -1).astype(
        np.uint8
    )
