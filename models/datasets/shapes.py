"""The shapes and textures of SynthAVS, as tables that drawing reads from.

A table is a square of SIDE texels that spans REACH in each direction from an object's centre; the shape
itself lies inside the unit circle, so that a turned object never reads past the edge of its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter

Field = NDArray[np.float64]  # one value a texel, over the coordinates x (to the right) and y (down)
Table = NDArray[np.float32]
Point = tuple[float, float]

SIDE = 512
REACH = math.sqrt(2)
RIM = 0.07  # width of the darker rim, in radii
BACKDROP_SIDE = 512


def _ring_of(count: int, *radii: float, turn: float = 0.0) -> list[Point]:
    """Points around the centre, the radii taking turns; the first one points up."""
    total = count * len(radii)
    return [
        (
            radii[number % len(radii)] * math.sin(2 * math.pi * number / total + turn),
            -radii[number % len(radii)] * math.cos(2 * math.pi * number / total + turn),
        )
        for number in range(total)
    ]


def _curve(x: Callable[[float], float], y: Callable[[float], float]) -> list[Point]:
    angles = [2 * math.pi * step / 240 for step in range(240)]
    return [(x(angle), y(angle)) for angle in angles]


CROSS = [(-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3), (0.9, 0.3), (0.3, 0.3)]
OUTLINES: dict[str, list[Point]] = {
    "star": _ring_of(5, 0.97, 0.45),
    "ball": _curve(lambda a: 0.95 * math.cos(a), lambda a: 0.95 * math.sin(a)),
    "square": _ring_of(4, 0.97, turn=math.pi / 4),
    "drop": _curve(
        lambda a: 0.62 * math.sin(a) * math.sin(a / 2) ** 1.5 * 1.15, lambda a: 0.1 - 0.86 * math.cos(a)
    ),
    "arrow": [(0, -0.95), (0.75, -0.1), (0.3, -0.1), (0.3, 0.9), (-0.3, 0.9), (-0.3, -0.1), (-0.75, -0.1)],
    "heart": _curve(
        lambda a: 0.92 * math.sin(a) ** 3,
        lambda a: (
            -(0.75 * math.cos(a) - 0.29 * math.cos(2 * a) - 0.115 * math.cos(3 * a) - 0.058 * math.cos(4 * a))
        ),
    ),
    "cross": CROSS + [(-x, -y) for x, y in CROSS],
    "moon": _curve(
        lambda a: 0.95 * math.cos(a) if math.cos(a) < 0.3 else 0.285 - 0.9 * (math.cos(a) - 0.3),
        lambda a: 0.95 * math.sin(a),
    ),
    "flower": _curve(
        lambda a: (0.74 + 0.22 * math.cos(6 * a)) * math.cos(a),
        lambda a: (0.74 + 0.22 * math.cos(6 * a)) * math.sin(a),
    ),
    "triangle": _ring_of(3, 0.97),
    "ring": _curve(lambda a: 0.95 * math.cos(a), lambda a: 0.95 * math.sin(a)),
    "hourglass": [(-0.66, -0.7), (0.66, -0.7), (0.14, 0), (0.66, 0.7), (-0.66, 0.7), (-0.14, 0)],
}
HOLES: dict[str, list[Point]] = {
    "ring": _curve(lambda a: 0.5 * math.cos(a), lambda a: 0.5 * math.sin(a)),
}


def _soft(wave: Field) -> Field:
    """A wave in [-1, 1] with its slopes made steep: two inks with a soft edge, in [0, 1]."""
    return np.asarray(0.5 + 0.5 * np.tanh(5.0 * wave))


def _speckles(x: Field, _: Field) -> Field:
    noise = gaussian_filter(np.random.RandomState(7).standard_normal(x.shape), 0.07 * SIDE / REACH / 2)
    return _soft(noise / noise.std() - 0.6)


def _bricks(x: Field, y: Field) -> Field:
    shifted = x + 0.2 * (np.floor(y / 0.32) % 2)
    joint = np.minimum(np.abs((y / 0.32) % 1 - 0.5), np.abs((shifted / 0.4) % 1 - 0.5) * 1.2)
    return _soft(joint * 8 - 1.0)


TEXTURES: dict[str, Callable[[Field, Field], Field]] = {
    "striped": lambda x, y: _soft(np.sin(2 * np.pi * 2.2 * (0.9 * x + 0.45 * y))),
    "dotted": lambda x, y: _soft(0.6 - np.sin(2 * np.pi * 1.6 * x) * np.sin(2 * np.pi * 1.6 * y) * 1.6),
    "checkered": lambda x, y: _soft(np.sin(2 * np.pi * 1.3 * x) * np.sin(2 * np.pi * 1.3 * y) * 2),
    "wavy": lambda x, y: _soft(np.sin(2 * np.pi * (2.1 * y + 0.28 * np.sin(2 * np.pi * 1.4 * x)))),
    "ringed": lambda x, y: _soft(np.cos(2 * np.pi * 2.3 * np.hypot(x, y))),
    "speckled": _speckles,
    # Never seen in training: what the probe "unseen texture" wears.
    "netted": lambda x, y: _soft(np.maximum(np.cos(5 * np.pi * (x + y)), np.cos(5 * np.pi * (x - y))) - 0.7),
    "bricked": _bricks,
}
HELD_OUT_TEXTURES = ("netted", "bricked")


@cache
def distance(shape: str) -> Table:
    """Signed distance to the outline, in radii, negative inside: float32 [SIDE * SIDE], row by row."""
    picture = Image.new("1", (SIDE, SIDE))
    draw = ImageDraw.Draw(picture)
    for outline, ink in ((OUTLINES[shape], 1), (HOLES.get(shape), 0)):
        if outline:
            draw.polygon([(_texel(x), _texel(y)) for x, y in outline], fill=ink)
    inside = np.asarray(picture)
    # The outline runs halfway between the last texel inside and the first one outside.
    texels = distance_transform_edt(~inside) - distance_transform_edt(inside) + np.where(inside, 0.5, -0.5)
    return np.asarray(texels * (2 * REACH / SIDE), np.float32).ravel()


def _texel(value: float) -> float:
    return (value / REACH + 1) / 2 * SIDE - 0.5


@cache
def area(shape: str) -> float:
    """The shape's area in squared radii, to four places."""
    return round(float((distance(shape) < 0).mean()) * (2 * REACH) ** 2, 4)


