"""A strategy is asked about every clip of a data set; what comes back is counted, a row of sums a clip.

All that a table says is computed from these rows, so that intervals come from drawing rows again (`scores`),
and nothing has to be segmented twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.datasets.clip import Clip, Clips, Mask
from models.media import Window
from models.segments import resampled, whole_seconds
from models.strategies import Segmenter
from models.training.metrics import BinaryF, EmptyFrames, FalsePositives, FrameIoU, PerDataset, PerImage
from models.training.remembering import Remembering

Name = str | None  # of a probe; None is the plain split
Rows = NDArray[np.float64]

# The columns of a row of sums. Quotients of two of them are the scores.
SUMS = (
    *("iou", "sounding"),  # over frames that have a truth
    *("f", "f_frames"),
    *("lit", "pixels"),  # under sounds that nothing in view makes
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


@dataclass
class Tally:
    """What an arm has done so far on one set."""

    rows: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def counted(self) -> Counted:
        """All of it."""
        return Counted(np.array(self.rows, np.float64), self.seconds)


def judge(
    arms: Sequence[Arm],
    sets: Mapping[Name, Clips],
    memory: Remembering,
    family: int = 1,
    *,
    masks: Path | None = None,
    watched: Callable[[range], Iterable[int]] = iter,
) -> dict[Name, list[Counted]]:
    """All arms on all sets, which are equally long: first every set's first clip, then every second one.

    So what sets have in common, their pictures, is looked at once; `family` says how many neighbours share
    theirs too. Seconds are what an arm would have needed alone. `masks` is a folder for PNGs.
    """
    length = {len(clips) for clips in sets.values()}
    assert len(length) == 1, f"sets of {length} clips"
    tallies = {name: [Tally() for _ in arms] for name in sets}
    rates = {rate for arm in arms for rate in arm.audio_rates}
    for number in watched(range(length.pop())):
        if number % family == 0:
            memory.forget()
        for name, clips in sets.items():
            clip = clips[number]
            window = window_of(clip, rates)
            for arm, tally in zip(arms, tallies[name], strict=True):
                began = time.perf_counter() + memory.spared
                answer = np.stack([frame.mask for frame in arm.segmenter(window, arm.options)])
                tally.seconds += time.perf_counter() + memory.spared - began
                tally.rows.append(sums(answer, clip))
                if masks is not None:
                    save_masks(masks / (name or "plain") / arm.name / clip.name, answer)
    return {name: [tally.counted() for tally in mine] for name, mine in tallies.items()}


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
    if clip.negative:  # a swapped sound may be of the very class in view: what it lights is then no mistake
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


def grouped(rows: Rows, family: int) -> Rows:
    """Neighbours summed, `family` at a time: clips with the same pictures are no independent draws."""
    starts = np.arange(0, len(rows), family)
    return np.add.reduceat(rows, starts, axis=0)
