"""Points and boxes that ask SAM for a heat map's object. NumPy, one frame at a time.

Points come in two behaviours. `paper` is the published code to the bit, wherever that leads: peaks lose their
y and lie on the diagonal at (x, x), a search that finds nothing returns every pixel of a plateau, and ties in
`dense` fall as NumPy's unstable sort lets them. `best` puts peaks at (x, y), makes one point of a plateau,
breaks ties by position, gives at least one positive point and at most `MOST` of a kind.

A heat map is float32 [height, width] in [0, 1]; a point is (x, y) in its pixels, (0, 0) the corner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

GRID = 32  # `dense` looks at 32 x 32 places
MOST = GRID * GRID // 2  # points of a kind: a place is positive or negative, not both
CROSS = ndimage.generate_binary_structure(2, 1)  # a pixel and its four neighbours
SQUARE = ndimage.generate_binary_structure(2, 2)  # ... and the four at its corners

Heat = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Points(NamedTuple):
    """`xy` float64 [n, 2]; `labels` int64 [n]: 1 inside the object, 0 outside. Positives come first."""

    xy: NDArray[np.float64]
    labels: NDArray[np.int64]


def extremes(heat: Heat, _threshold: float) -> Points:
    """The brightest and the darkest pixel, the first of equals, in both behaviours and at any threshold."""
    return _points([_centre(heat, int(heat.argmax()))], [_centre(heat, int(heat.argmin()))])


def dense(heat: Heat, threshold: float) -> Points:
    """The places of a grid that reach `threshold` (one at least), and as many of the darkest."""
    return _dense(heat, threshold, "stable")


def paper_dense(heat: Heat, threshold: float) -> Points:
    """As published: which of equal places are taken is up to NumPy's sort."""
    return _dense(heat, threshold, None)


def peaks(heat: Heat, threshold: float) -> Points:
    """Local maxima above `threshold` and local minima below 1 - `threshold`, brightest and darkest first.

    Without a maximum the brightest pixel stands in; without a minimum the darkest, if the map is not flat.
    """
    bright = [point for point in _summits(heat) if heat[point] > threshold]
    dark = [point for point in _summits(-heat) if heat[point] < 1 - threshold]
    bright = bright or [_place(heat, int(heat.argmax()))]
    dark = dark or [_place(heat, int(heat.argmin()))] * bool(heat.min() < heat.max())
    return _points([(x + 0.5, y + 0.5) for y, x in bright], [(x + 0.5, y + 0.5) for y, x in dark])


def paper_peaks(heat: Heat, threshold: float) -> Points:
    """As published. A ring of zeros around the map takes part in the search: a border pixel is a maximum if
    only the inside is lower, and the least value is the ring's, so without a minimum there is no negative."""
    ringed = np.pad(heat, 1)
    around = _neighbours(np.pad(ringed, 1))
    bright = (ringed > around).all(0) & (ringed > threshold)
    dark = (ringed < around).all(0) & (ringed < 1 - threshold)
    bright = bright if bright.any() else ringed == ringed.max()
    dark = dark if dark.any() else ringed == ringed.min()
    inside = np.s_[1:-1, 1:-1]
    columns = [np.nonzero(found[inside])[1].astype(np.float64) for found in (bright, dark)]
    return _points(*(np.stack([x, x], axis=1) for x in columns))  # (x, x): y is lost


def all_boxes(heat: Heat, threshold: float) -> NDArray[np.int64]:
    """The box of each connected bright part, in reading order: int64 [n, 4], (left, top, right, bottom) with
    the last pixels inside. Like the other three it gives no box where nothing reaches `threshold`."""
    return _boxes(ndimage.find_objects(_parts(heat, threshold)))


def largest_box(heat: Heat, threshold: float) -> NDArray[np.int64]:
    """The box of the part with the most pixels, the first of equals."""
    parts = _parts(heat, threshold)
    areas = np.bincount(parts.ravel())[1:]
    return all_boxes(heat, threshold)[[areas.argmax()] if len(areas) else []]


def brightest_box(heat: Heat, threshold: float) -> NDArray[np.int64]:
    """The box of the part that holds the brightest pixel."""
    part = _parts(heat, threshold).flat[int(heat.argmax())]
    return all_boxes(heat, threshold)[[part - 1] if part else []]


def overall_box(heat: Heat, threshold: float) -> NDArray[np.int64]:
    """One box around everything bright."""
    return _boxes(ndimage.find_objects((heat >= threshold).astype(np.int8)))


