"""AVSBench as it lies on disk: S4, MS3 and AVSS are one class and three rows of a table."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.random import RandomState
from PIL import Image

from models.datasets.clip import Clip, Pixels
from models.datasets.labels import read_classes, read_frame, read_mask, read_wav
from models.errors import DatasetInvalid, InvalidOption

Subset = Literal["s4", "ms3", "avss"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """Where a subset keeps its files, relative to the folder of its table.

    `columns` names the table's columns by position, or is empty where they are found by their header. Of
    several patterns the first that exists counts. `first` is the number of the first frame.
    """

    table: str
    columns: tuple[str, ...]
    homes: tuple[str, ...]
    frames: tuple[str, ...]
    masks: tuple[str, ...]
    audio: str
    video: str
    first: int


LAYOUTS: dict[str, Layout] = {
    "s4": Layout(
        table="s4_meta_data.csv",
        columns=("name", "start", "category", "split"),
        homes=("", "Single-source", "avsbench_data/Single-source"),
        frames=("s4_data/visual_frames/{split}/{category}/{name}/{name}_{number}.png",),
        masks=("s4_data/gt_masks/{split}/{category}/{name}/{name}_{number}.png",),
        audio="s4_data/audio_wav/{split}/{category}/{name}.wav",
        video="s4_data/raw_videos/{split}/{category}/{name}.mp4",
        first=1,
    ),
    "ms3": Layout(
        table="ms3_meta_data.csv",
        columns=("name", "split"),
        homes=("", "Multi-sources", "avsbench_data/Multi-sources"),
        frames=(
            "ms3_data/visual_frames/{name}/{name}.mp4_{number}.png",
            "ms3_data/visual_frames/{name}/{name}_{number}.png",
        ),
        masks=("ms3_data/gt_masks/{split}/{name}/{name}_{number}.png",),
        audio="ms3_data/audio_wav/{split}/{name}.wav",
        video="ms3_data/raw_videos/{name}.mp4",
        first=1,
    ),
    "avss": Layout(
        table="metadata.csv",
        columns=(),
        homes=("", "AVSBench-semantic", "avsbench_data/AVSBench-semantic"),
        frames=("{label}/{name}/frames/{number}.jpg", "{label}/{name}/frames/{number}.png"),
        masks=("{label}/{name}/labels_semantic/{number}.png", "{label}/{name}/labels_rgb/{number}.png"),
        audio="{label}/{name}/audio.wav",
        video="{label}/{name}/video.mp4",
        first=0,
    ),
}


@dataclass(frozen=True)
class Row:
    """A clip's line in its table. `label` is v1s, v1m or v2 in AVSS, and empty elsewhere."""

    name: str
    split: str
    category: str = ""
    label: str = ""

    @property
    def seconds(self) -> int:
        """Frames of the clip, one a second."""
        return 10 if self.label == "v2" else 5

    def must_have(self, subset: str) -> int:
        """How many of its masks have to be there: S4's training clips and AVSS's v1s have but the first."""
        only_first = self.label == "v1s" or (subset == "s4" and self.split == "train")
        return 1 if only_first else self.seconds


@dataclass(frozen=True)
class Reading:
    """How clips are read."""

    rate: int = 16_000
    """What sound is resampled to, in Hz."""
    size: int | None = None
    """Pictures become squares of so many pixels; None keeps them."""
    fit: Literal["squash", "crop"] = "squash"
    """Both sides to `size`, or the short side and the middle of the long one."""
    semantic: bool = False
    """Whether the classes of AVSS are kept apart."""


