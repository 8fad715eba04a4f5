"""points.npz: points and boxes of stored 7 x 7 maps, in the published behaviour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from models.prompts import BOXES, POINTS, Heat
from tests.parity.golden import Golden
from tests.parity.row import Row, exact

SIZE = 224
BOX_THRESHOLD = 0.55
FINDERS = {"top": "global", "peak": "local", "dense": "dense"}
STRATEGIES = {
    "get_multi_box": "all",
    "get_single_box_maxarea": "single_maxarea",
    "get_single_box_maxscore": "single_maxscore",
    "get_total_box": "overall",
}


def rows(golden: Golden) -> Iterator[Row]:
    """An array's name holds the finder, the number of the map, and the threshold where there is one."""
    want = golden.arrays("points")
    maps = torch.from_numpy(want["maps7"])
    heat = F.interpolate(maps[:, None], (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0].numpy()
    yield exact("maps7", maps, want["maps7"])  # the input
    for name in want:
        kind = name.split("_")[0]
        if kind in FINDERS:
            _, number, *threshold = name.split("_")
            yield exact(name, points(kind, heat[int(number)], threshold), want[name])
        elif kind == "get":
            strategy, number = name.rsplit("_", 1)
            yield exact(name, BOXES[STRATEGIES[strategy]](heat[int(number)], BOX_THRESHOLD), want[name])


def points(kind: str, heat: Heat, threshold: list[str]) -> np.ndarray:
    """Rows (x, y, label)."""
    found = POINTS["paper"][FINDERS[kind]](heat, float(threshold[0]) if threshold else 0.5)
    return np.column_stack([found.xy, found.labels])
