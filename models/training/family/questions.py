"""What SAM is asked while it learns: the prompts that strategies make, about objects whose masks are known.

Heat maps are made from the truth as AudioCLIP's come out: coarse, noisy, warm on other objects too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from models.datasets.clip import Mask, Pixels
from models.prompts import GRID, Heat, Points, dense, extremes
from models.sam import Sam
from models.suppliers import Prompt

CELL = 4  # pixels of the network in a cell of its low-resolution masks, along a side
EACH = 2  # questions of a kind about a frame
VISIBLE = 0.002  # share of the frame that an object must show to be asked about
SLACK = 0.3  # shares of its size by which a side of a box may be off
TIGHT = 0.3  # chance that a box is right to the pixel
BESIDE = 0.04  # frame sides; a point so near to an object still means it
AIMS = (0.7, 0.8)  # up to the first, a single point lies on an object; up to the second, beside one
CELLS = (5, 15)  # a heat map's places along a side, from and below
COUNTS = ((1, 1), (1, 1), (1, 3), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (80, 80))  # bright, dark
BRIGHT = (0.6, 0.95)  # of the map's top, what counts as bright
DARK = 0.4  # share of the places among which the dark ones are
INSIDE = np.ones(1, np.int64)


class Question(NamedTuple):
    """A prompt and which of the picture's masks answers it; the last of them is the background."""

    prompt: Prompt
    answer: int


