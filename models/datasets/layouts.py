"""SynthAVS as AVSBench folders: the very names, tables and formats that real data has."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from models.datasets.avsbench import LAYOUTS, Row, Subset, located
from models.datasets.clip import Clip
from models.datasets.kinds import CLASS_NAMES
from models.datasets.labels import palette, write_wav
from models.datasets.scenes import SynthConfig
from models.datasets.synthavs import SPLITS, SynthAVS
from models.datasets.video import write_video
from models.errors import DatasetInvalid, InvalidOption

Split = Literal["train", "val", "test"]
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
JPEG_QUALITY = 95
PNG_LEVEL = 1  # compression: writing is what takes the time

# One class sounds, all along, as in S4; several come and go in MS3. Neither has families of tracks.
SINGLE = {"tracks": 1, "sources": 1, "join": 0.0, "hold": 1.0, "silent": 0.0, "twins": 0.05}
MULTI = {"tracks": 1, "silent": 0.08, "join": 0.35, "objects": (0.0, 0.35, 0.4, 0.25)}


@dataclass(frozen=True)
class Order:
    """What to write: a layout, how many clips, how large, from which seed, and whether with raw mp4 files."""

    subset: Subset
    clips: int
    size: int = 224
    seed: int = 0
    videos: bool = True


@dataclass(frozen=True)
class Piece:
    """One clip of an order: its row, the data set that makes it, and its number there."""

    row: Row
    source: SynthAVS
    index: int


def write_layout(
    out: Path, order: Order, workers: int = 1, tick: Callable[[Iterable[Row]], Iterable[Row]] = iter
) -> None:
    """Writes a data set to the new folder `out`; `tick` sees every row go by, for a progress bar.

    Everything is made in a hidden folder beside it that gets its name at the very end: a run that breaks off
    leaves nothing.
    """
    if order.clips < len(SPLITS):
        raise InvalidOption(f"{order.clips} clips do not make three splits; {len(SPLITS)} are the fewest.")
    if out.exists():
        raise DatasetInvalid(f"{out} is there already; remove it or name another folder.")
    pieces = list(planned(order))
    with fresh_folder(out) as folder:
        home = folder / LAYOUTS[order.subset].homes[-1 if order.subset != "avss" else 0]
        home.mkdir(parents=True, exist_ok=True)
        write_table(home, order.subset, [piece.row for piece in pieces])
        jobs = [(home, order, piece) for piece in pieces]
        if workers == 1:
            rows = map(_write_piece, jobs)
            _drain(tick(rows))
        else:
            with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                _drain(tick(pool.map(_write_piece, jobs, chunksize=2)))


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, and vanishes when not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def planned(order: Order) -> Iterator[Piece]:
    """The clips of an order, split by split. AVSS takes turns between v1s, v1m and v2."""
    for split, share in SHARES.items():
        count = max(1, round(order.clips * share))
        if split == "train":
            count = order.clips - sum(max(1, round(order.clips * SHARES[other])) for other in ("val", "test"))
        labels = ("v1s", "v1m", "v2") if order.subset == "avss" else ("",)
        for number in range(count):
            label = labels[number % len(labels)]
            source = SynthAVS(split, count, seed=order.seed, config=_config(order, label))
            yield Piece(_row(source, number, order.subset, label), source, number)


def _config(order: Order, label: str) -> SynthConfig:
    """What clips of a layout are like; S4 and v1s hear one class all along."""
    single = order.subset == "s4" or label == "v1s"
    config = SynthConfig(size=order.size, **(SINGLE if single else MULTI))
    return replace(config, seconds=10 if label == "v2" else 5)


def _row(source: SynthAVS, number: int, subset: Subset, label: str) -> Row:
    scene = source.scene(number)
    heard = sorted(
        {scene.things[int(thing)].kind for thing in np.flatnonzero(scene.tracks[0].on.any(axis=1))}
    )
    names = [CLASS_NAMES[kind].replace(" ", "_") for kind in heard]
    name = f"synth_{source.seed}_{source.split}_{number:05d}" + (f"_{label}" if label else "")
    if subset == "s4":
        return Row(name, source.split, names[0])
    return Row(name, source.split, ",".join(names) if subset == "avss" else "", label)


def write_table(home: Path, subset: Subset, rows: list[Row]) -> None:
    """The table of a subset, and the classes of AVSS."""
    lines: dict[Subset, tuple[list[str], Callable[[Row], list[str]]]] = {
        "s4": (["name", "start", "category", "split"], lambda row: [row.name, "0", row.category, row.split]),
        "ms3": (["video_id", "split"], lambda row: [row.name, row.split]),
        "avss": (
            ["vid", "uid", "s_min", "s_sec", "a_obj", "split", "label"],
            lambda row: [row.name, row.name, "0", "0", row.category, row.split, row.label],
        ),
    }
    header, line = lines[subset]
    with (home / LAYOUTS[subset].table).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *map(line, rows)])
    if subset == "avss":
        names = ["background", *(name.replace(" ", "_") for name in CLASS_NAMES)]
        table = json.dumps({name: number for number, name in enumerate(names)}, indent=1)
        (home / "label2idx.json").write_text(table, encoding="utf-8")


def _write_piece(job: tuple[Path, Order, Piece]) -> Row:
    """All files of one clip."""
    home, order, piece = job
    layout, row, clip = LAYOUTS[order.subset], piece.row, piece.source[piece.index]
    for number in range(row.seconds):
        place = _made(home / located(layout.frames[0], row, number + layout.first))
        # Each format takes its own of the two options.
        Image.fromarray(clip.frames[number]).save(place, quality=JPEG_QUALITY, compress_level=PNG_LEVEL)
        if number < row.must_have(order.subset):
            _write_masks(home, order.subset, row, clip, number)
    write_wav(_made(home / located(layout.audio, row)), clip.audio, clip.rate)
    if order.videos:
        scene = piece.source.scene(piece.index)
        place = _made(home / located(layout.video, row))
        write_video(place, scene, piece.source.track(piece.index), piece.source.config)
    return row


def _write_masks(home: Path, subset: Subset, row: Row, clip: Clip, number: int) -> None:
    """One frame's truth: black and white, or for AVSS the class numbers and their colours."""
    layout, truth = LAYOUTS[subset], clip.truth[number]
    pictures = [truth, palette()[truth]] if subset == "avss" else [(truth != 0).astype(np.uint8) * 255]
    for pattern, picture in zip(layout.masks, pictures, strict=True):
        Image.fromarray(picture).save(_made(home / located(pattern, row, number + layout.first)))


def _made(place: Path) -> Path:
    """The place itself, once its folder is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _drain(rows: Iterable[Row]) -> None:
    for _ in rows:
        pass
