"""Scenes as pixels: RGB frames, and which object every pixel shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.datasets.clip import Pixels
from models.datasets.kinds import KINDS
from models.datasets.scenes import Backdrop, Colour, Scene, SynthConfig, Thing
from models.datasets.shapes import BACKDROP_SIDE, REACH, SIDE, backdrops, texels

Canvas = NDArray[np.float32]  # [3, H, W] in 0..255


def draw(scene: Scene, config: SynthConfig, times: Sequence[float]) -> tuple[Pixels, Pixels]:
    """Frames uint8 [n, H, W, 3] at `times`, and which thing each pixel shows: uint8 [n, H, W], from 1 on."""
    height, width = config.size, config.width
    frames = np.empty((len(times), height, width, 3), np.uint8)
    instances = np.zeros((len(times), height, width), np.uint8)
    for frame, instance, time in zip(frames, instances, times, strict=True):
        canvas = _behind(scene.backdrop, height, width, time)
        for number, thing in enumerate(scene.things, start=1):
            _stamp(canvas, instance, number, thing, config, time)
        frame[...] = canvas.transpose(1, 2, 0)
    return frames, instances


def _behind(backdrop: Backdrop, height: int, width: int, time: float) -> Canvas:
    """The backdrop alone, at a moment of its drift; 0.5 is added, so that cutting to whole numbers rounds."""
    step = BACKDROP_SIDE / (backdrop.scale * height)  # texels per pixel
    rows, columns = (
        (np.arange(pixels) * step + (start + drift * time) * BACKDROP_SIDE).astype(np.int64) % BACKDROP_SIDE
        for pixels, start, drift in zip(
            (height, width), backdrop.start[::-1], backdrop.drift[::-1], strict=True
        )
    )
    pattern = backdrops()[backdrop.pattern].take(rows, axis=0).take(columns, axis=1)
    canvas = np.empty((3, height, width), np.float32)
    for channel, (first, second) in zip(canvas, zip(*backdrop.colours, strict=True), strict=True):
        np.multiply(pattern, np.float32(second - first), out=channel)
        channel += np.float32(first + 0.5)
    return canvas


def _stamp(
    canvas: Canvas, instance: Pixels, number: int, thing: Thing, config: SynthConfig, time: float
) -> None:
    """Draws one thing over what is there: smooth at its edge in the picture, sharp among the instances."""
    height, width = instance.shape
    radius = thing.radius * height  # pixels
    x, y = (value * height for value in thing.position(time, config.aspect))
    top, bottom = max(0, math.floor(y - radius - 1)), min(height, math.ceil(y + radius + 1))
    left, right = max(0, math.floor(x - radius - 1)), min(width, math.ceil(x + radius + 1))
    places = _places(thing, time, radius, (left, right, x), (top, bottom, y))
    read = texels(KINDS[thing.kind].shape, thing.texture).take(places, mode="clip")
    edge, first, second, _ = np.moveaxis(read.view(np.float32).reshape(*places.shape, 4), -1, 0)
    cover = np.clip(np.float32(0.5) - edge * np.float32(radius), 0, 1)
    under = canvas[:, top:bottom, left:right]
    _blend(under, cover, first * cover, second * cover, thing.colours)
    instance[top:bottom, left:right][edge < 0] = number


Extent = tuple[int, int, float]  # first pixel, pixel after the last, and the centre, along one axis


def _places(thing: Thing, time: float, radius: float, across: Extent, down: Extent) -> NDArray[np.int32]:
    """For every pixel of the thing's box, the texel of its tables that lies there: int32 [h, w]."""
    angle = thing.tilt + thing.spin * time
    zoom = SIDE / (2 * REACH * radius)  # texels per pixel
    cosine, sine = math.cos(angle) * zoom, math.sin(angle) * zoom
    columns = np.arange(across[0], across[1]) + (0.5 - across[2])
    rows = (np.arange(down[0], down[1]) + (0.5 - down[2]))[:, None]
    u = ((columns * cosine + SIDE / 2).astype(np.float32) + (rows * sine).astype(np.float32)).astype(np.int32)
    v = ((rows * cosine + SIDE / 2).astype(np.float32) - (columns * sine).astype(np.float32)).astype(np.int32)
    return v * np.int32(SIDE) + u


def _blend(
    canvas: Canvas, cover: Canvas, first: Canvas, second: Canvas, colours: tuple[Colour, Colour]
) -> None:
    """Mixes both inks into the canvas, in place."""
    under = np.float32(1) - cover
    for channel, (one, other) in zip(canvas, zip(*colours, strict=True), strict=True):
        channel *= under
        channel += first * np.float32(one)
        channel += second * np.float32(other)
