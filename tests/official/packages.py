"""torchvision beside a CPU build of torch: its wheel expects operators that a CPU torch does not have."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def import_torchvision() -> ModuleType:
    """torchvision; where its operators do not load, a `nms` of ours stands in for the one it wants.

    Only after the failure: where torchvision works, defining its operators first would end the process.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CPU")
        _KEPT.append(library)
        torchvision = importlib.import_module("torchvision")
        importlib.import_module("torchvision.extension")._has_ops = lambda: True  # `nms` asks
        return torchvision


_KEPT: list[Any] = []  # a library that is collected takes its operators with it


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression, best first: boxes [n, 4] as x1, y1, x2, y2 -> the indices kept."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order = scores.argsort(descending=True).tolist()
    kept: list[int] = []
    while order:
        best, order = order[0], order[1:]
        kept.append(best)
        others = boxes[order]
        lower = torch.maximum(boxes[best, :2], others[:, :2])
        upper = torch.minimum(boxes[best, 2:], others[:, 2:])
        shared = (upper - lower).clamp(min=0).prod(1)
        iou = shared / (areas[best] + areas[order] - shared)
        order = [index for index, value in zip(order, iou.tolist(), strict=True) if value <= threshold]
    return torch.tensor(kept, dtype=torch.int64)