@cache
def texels(shape: str, texture: str) -> NDArray[np.complex128]:
    """All that drawing reads of a texel, [SIDE * SIDE]: distance, first ink, second ink and nothing, four
    float32 in the bytes of one number, so that they are looked up at once (`view` takes them apart)."""
    table = np.zeros((SIDE * SIDE, 4), np.float32)
    table[:, 0] = distance(shape)
    table[:, 1], table[:, 2] = inks(shape, texture)
    return table.view(np.complex128).ravel()


def inks(shape: str, texture: str) -> tuple[Table, Table]:
    """Shares of an object's two colours in a texel: float32 [SIDE * SIDE] each, darker at the rim."""
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2 * REACH - REACH
    x, y = np.meshgrid(axis, axis)
    pattern = TEXTURES[texture](x, y).ravel()
    shade = np.clip((-distance(shape) - RIM) / 0.03 + 0.5, 0.45, 1.0)
    return _grid((1 - pattern) * shade), _grid(pattern * shade)


def _grid(values: Field) -> Table:
    """Rounded to 1/255: the last bits, which differ between machines, are lost."""
    return np.asarray(np.rint(values * 255) / 255, np.float32)


def _clouds(width: float, seed: int) -> Field:
    """Smooth noise without seams, stretched to [0, 1]."""
    noise = np.random.RandomState(seed).standard_normal((BACKDROP_SIDE, BACKDROP_SIDE))
    smooth = gaussian_filter(noise, width, mode="wrap")
    return np.asarray(np.clip(0.5 + smooth / smooth.std() / 4, 0, 1))


def _weave(x: Field, y: Field) -> Field:
    return np.asarray(0.5 + 0.25 * np.sin(2 * np.pi * 24 * x) + 0.25 * np.sin(2 * np.pi * 24 * y))


@cache
def backdrops() -> tuple[Table, ...]:
    """The patterns behind the objects, seamless: float32 [BACKDROP_SIDE, BACKDROP_SIDE] in [0, 1] each."""
    axis = np.arange(BACKDROP_SIDE) / BACKDROP_SIDE
    x, y = np.meshgrid(axis, axis)
    planks = 0.5 + 0.5 * np.sin(2 * np.pi * (8 * x + 0.1 * np.sin(2 * np.pi * 2 * y)))
    patches = _soft((_clouds(18, 3) - 0.5) * 3)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * (x + y) + 0.2 * np.sin(2 * np.pi * 3 * x)))
    fields = (_clouds(26, 1), _clouds(7, 2), patches, planks, _weave(x, y), waves)
    return tuple(_grid(field) for field in fields)