class AVSBench:
    """One split of one subset, from the folder that holds its table or one of the folders above.

    `fraction` takes a part of the split as the paper did (`sample`).
    """

    def __init__(
        self,
        root: Path | str,
        subset: Subset,
        split: str,
        *,
        fraction: float = 1.0,
        reading: Reading = Reading(),
    ) -> None:
        if subset not in LAYOUTS:
            raise InvalidOption(f"AVSBench has no subset {subset!r}; it has {', '.join(LAYOUTS)}.")
        if reading.semantic and subset != "avss":
            raise InvalidOption(f"The subset {subset!r} does not tell classes apart; only 'avss' does.")
        self.subset, self.split, self.layout = subset, split, LAYOUTS[subset]
        self.home = find_home(Path(root), subset)
        self.reading = reading
        self.classes = class_names(self.home) if subset == "avss" else ("background", "sounding")
        rows = [row for row in read_table(self.home / self.layout.table, subset) if row.split == split]
        if not rows:
            raise DatasetInvalid(f"{self.home / self.layout.table} has no clip in the split {split!r}.")
        self.rows = sample(rows, fraction)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Clip:
        row = self.rows[index]
        frames = [read_frame(path) for path in self.frame_paths(row)]
        if self.reading.size is None and len({frame.shape for frame in frames}) > 1:
            raise DatasetInvalid(f"{self.frame_paths(row)[0].parent} holds frames of different sizes.")
        pictures = np.stack([self._scaled(frame, Image.Resampling.BILINEAR) for frame in frames])
        truth = np.zeros(pictures.shape[:3], np.uint8)
        annotated = []
        for number, path in enumerate(self.mask_paths(row)):
            annotated.append(path is not None)
            if path is not None:
                truth[number] = self._labels(path, frames[number].shape[:2])
        sound, rate = read_wav(self.audio_path(row), self.reading.rate)
        here = (True,) * row.seconds
        return Clip(row.name, pictures, sound, rate, truth, tuple(annotated), here, row.category)

    def categories(self, index: int) -> frozenset[str]:
        """The classes that the table names; none in MS3, which has no such column."""
        return frozenset(part.strip() for part in re.split("[,;]", self.rows[index].category) if part.strip())

    def frame_paths(self, row: Row) -> list[Path]:
        """The frames of a clip, in order."""
        return [self._first(self.layout.frames, row, number) for number in range(row.seconds)]

    def mask_paths(self, row: Row) -> list[Path | None]:
        """The masks of a clip, in order; None for a frame that need not have one and has none."""
        paths = [self._first(self.layout.masks, row, number) for number in range(row.seconds)]
        needed = row.must_have(self.subset)
        return [path if number < needed or path.is_file() else None for number, path in enumerate(paths)]

    def audio_path(self, row: Row) -> Path:
        """The sound of a clip."""
        return self.home / located(self.layout.audio, row)

    def _first(self, patterns: tuple[str, ...], row: Row, number: int) -> Path:
        """The first of several places that exists; else the first, for an error to name."""
        places = [self.home / located(pattern, row, number + self.layout.first) for pattern in patterns]
        return next((place for place in places if place.is_file()), places[0])

    def _labels(self, path: Path, shape: tuple[int, ...]) -> Pixels:
        """One frame's truth, at the size of its frame."""
        if self.subset == "avss":
            labels = read_classes(path, len(self.classes))
            labels = labels if self.reading.semantic else (labels != 0).astype(np.uint8)
        else:
            labels = read_mask(path)
        if labels.shape != shape:
            labels = resized(labels, (shape[1], shape[0]), Image.Resampling.NEAREST)
        return self._scaled(labels, Image.Resampling.NEAREST)

    def _scaled(self, picture: Pixels, how: Image.Resampling) -> Pixels:
        """A picture at the size that was asked for."""
        if self.reading.size is None:
            return picture
        if self.reading.fit == "squash":
            return resized(picture, (self.reading.size, self.reading.size), how)
        height, width = picture.shape[:2]
        zoom = self.reading.size / min(height, width)
        large = resized(picture, (round(width * zoom), round(height * zoom)), how)
        top, left = (large.shape[0] - self.reading.size) // 2, (large.shape[1] - self.reading.size) // 2
        return large[top : top + self.reading.size, left : left + self.reading.size]


def located(pattern: str, row: Row, number: int = 0) -> str:
    """Where a file of a clip lies, relative to the folder of its table."""
    return pattern.format(
        split=row.split, category=row.category, name=row.name, label=row.label, number=number
    )


