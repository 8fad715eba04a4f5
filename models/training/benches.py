"""On what strategies are judged: a split, the same clips under other sounds, and what is known about them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.datasets.avsbench import SUBSETS, AVSBench, Subset, find_home
from models.datasets.ceilings import blind_ceiling, deaf_ceiling
from models.datasets.clip import Clip, Clips
from models.datasets.scenes import SynthConfig
from models.datasets.synthavs import PROBES, SPLITS, SynthAVS, open_synth
from models.datasets.views import NEGATIVES, Composite, NegativeAudio
from models.errors import DatasetInvalid, InvalidOption
from models.training.batches import SYNTH
from models.training.scores import ROBUST_PROBES

SYNTH_CLIPS = 60  # of SynthAVS where nobody says how many: `all`, robust, in minutes on two cores
COMPOSITE = "composite"


@dataclass(frozen=True)
class Bench:
    """A split of some data and its probes. `family` neighbours share their pictures."""

    data: str
    split: str
    clips: Clips
    probe: Callable[[str], Clips]
    family: int = 1
    synth: SynthAVS | None = None

    def ceilings(self) -> dict[str, float]:
        """What the deaf and the blind reach at best, where truths of several sounds are known."""
        if self.synth is None:
            return {}
        families = (self.synth.family(number)[1] for number in range(-(-len(self.clips) // self.family)))
        return {"deaf ceiling": deaf_ceiling(families), "blind ceiling": blind_ceiling(self.clips)}


def synth_bench(split: str, clips: int, seed: int = 0, config: SynthConfig = SynthConfig()) -> Bench:  # noqa: B008  (frozen)
    """SynthAVS, in whole families."""
    count = -(-clips // config.tracks) * config.tracks
    plain = SynthAVS(split, count, seed=seed, config=config)
    return Bench(
        f"{SYNTH} at {config.size} px",
        split,
        plain,
        lambda probe: open_synth(split, count, probe=probe, seed=seed, config=config),
        config.tracks,
        plain,
    )


def folder_bench(root: Path, subset: Subset | None, split: str, clips: int | None, seed: int = 0) -> Bench:
    """AVSBench on disk; the first subset that the folder holds, unless one is named."""
    data: Clips = AVSBench(root, subset or first_subset(root), split)
    if clips is not None and clips < len(data):
        data = First(data, clips)

    def probe(name: str) -> Clips:
        if name == COMPOSITE:
            return Composite(data, seed=seed)
        return NegativeAudio(data, name, seed=seed)

    return Bench(str(root), split, data, probe)


@dataclass(frozen=True)
class First:
    """The first `count` clips of a data set."""

    clips: Clips
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.clips[index]

    def categories(self, index: int) -> frozenset[str]:
        """Names of the classes in view."""
        return self.clips.categories(index)


def first_subset(root: Path) -> Subset:
    """S4, MS3 or AVSS."""
    if not root.is_dir():
        raise DatasetInvalid(f"{root} is not a folder.")
    for subset in SUBSETS:
        try:
            find_home(root, subset)
        except DatasetInvalid:
            continue
        return subset
    raise DatasetInvalid(f"{root} holds no AVSBench data: python -m models.datasets check {root} says more.")


def bench_of(options: argparse.Namespace) -> Bench:
    """`synth`, `synth:val` or a folder."""
    name, _, split = options.data.partition(":")
    if name == SYNTH:
        split = split or options.split
        if split not in SPLITS:
            raise InvalidOption(f"SynthAVS has no split {split!r}; it has {', '.join(SPLITS)}.")
        return synth_bench(split, options.clips or SYNTH_CLIPS, options.seed, SynthConfig(size=options.size))
    return folder_bench(Path(options.data), options.subset, options.split, options.clips, options.seed)


def probes_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Those asked for, and those that the protocol needs."""
    known = PROBES if options.data.partition(":")[0] == SYNTH else (*NEGATIVES, COMPOSITE)
    asked = tuple(part for part in (options.probe or "").split(",") if part)
    for probe in asked:
        if probe not in known:
            raise InvalidOption(f"There is no probe {probe!r}; there are {', '.join(known)}.")
    needed = ROBUST_PROBES if options.protocol == "robust" else ()
    return (*needed, *(probe for probe in asked if probe not in needed))
