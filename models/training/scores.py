"""From sums to scores with intervals: what each protocol prints, and how sure it is.

A score is a function of the sums of all clips. An interval holds the middle 95 % of its values when the
clips (the families, in SynthAVS) are drawn again, as many, with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from models.training.judging import COLUMN, SUMS, Counted, grouped
from models.training.metrics import PerDataset, g_miou

Protocol = Literal["per-image", "per-dataset", "robust"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SILENT_PROBES = ("silence", "noise", "offscreen")
ROBUST_PROBES = (*SILENT_PROBES, "swap")
DRAWS = 1000
MIDDLE = (2.5, 97.5)  # percent

Vector = NDArray[np.float64]
Totals = Mapping[str | None, Vector]  # the sums over all clips, by probe; None is the plain split
Formula = Callable[[Totals], float]


@dataclass(frozen=True)
class Score:
    """A value and its interval; not a number where there was nothing to count."""

    value: float
    low: float
    high: float


def quotient(above: str, below: str, probe: str | None = None) -> Formula:
    """One sum over another."""

    def formula(totals: Totals) -> float:
        sums = totals[probe]
        return float(sums[COLUMN[above]] / sums[COLUMN[below]]) if sums[COLUMN[below]] else float("nan")

    return formula


def confusion(name: str) -> Formula:
    """A score of the split's confusion matrix."""

    def formula(totals: Totals) -> float:
        matrix = PerDataset()
        cells = torch.from_numpy(totals[None][COLUMN["dark"] : COLUMN["hit"] + 1])
        matrix.matrix = cells.view(2, 2)
        return matrix.result()[name]

    return formula


def negative_iou(totals: Totals) -> float:
    """mIoU-: the mean over the wrong sounds of the IoU with what the right one would have lit."""
    return float(np.mean([quotient("iou", "sounding", probe)(totals) for probe in SILENT_PROBES]))


def listening(totals: Totals) -> float:
    """G-mIoU."""
    return g_miou(quotient("iou", "sounding")(totals), negative_iou(totals))


PLAIN: Mapping[Protocol, Mapping[str, Formula]] = MappingProxyType(
    {
        "per-image": {
            "mIoU": quotient("published_iou", "batches"),
            "F": quotient("published_f", "batches"),
            "binary F": quotient("f", "f_frames"),
            "mIoU+": quotient("iou", "sounding"),
        },
        "per-dataset": {name: confusion(name) for name in ("mIoU", "F", "F1", "FDR", "accuracy")},
        "robust": {
            "mIoU+": quotient("iou", "sounding"),
            "F": quotient("f", "f_frames"),
            "empty-frame accuracy": quotient("right", "empty"),
        },
    }
)
NOTES: Mapping[Protocol, str] = MappingProxyType(
    {
        "per-image": "IoU a frame, a mean over clips; F of the masks at the best threshold of a clip of 5 "
        "frames, never below the full mask's; binary F of the masks as they are; mIoU+ of frames with truth",
        "per-dataset": "one confusion matrix over the split, the background a class; beta^2 = 0.3",
        "robust": "mIoU+ and binary F of frames with a truth; FPR is the share of pixels lit by a sound that "
        "nothing in view makes; G-mIoU is the harmonic mean of mIoU+ and 1 - mIoU-",
    }
)


def formulas(protocol: Protocol, probes: tuple[str, ...], *, follows: bool) -> dict[str, Formula]:
    """The columns of a table. `follows` says that the probe "swap" plays something else in view (SynthAVS);
    elsewhere it plays what is not, and counts as a wrong sound."""
    columns = dict(PLAIN[protocol])
    for probe in probes:
        if probe in SILENT_PROBES or (probe == "swap" and not follows):
            columns[f"FPR {probe}"] = quotient("lit", "pixels", probe)
        elif probe == "swap":
            columns["swap-follow IoU"] = quotient("iou", "sounding", probe)
        else:
            columns[f"mIoU+ {probe}"] = quotient("iou", "sounding", probe)
    if protocol == "robust" and set(SILENT_PROBES) <= set(probes):
        columns |= {"mIoU-": negative_iou, "G-mIoU": listening}
    return columns


def scored(
    counted: Mapping[str | None, Counted], columns: Mapping[str, Formula], *, family: int = 1, seed: int = 0
) -> dict[str, Score]:
    """Every column with its interval. All probes are drawn alike: their clips belong together."""
    groups = {probe: grouped(table.rows, family) for probe, table in counted.items()}
    count = len(next(iter(groups.values())))
    draws = RandomState(seed).multinomial(count, [1 / count] * count, size=DRAWS)
    drawn = {probe: draws @ rows for probe, rows in groups.items()}  # [draws, sums]
    totals = {probe: rows.sum(0) for probe, rows in groups.items()}
    assert all(len(sums) == len(SUMS) for sums in totals.values())
    result = {}
    for name, formula in columns.items():
        values = [formula({probe: table[i] for probe, table in drawn.items()}) for i in range(DRAWS)]
        unsure = count < 2 or np.isnan(values).all()  # one clip drawn again is the same clip
        low, high = (np.nan, np.nan) if unsure else np.nanpercentile(values, MIDDLE)
        result[name] = Score(formula(totals), float(low), float(high))
    return result
