"""Looks through a folder of AVSBench data and says what is missing, corrupt or odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.datasets.avsbench import LAYOUTS, SPLITS, SUBSETS, AVSBench, Row, Subset, find_home, read_table
from models.datasets.labels import open_picture, read_wav
from models.errors import DatasetInvalid

# What the published data sets hold.
WHOLE = {
    "s4": {"train": 3452, "val": 740, "test": 740},
    "ms3": {"train": 296, "val": 64, "test": 64},
}
SHORT = 0.5  # a wav that lacks more than this share of its seconds is odd; a little short they all are


@dataclass
class Report:
    """What was found: `summary` a line a split; `problems` keep clips from loading; `oddities` do not."""

    summary: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)


def audit(root: Path, tick: Callable[[Iterable[Row]], Iterable[Row]] = iter) -> Report:
    """Reads every file of every subset below `root`; `tick` sees the rows go by, for a progress bar."""
    report, subsets = Report(), list(_present(root))
    if not subsets:
        tables = ", ".join(layout.table for layout in LAYOUTS.values())
        raise DatasetInvalid(f"{root} holds no AVSBench data: none of the tables {tables} is there.")
    for subset in subsets:
        home = find_home(root, subset)
        rows = read_table(home / LAYOUTS[subset].table, subset)
        _audit_table(report, home, subset, rows)
        for split in SPLITS:
            if any(row.split == split for row in rows):
                _audit_split(report, AVSBench(root, subset, split), tick)
    strays = sum(1 for path in root.rglob(".*") if path.is_file())
    if strays:
        report.oddities.append(f"{strays} hidden files below {root}; they are ignored.")
    return report


def _present(root: Path) -> Iterator[Subset]:
    if not root.is_dir():
        raise DatasetInvalid(f"{root} is not a folder.")
    for subset in SUBSETS:
        layout = LAYOUTS[subset]
        if any((root / home / layout.table).is_file() for home in layout.homes):
            yield subset


def _audit_table(report: Report, home: Path, subset: Subset, rows: list[Row]) -> None:
    """The table by itself: its splits, its numbers, and names that come twice."""
    table, splits = home / LAYOUTS[subset].table, Counter(row.split for row in rows)
    for split, count in splits.items():
        if split not in SPLITS:
            report.oddities.append(f"{table}: {count} clips are in a split {split!r} that nobody reads.")
    for split in SPLITS:
        if not splits[split]:
            report.problems.append(f"{table} has no clip in the split {split!r}.")
        whole = WHOLE.get(subset, {}).get(split, splits[split])
        if splits[split] and splits[split] != whole:
            report.oddities.append(
                f"{table}: {splits[split]} clips in {split}; the published set has {whole}."
            )
    twice = [name for name, count in Counter((row.split, row.name) for row in rows).items() if count > 1]
    report.oddities += [f"{table}: {name} stands more than once in {split}." for split, name in twice]


def _audit_split(report: Report, data: AVSBench, tick: Callable[[Iterable[Row]], Iterable[Row]]) -> None:
    """Every clip of a split, file by file."""
    masks = empty = 0
    sizes, rates = Counter[str](), Counter[int]()
    for row in tick(data.rows):
        shapes = [_size(report, path) for path in data.frame_paths(row)]
        sizes.update(f"{shape[0]}x{shape[1]}" for shape in shapes if shape)
        if len({shape for shape in shapes if shape}) > 1:
            report.problems.append(f"{data.frame_paths(row)[0].parent} holds frames of different sizes.")
        for path, shape in zip(data.mask_paths(row), shapes, strict=True):
            if path is not None:
                lit = _audit_mask(report, data, path, shape)
                masks, empty = masks + (lit is not None), empty + (lit is False)
        rates.update(_audit_sound(report, data.audio_path(row), row.seconds))
    frames = ", ".join(f"{count} frames of {size}" for size, count in sizes.most_common())
    sounds = ", ".join(f"{count} wavs at {rate} Hz" for rate, count in rates.most_common())
    report.summary.append(
        f"{data.subset} {data.split}: {len(data)} clips, {frames or 'no frames'}, "
        f"{masks} masks ({empty} empty), {sounds or 'no wavs'}"
    )


def _size(report: Report, path: Path) -> tuple[int, int] | None:
    """Width and height of a picture, fully read; None, and a problem noted, where there is none."""
    try:
        return open_picture(path).size
    except DatasetInvalid as problem:
        report.problems.append(str(problem))
        return None


def _audit_mask(report: Report, data: AVSBench, path: Path, frame: tuple[int, int] | None) -> bool | None:
    """Whether a mask shows anything; None where it cannot be read."""
    try:
        picture = open_picture(path)
    except DatasetInvalid as problem:
        report.problems.append(str(problem))
        return None
    values = np.unique(np.asarray(picture))
    if frame is not None and picture.size != frame:
        report.oddities.append(
            f"{path} is {picture.size[0]}x{picture.size[1]}, its frame {frame[0]}x{frame[1]}; it is scaled."
        )
    if picture.mode in ("L", "I", "P"):
        known = set(range(len(data.classes))) if data.subset == "avss" else {0, 1, int(values.max())}
        if stray := sorted({int(value) for value in values} - known):
            listed = ", ".join(str(value) for value in stray[:5])
            report.oddities.append(f"{path} has stray values: {listed}{' ...' if len(stray) > 5 else ''}.")
    return bool(values.max() > 0)


def _audit_sound(report: Report, path: Path, seconds: int) -> list[int]:
    """The rate of a wav, if it can be read."""
    try:
        sound, rate = read_wav(path)
    except DatasetInvalid as problem:
        report.problems.append(str(problem))
        return []
    if len(sound) < SHORT * seconds * rate:
        report.oddities.append(f"{path} lasts {len(sound) / rate:.2f} s of {seconds}; its end is repeated.")
    if not sound.any():
        report.oddities.append(f"{path} is silent throughout.")
    return [rate]