PointFinder = Callable[[Heat, float], Points]
POINTS: Mapping[str, Mapping[str, PointFinder]] = {
    "best": {"global": extremes, "local": peaks, "dense": dense},
    "paper": {"global": extremes, "local": paper_peaks, "dense": paper_dense},
}
# The published strategy is `single_maxarea`; boxes have no second behaviour.
BOXES: Mapping[str, Callable[[Heat, float], NDArray[np.int64]]] = {
    "single_maxarea": largest_box,
    "single_maxscore": brightest_box,
    "all": all_boxes,
    "overall": overall_box,
}


def _dense(heat: Heat, threshold: float, sort: Literal["stable"] | None) -> Points:
    """Grid places in order of brightness; `sort` is NumPy's `kind`."""
    rows, columns = (((np.arange(GRID) + 0.5) * side / GRID) for side in heat.shape)
    grid = _sample(heat, rows, columns).ravel()
    order = np.argsort(grid, kind=sort)
    count = max(1, min(int((grid >= threshold).sum()), MOST))
    xy = np.stack([np.tile(columns, GRID), np.repeat(rows, GRID)], axis=1)
    return _points(xy[order[-count:]], xy[order[:count]])


def _sample(heat: Heat, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Heat:
    """Bilinear values [GRID, GRID] at continuous places; a pixel's value is at its centre."""
    top, below, lean = _between(rows, heat.shape[0])
    left, right, tilt = _between(columns, heat.shape[1])
    rows_ = heat[top] * (1 - lean)[:, None] + heat[below] * lean[:, None]
    sampled = rows_[:, left] * (1 - tilt) + rows_[:, right] * tilt
    return sampled.astype(np.float32)


def _between(places: NDArray[np.float64], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Heat]:
    """The two pixels beside each place, and how far it lies from the first to the second."""
    centred = np.clip(places - 0.5, 0, side - 1)
    first = np.floor(centred).astype(np.int64)
    return first, np.minimum(first + 1, side - 1), (centred - first).astype(np.float32)


def _summits(heat: Heat) -> list[tuple[int, int]]:
    """(y, x) of every local maximum, brightest first, at most `MOST`. A plateau is one, at the pixel nearest
    to its middle, and only if it falls off on all sides."""
    candidates = heat == ndimage.maximum_filter(heat, footprint=CROSS, mode="nearest")
    plateaus, _ = ndimage.label(candidates, CROSS)
    summits = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(plateaus), start=1):
        window = (
            slice(max(rows.start - 1, 0), rows.stop + 1),
            slice(max(columns.start - 1, 0), columns.stop + 1),
        )
        plateau = plateaus[window] == label
        rim = ndimage.binary_dilation(plateau, CROSS) & ~plateau
        pixels = np.argwhere(plateau) + [part.start for part in window]
        height = heat[tuple(pixels[0])]
        # A rim as high as the plateau leads on to something higher; no rim at all is a flat map.
        if rim.any() and heat[window][rim].max() < height:
            middle = pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()]
            summits.append((-float(height), int(middle[0]), int(middle[1])))
    return [(y, x) for _, y, x in sorted(summits)[:MOST]]


def _neighbours(padded: Heat) -> NDArray[np.float32]:
    """The four neighbours [4, h, w] of every inner pixel of [h + 2, w + 2]."""
    return np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])


def _parts(heat: Heat, threshold: float) -> NDArray[np.int32]:
    """Numbers the bright parts from 1 in reading order; pixels that touch at a corner belong together."""
    parts: NDArray[np.int32] = ndimage.label(heat >= threshold, SQUARE)[0]
    return parts


def _boxes(slices: list[tuple[slice, slice]]) -> NDArray[np.int64]:
    corners = [(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in slices]
    return np.array(corners, np.int64).reshape(-1, 4)


def _place(heat: Heat, index: int) -> tuple[int, int]:
    """(y, x) of a flat index."""
    y, x = divmod(index, heat.shape[1])
    return y, x


def _centre(heat: Heat, index: int) -> tuple[float, float]:
    """(x, y) of the middle of the pixel with this flat index."""
    y, x = _place(heat, index)
    return x + 0.5, y + 0.5


def _points(positive: ArrayLike, negative: ArrayLike) -> Points:
    """Both kinds, each [n, 2] or a list of pairs."""
    pair = [np.asarray(kind, np.float64).reshape(-1, 2) for kind in (positive, negative)]
    return Points(np.concatenate(pair), np.repeat(np.array([1, 0]), [len(kind) for kind in pair]))
