"""Clips become batches, in an order that is a function of the seed and the step alone.

Nothing about the order is kept between steps, so a run that is resumed goes on with the very clips that it
would have seen, in any number of worker processes and on any number of devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from torch import Tensor
from torch.utils.data import DataLoader

from models.audioclip.preprocess import image_input
from models.datasets.avsbench import AVSBench, Reading
from models.datasets.clip import Clip, Clips
from models.datasets.kinds import CLASS_NAMES, CLASSES
from models.datasets.synthavs import SynthAVS
from models.datasets.views import NegativeAudio
from models.errors import InvalidOption
from models.training.inputs import inputs_of
from models.training.recipes import Recipe

SYNTH = "synth"
# Their shares among clips with a wrong sound. Digital silence is not among them: its -180 dB would rule the
# statistics of a whole batch, and it is known for what it is without a network.
NEGATIVES = {"noise": 0.4, "offscreen": 0.6}


class Hints(NamedTuple):
    """What SynthAVS knows beyond the truth: the class of the thing that each pixel shows, int64
    [n, size, size] with 0 for none; and of each class whether it sounds, float [n, classes], which is `known`
    (bool) for those in view alone: what sounds out of view is no part of a clip."""

    seen: Tensor
    heard: Tensor
    known: Tensor


@dataclass(frozen=True)
class Batch:
    """All frames of some clips, one after another.

    `images` float [n, 3, size, size] normalised, `sound` float [n, ...] as `inputs` makes it for the network,
    `truth` float [n, size, size] of zeros and ones. Frames without annotation are not `judged` (bool [n]).
    """

    images: Tensor
    sound: Tensor
    truth: Tensor
    judged: Tensor
    hints: Hints | None = None

    def to(self, device: torch.device) -> Batch:
        """The same, there."""
        hints = self.hints and Hints(*(tensor.to(device) for tensor in self.hints))
        images, sound, truth = (tensor.to(device) for tensor in (self.images, self.sound, self.truth))
        return Batch(images, sound, truth, self.judged.to(device), hints)


def batch_of(clips: Sequence[Clip], recipe: Recipe) -> Batch:
    """Frames squashed to the recipe's size, and the sound of each as the recipe's network wants it."""
    frames = np.concatenate([clip.frames for clip in clips]) if alike(clips) else None
    if frames is None:
        images = torch.cat([picture(clip.frames, recipe) for clip in clips])
    else:
        images = picture(frames, recipe)
    sound = torch.cat([inputs_of(recipe).sound(clip, recipe) for clip in clips])
    truth = torch.cat([masks_of(clip, recipe.size) for clip in clips])
    judged = [a and p for clip in clips for a, p in zip(clip.annotated, clip.present, strict=True)]
    hints = hints_of(clips, recipe.size) if recipe.hints else None
    return Batch(images, sound, truth, torch.tensor(judged), hints)


def hints_of(clips: Sequence[Clip], size: int) -> Hints:
    """From clips of SynthAVS, whose class numbers are those of CLASS_NAMES from 1 on."""
    seen, heard, known = [], [], []
    for clip in clips:
        assert clip.instances is not None, "`open_clips` opens SynthAVS alone for a recipe with hints"
        classes = [CLASS_NAMES.index(thing) + 1 for thing in clip.things]
        pixels = torch.from_numpy(np.array([0, *classes], np.int64)[clip.instances])
        seen.append(F.interpolate(pixels[None].float(), (size, size), mode="nearest-exact")[0].long())
        sounding = [np.isin(range(1, CLASSES + 1), labels) for labels in clip.expected]
        heard.append(torch.from_numpy(np.stack(sounding)).float())
        in_view = np.isin(range(1, CLASSES + 1), classes)
        known.append(torch.from_numpy(in_view).expand(len(clip.frames), -1))
    return Hints(torch.cat(seen), torch.cat(heard), torch.cat(known))


def alike(clips: Sequence[Clip]) -> bool:
    """Whether all clips have frames of one size."""
    return len({clip.frames.shape[1:] for clip in clips}) == 1


def picture(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], recipe: Recipe) -> Tensor:
    """Uint8 [n, H, W, 3] -> float [n, 3, size, size]."""
    colours = inputs_of(recipe).colours
    return image_input(frames, recipe.size, fit="squash", antialias=recipe.antialias, colours=colours)


def masks_of(clip: Clip, size: int) -> Tensor:
    """What sounds in each frame: float [T, size, size], by the nearest pixel."""
    truth = torch.from_numpy(clip.expected != 0).float()
    if truth.shape[-2:] == (size, size):
        return truth
    return F.interpolate(truth[None], (size, size), mode="nearest-exact")[0]


def open_clips(data: str, recipe: Recipe, split: str, clips: int | None = None) -> Clips:
    """A split of the data named on the command line: `synth`, or a folder with AVSBench."""
    if data == SYNTH:
        return SynthAVS(split, clips)
    fraction = recipe.fraction if split == "train" else 1.0
    reading = Reading(rate=inputs_of(recipe).rate)
    folder = AVSBench(Path(data), recipe.subset, split, fraction=fraction, reading=reading)
    if recipe.hints:
        raise InvalidOption(f"{recipe.name} takes hints that SynthAVS alone has: choose --data synth.")
    return folder


def sounding(data: str, recipe: Recipe, clips: Clips) -> dict[str | None, Clips]:
    """The training clips under their own sound (None) and under each of the wrong ones that it mixes in."""
    if not recipe.negatives:
        return {None: clips}
    if data == SYNTH:
        return {None: clips} | {kind: SynthAVS("train", len(clips), probe=kind) for kind in NEGATIVES}
    return {None: clips} | {kind: NegativeAudio(clips, kind, seed=recipe.seed) for kind in NEGATIVES}


@dataclass(frozen=True)
class Share:
    """Which of several devices this is: each takes every `of`-th clip of a step."""

    number: int = 0
    of: int = 1


class Feed:
    """The batches of a run, by step. `rank` takes its share of each step's clips."""

    def __init__(self, data: str, recipe: Recipe, share: Share = Share(), workers: int = 0) -> None:
        self.recipe, self.share, self.workers = recipe, share, workers
        self.clips = open_clips(data, recipe, "train", recipe.clips)
        self.sets = sounding(data, recipe, self.clips)
        self._order: tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps until every clip was seen once; the last batch may be smaller, unless devices share it."""
        return -(-len(self.clips) // self.recipe.batch)

    def numbers(self, step: int) -> list[int]:
        """The clips of a step, of all devices."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, RandomState([self.recipe.seed, epoch]).permutation(len(self.clips))
        order, batch = self._order[1], self.recipe.batch
        chosen = [int(number) for number in order[place * batch : (place + 1) * batch]]
        # A device without a clip would hold up the others: it gets the epoch's first ones again.
        return chosen + [int(number) for number in order[: max(0, self.share.of - len(chosen))]]

    def __getitem__(self, step: int) -> Batch:
        """The batch of this device at a step."""
        epoch = step // self.steps_per_epoch
        mine = self.numbers(step)[self.share.number :: self.share.of]
        return batch_of([self.sets[self.sound(epoch, number)][number] for number in mine], self.recipe)

    def sound(self, epoch: int, number: int) -> str | None:
        """Which sound a clip is played with in an epoch; None is its own."""
        if not self.recipe.negatives:
            return None
        draw = RandomState([self.recipe.seed, epoch, number]).random_sample()
        for kind, share in NEGATIVES.items():
            draw -= share * self.recipe.negatives
            if draw < 0:
                return kind
        return None

    def batches(self, first: int, end: int) -> Iterator[Batch]:
        """The batches of steps `first` to `end`, made ahead in worker processes if there are any."""
        loader: DataLoader[Batch] = DataLoader(
            self,  # type: ignore[arg-type]  # torch asks for a subclass of its own
            batch_size=None,
            sampler=range(first, end),
            num_workers=self.workers,
            generator=torch.Generator(),  # its own, so that the run's random numbers stay as they are
        )
        return iter(loader)