@dataclass(frozen=True)
class Picture:
    """A frame as SAM gets it, and bool [k + 1, H, W]: the masks of its k objects and of the background."""

    pixels: Tensor
    masks: Mask
    objects: tuple[int, ...]
    """Those that show enough to be asked about."""

    @classmethod
    def of(cls, frame: Pixels, instances: Pixels, sam: Sam) -> Picture:
        """RGB [H, W, 3] and which object each pixel shows, [H, W], 0 for none."""
        numbers = [*range(1, int(instances.max()) + 1), 0]
        masks = instances == np.array(numbers, np.uint8)[:, None, None]
        shares = masks[:-1].mean((1, 2))
        return cls(sam.preprocess(frame), masks, tuple(np.flatnonzero(shares > VISIBLE).tolist()))

    @property
    def size(self) -> tuple[int, int]:
        return self.masks.shape[1], self.masks.shape[2]

    def truths(self, sam: Sam) -> Tensor:
        """How much of each cell of SAM's low-resolution masks is covered: float [k + 1, s/4, s/4]."""
        height, width = (round(side / CELL) for side in sam.fitted(self.size))
        masks = torch.from_numpy(self.masks)[:, None].float()
        covered = F.interpolate(masks, (height, width), mode="bilinear", antialias=True)[:, 0]
        return F.pad(covered, (0, sam.size // CELL - width, 0, sam.size // CELL - height))


def boxes(picture: Picture, random: Generator) -> list[Question]:
    """Boxes around objects, often with sides that are off."""
    return [Question(Prompt(0, box=box(picture.masks[each], random)), each) for each in some(picture, random)]


def box(mask: Mask, random: Generator) -> tuple[float, float, float, float]:
    """Around a mask, inside the frame, no smaller than a pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corners = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float64)
    if random.random() > TIGHT:
        sides = np.tile(corners[2:] - corners[:2] + 1, 2)
        corners += sides * np.clip(random.normal(0, SLACK / 2, 4), -SLACK / 2, SLACK) * (-1, -1, 1, 1)
    ends = np.tile([mask.shape[1], mask.shape[0]], 2)
    x1, y1, x2, y2 = np.clip(corners, 0, ends).tolist()
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def single_points(picture: Picture, random: Generator) -> list[Question]:
    """One point each: on an object, beside one, or far from all."""
    questions = []
    for each in some(picture, random):
        aim = random.random()
        if aim >= AIMS[1] and (far := on_background(picture, random)) is not None:
            questions.append(Question(_inside(far), len(picture.masks) - 1))
        else:
            point = on(picture.masks[each], random) if aim < AIMS[0] else beside(picture, each, random)
            questions.append(Question(_inside(point), each))
    return questions


def on(mask: Mask, random: Generator) -> NDArray[np.float64]:
    """(x, y) of any place of a mask."""
    pixels = np.flatnonzero(mask)
    y, x = divmod(int(pixels[random.integers(len(pixels))]), mask.shape[1])
    return np.array([x, y]) + random.random(2)


def beside(picture: Picture, each: int, random: Generator) -> NDArray[np.float64]:
    """A place on the background near to an object, or on the object where a few tries find none."""
    reach = BESIDE * max(picture.size)
    for _ in range(8):
        point = on(picture.masks[each], random)
        moved = point + random.uniform(-reach, reach, 2)
        x, y = moved.astype(int)
        if 0 <= x < picture.size[1] and 0 <= y < picture.size[0] and picture.masks[-1, y, x]:
            return moved
    return point


def on_background(picture: Picture, random: Generator) -> NDArray[np.float64] | None:
    """A place with nothing but background around it; none where a few tries find none."""
    reach = int(BESIDE * max(picture.size)) + 1
    for _ in range(8):
        x, y = point = random.random(2) * picture.size[::-1]
        top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
        if picture.masks[-1, top : int(y) + reach + 1, left : int(x) + reach + 1].all():
            return point
    return None


def heat_points(picture: Picture, random: Generator, count: tuple[int, int]) -> list[Question]:
    """So many bright and so many dark places of each object's map."""
    chosen = some(picture, random)
    labels = np.repeat(np.array([1, 0]), count)
    return [
        Question(Prompt(0, _places(heat, count, random) * picture.size[::-1], labels), each)
        for heat, each in zip(heats(picture, chosen, (GRID, GRID), random), chosen, strict=True)
    ]


def _places(heat: Heat, count: tuple[int, int], random: Generator) -> NDArray[np.float32]:
    """(x, y) in 0..1 of places of a map, bright ones first."""
    order = np.argsort(-heat, axis=None)
    bright = max(count[0], int((heat >= random.uniform(*BRIGHT) * heat.max()).sum()))
    if count[0] == 1 and random.random() < 0.5:
        bright = 1
    picked = np.concatenate(
        [
            random.permutation(order[:bright])[: count[0]],
            random.permutation(order[-int(DARK * order.size) :])[: count[1]],
        ]
    )
    return ((np.stack([picked % GRID, picked // GRID], 1) + 0.5) / GRID).astype(np.float32)


def heats(picture: Picture, chosen: Sequence[int], size: tuple[int, int], random: Generator) -> list[Heat]:
    """A map [*size] in about [0, 1] for each chosen object."""
    cells = int(random.integers(*CELLS))
    cover = F.adaptive_avg_pool2d(torch.from_numpy(picture.masks[:-1]).float(), cells)
    warmth = random.uniform(0, 0.4, (len(chosen), len(cover))).astype(np.float32)
    warmth[np.arange(len(chosen)), list(chosen)] = 1
    maps = torch.einsum("ck,kij->cij", torch.from_numpy(warmth), cover)
    maps /= maps.amax((1, 2), keepdim=True)
    maps += torch.from_numpy(random.normal(0, random.uniform(0, 0.12), maps.shape).astype(np.float32))
    return list(F.interpolate(maps[:, None], size, mode="bilinear")[:, 0].numpy())


def exam(picture: Picture, random: Generator) -> dict[str, list[Question]]:
    """Questions for validation, as strategies put them: about every object a box, a point on it, the
    brightest and the darkest place of its map, and all places of the map's grid that reach the threshold."""
    asked: dict[str, list[Question]] = {"box": [], "point": [], "extremes": [], "dense": []}
    for each in picture.objects:
        mask = picture.masks[each]
        (heat,) = heats(picture, [each], picture.size, random)
        heat = (heat - heat.min()) / (heat.max() - heat.min())
        asked["box"].append(Question(Prompt(0, box=box(mask, random)), each))
        asked["point"].append(Question(_inside(on(mask, random)), each))
        asked["extremes"].append(Question(_prompt(extremes(heat, 0.0)), each))
        asked["dense"].append(Question(_prompt(dense(heat, 0.85)), each))
    return asked


def iou(mask: Mask, truth: Mask) -> float:
    """Of two masks, one of which is not empty."""
    return float((mask & truth).sum() / (mask | truth).sum())


def some(picture: Picture, random: Generator) -> list[int]:
    """Objects to ask about; all of them as often as one another."""
    dealt = np.tile(random.permutation(picture.objects), EACH)
    return [int(each) for each in dealt[:EACH]]


def _inside(point: NDArray[np.float64]) -> Prompt:
    return Prompt(0, point[None].astype(np.float32), INSIDE)


def _prompt(points: Points) -> Prompt:
    return Prompt(0, points.xy.astype(np.float32), points.labels)