def resized(picture: Pixels, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    """A picture at `size` (width, height)."""
    return np.asarray(Image.fromarray(picture).resize(size, how))


def find_home(root: Path, subset: str) -> Path:
    """The folder with the subset's table, at or below `root`."""
    layout = LAYOUTS[subset]
    if not root.is_dir():
        raise DatasetInvalid(f"{root} is not a folder.")
    for home in layout.homes:
        if (root / home / layout.table).is_file():
            return root / home
    looked = ", ".join(str(Path(home) / layout.table) for home in layout.homes)
    raise DatasetInvalid(f"{root} holds no {subset.upper()} data: none of {looked} is there.")


def read_table(path: Path, subset: str) -> list[Row]:
    """The rows of a table in their order, which `sample` depends on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(line)]
    except (OSError, ValueError, csv.Error) as cause:
        raise DatasetInvalid(f"{path} is not a readable table: {cause}.") from cause
    if not lines:
        raise DatasetInvalid(f"{path} is not a readable table: it is empty.")
    header = lines.pop(0)
    columns = LAYOUTS[subset].columns or tuple(
        {"uid": "name", "a_obj": "category"}.get(name, name) for name in header
    )
    if missing := {"name", "split"} - set(columns):
        raise DatasetInvalid(f"{path} has no column for {' and '.join(sorted(missing))}.")
    for number, line in enumerate(lines, start=2):
        if len(line) < len(columns):
            raise DatasetInvalid(f"{path} line {number} has {len(line)} columns instead of {len(columns)}.")
    cells = [dict(zip(columns, line, strict=False)) for line in lines]
    return [
        Row(cell["name"], cell["split"], cell.get("category", ""), cell.get("label", "")) for cell in cells
    ]


def class_names(home: Path) -> tuple[str, ...]:
    """The classes of AVSS by their number, the background first."""
    path = home / "label2idx.json"
    try:
        numbers = {str(name): int(number) for name, number in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        raise DatasetInvalid(f"{path} is missing.") from None
    except (OSError, ValueError, TypeError, AttributeError) as cause:
        raise DatasetInvalid(f"{path} is no table of classes: {cause}.") from cause
    names = sorted(numbers, key=numbers.__getitem__)
    if [numbers[name] for name in names] != list(range(len(names))):
        raise DatasetInvalid(f"{path} does not number its {len(names)} classes from 0 on.")
    return tuple(names)


def sample(rows: list[Row], fraction: float) -> list[Row]:
    """The rows, and their order, that pandas' `DataFrame.sample(frac=fraction, random_state=0)` takes.

    With fraction 1 the table's own order stays.
    """
    if not 0 < fraction <= 1:
        raise InvalidOption(f"The fraction of a split lies above 0 and up to 1; {fraction:g} does not.")
    if fraction == 1:
        return rows
    count = round(fraction * len(rows))
    if count == 0:
        raise InvalidOption(f"A fraction of {fraction:g} leaves none of the {len(rows)} clips.")
    return [rows[number] for number in RandomState(0).choice(len(rows), size=count, replace=False)]


def padded(clip: Clip, length: int = 10) -> Clip:
    """A clip of `length` frames, as the reference trains AVSS: the added ones are black, and not `present`.

    Nothing is added unless asked for, because a padded frame must never count as a background that was found.
    """
    extra = length - len(clip.frames)
    if extra < 0:
        raise InvalidOption(f"{clip.name} has {len(clip.frames)} frames and cannot be padded to {length}.")
    widths = ((0, extra), (0, 0), (0, 0))
    return Clip(
        name=clip.name,
        frames=np.pad(clip.frames, (*widths, (0, 0))),
        audio=clip.audio,
        rate=clip.rate,
        truth=np.pad(clip.truth, widths),
        annotated=clip.annotated + (False,) * extra,
        present=clip.present + (False,) * extra,
        category=clip.category,
        negative=clip.negative,
    )
