"""A strategy is asked about every clip of a data set; what comes back is counted, a row of sums a clip.

All that a table says is computed from these rows, so that intervals come from drawing rows again (`scores`),
and nothing has to be segmented twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.batching import Batcher
from models.datasets.clip import Clip, Mask
from models.media import Window
from models.segments import resampled, whole_seconds
from models.strategies import Segmenter
from models.training.metrics import BinaryF, EmptyFrames, FalsePositives, FrameIoU, PerDataset, PerImage

Item = TypeVar("Item")
Result = TypeVar("Result")
Rows = NDArray[np.float64]

# The columns of a row of sums. Quotients of two of them are the scores.
SUMS = (
    *("iou", "sounding"),  # over frames that have a truth
    *("f", "f_frames"),
    *("lit", "pixels"),
    *("right", "empty"),  # over frames that have none
    *("published_iou", "published_f", "batches"),
    *("dark", "extra", "missed", "hit"),  # pixels of the confusion matrix
)
COLUMN = {name: number for number, name in enumerate(SUMS)}


@dataclass(frozen=True)
class Arm:
    """A built strategy with options: a line of the table."""

    name: str
    segmenter: Segmenter
    options: Any
    audio_rates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Counted:
    """Sums [clips, len(SUMS)] of one arm on one data set, and the seconds that its answers took."""

    rows: Rows
    seconds: float


def judge(
    arms: Sequence[Arm],
    clips: Iterable[Clip],
    masks: Path | None = None,
) -> list[Counted]:
    """All arms in one pass over the clips: each clip is read once. `masks` is a folder for PNGs."""
    rows: list[list[list[float]]] = [[] for _ in arms]
    seconds = [0.0] * len(arms)
    rates = {rate for arm in arms for rate in arm.audio_rates}
    for clip in clips:
        window = window_of(clip, rates)
        for number, arm in enumerate(arms):
            began = time.perf_counter()
            answer = np.stack([frame.mask for frame in arm.segmenter(window, arm.options)])
            seconds[number] += time.perf_counter() - began
            rows[number].append(sums(answer, clip))
            if masks is not None:
                save_masks(masks / arm.name / clip.name, answer)
    return [Counted(np.array(r, np.float64), s) for r, s in zip(rows, seconds, strict=True)]


def window_of(clip: Clip, rates: set[int]) -> Window:
    """A clip as a strategy would get it from the service: its frames, each with its second of sound."""
    count = len(clip.frames)
    sound = {
        rate: whole_seconds(resampled(clip.audio, clip.rate, rate), rate, count) for rate in sorted(rates)
    }
    return Window(
        index=0,
        size=(clip.frames.shape[1], clip.frames.shape[2]),
        timestamps=tuple(float(second) for second in range(count)),
        indices=tuple(range(count)),
        audio_windows=tuple((float(second), second + 1.0) for second in range(count)),
        frames=clip.frames,
        audio=sound,
        has_audio=True,
    )


def sums(answer: Mask, clip: Clip) -> list[float]:
    """What a clip's masks add to every score. IoU and F are against the clip's own truth, also where its
    sound was exchanged: that is mIoU-. Whether a frame is empty is told by the sound that is heard."""
    kept = [a and p for a, p in zip(clip.annotated, clip.present, strict=True)]
    mask = torch.from_numpy(answer[kept])
    truth, expected = (torch.from_numpy(labels[kept] != 0) for labels in (clip.truth, clip.expected))
    iou, f, lit, empty = FrameIoU(), BinaryF(), FalsePositives(), EmptyFrames()
    published, matrix = PerImage(), PerDataset()
    iou.update(mask, truth)
    f.update(mask, truth)
    lit.update(mask)
    empty.update(mask, expected)
    published.update(mask, expected)
    matrix.update(mask, expected)
    result = published.result()
    of_frames = [iou.total, iou.frames, f.total, f.frames, lit.lit, lit.pixels, empty.right, empty.frames]
    return [*of_frames, result["mIoU"], result["F"], 1, *matrix.matrix.flatten().tolist()]


def save_masks(folder: Path, answer: Mask) -> None:
    """A PNG a frame, numbered from 1 as AVSBench's are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(answer, start=1):
        Image.fromarray(mask).save(folder / f"{number}.png")


class Remembering(Batcher):
    """A batcher that answers what it was asked before from memory, as long as it is the same clip: arms that
    differ in thresholds alone cost their networks once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Hashable, list[Any]] = {}

    def forget(self) -> None:
        """A new clip."""
        self._known.clear()

    def __call__(
        self, function: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], key: Hashable = None
    ) -> list[Result]:
        question = function, key, content(list(items))
        if question not in self._known:
            self._known[question] = super().__call__(function, items, key)
        return self._known[question]


def content(item: object) -> Hashable:
    """What two equal items have in common, whichever objects they are."""
    if isinstance(item, torch.Tensor):
        return tuple(item.shape), item.dtype, item.detach().cpu().numpy().tobytes()
    if isinstance(item, np.ndarray):
        return item.shape, item.dtype.str, item.tobytes()
    if isinstance(item, list | tuple):
        return tuple(map(content, item))
    assert isinstance(item, Hashable), f"{type(item).__name__} cannot be remembered"
    return item


def grouped(rows: Rows, family: int) -> Rows:
    """Neighbours summed, `family` at a time: clips with the same pictures are no independent draws."""
    starts = np.arange(0, len(rows), family)
    return np.add.reduceat(rows, starts, axis=0)
