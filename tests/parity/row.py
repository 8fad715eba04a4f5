"""One golden array against ours: how far apart, how far apart it may be.

Relative differences are measured against the array and not against each element: max|ours - golden| divided
by max|golden|. An element near zero next to large ones carries the rounding of the large ones, and a
quotient per element would only measure that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

INPUTS = 1e-6  # relative: images are interpolated, and that rounds by the processor and its threads
# The end of SPEC.md section 10.
FEATURES = 1e-5  # relative: feature vectors, feature maps and what leads to them
LOGITS = 1e-4  # relative
GRADIENTS = 2e-3  # relative: norms of gradients
NO_ARRAY = "the file has no such array"
HEATMAP = 2e-3  # absolute: min-max stretches the rounding

Kind = Literal["rel", "abs", "exact", "skipped", "failed"]
ABSENT: NDArray[Any] = np.empty(0)  # stands for an array that the file lacks


@dataclass(frozen=True)
class Row:
    """A line of the table. `name` is the array's name in its file; `note` says why nothing was compared."""

    name: str
    difference: float
    tolerance: float
    kind: Kind
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.kind == "skipped" or (self.kind != "failed" and self.difference <= self.tolerance)

    def __str__(self) -> str:
        if self.note:
            return f"{self.name:<44} {'skipped' if self.ok else 'FAIL'}: {self.note}"
        verdict = "ok" if self.ok else "FAIL"
        return f"{self.name:<44} {self.kind:<5} {self.difference:9.2e}  <= {self.tolerance:7.0e}  {verdict}"


def relative(name: str, ours: Any, golden: NDArray[Any], tolerance: float = FEATURES) -> Row:
    """max|ours - golden| / max|golden|; plain where golden is all zeros."""
    if golden is ABSENT:
        return failed(name, NO_ARRAY)
    scale = float(np.abs(_plain(golden)).max(initial=0.0)) or 1.0
    return Row(name, _distance(ours, golden) / scale, tolerance, "rel")


def absolute(name: str, ours: Any, golden: NDArray[Any], tolerance: float) -> Row:
    """max|ours - golden|."""
    if golden is ABSENT:
        return failed(name, NO_ARRAY)
    return Row(name, _distance(ours, golden), tolerance, "abs")


def exact(name: str, ours: Any, golden: NDArray[Any]) -> Row:
    """The number of elements that differ, of any type; every one where the shapes differ."""
    if golden is ABSENT:
        return failed(name, NO_ARRAY)
    ours, golden = _plain(ours), _plain(golden)
    if ours.shape != golden.shape:
        return Row(name, float("inf"), 0.0, "exact")
    return Row(name, float(np.count_nonzero(ours != golden)), 0.0, "exact")


def statistics(name: str, ours: Any, golden: NDArray[Any], tolerance: float = FEATURES) -> Row:
    """`det.stats` rows [.., 5]: mean, deviation, least and largest against the row's largest, the sum of
    magnitudes against itself (it would drown the others)."""
    if golden is ABSENT:
        return failed(name, NO_ARRAY)
    ours, golden = _plain(ours), _plain(golden)
    if ours.shape != golden.shape:
        return Row(name, float("inf"), tolerance, "rel")
    gap = np.abs(ours - golden)
    scale = np.abs(golden[..., :4]).max(axis=-1, keepdims=True)
    worst = max(float((gap[..., :4] / scale).max()), float((gap[..., 4] / golden[..., 4]).max()))
    return Row(name, worst if np.isfinite(worst) else float("inf"), tolerance, "rel")


def skipped(name: str, note: str) -> Row:
    """An array that this machine cannot check, and why."""
    return Row(name, float("nan"), float("nan"), "skipped", note)


def failed(name: str, note: str) -> Row:
    """An array that could not be compared at all, and why."""
    return Row(name, float("inf"), float("nan"), "failed", note)


def _plain(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _distance(ours: Any, golden: Any) -> float:
    """Infinite where shapes differ or something is not a number: neither may pass."""
    ours, golden = _plain(ours), _plain(golden)
    if ours.shape != golden.shape:
        return float("inf")
    distance = float(np.abs(ours.astype(np.float64) - golden.astype(np.float64)).max(initial=0.0))
    return distance if np.isfinite(distance) else float("inf")
