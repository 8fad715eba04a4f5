"""Other sounds and other layouts of any data set: questions that any model can be asked.

`NegativeAudio` plays what the picture does not show; `Composite` puts four clips into one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import RandomState
from PIL import Image

from models.datasets.clip import Clip, Clips, Pixels, Sound
from models.errors import InvalidOption

NEGATIVES = ("silence", "noise", "offscreen", "swap")
NOISE_LEVEL = 0.1  # RMS of the noise, about that of speech in AVSBench
TRIES = 1000  # clips looked at for one that shows none of the same classes


class NegativeAudio:
    """A data set with other sounds. `truth` stays what it was: answers to a wrong sound are measured by it.

    - "silence": zeros;
    - "noise": white noise;
    - "offscreen": the sound of a clip none of whose classes is known to be in view here;
    - "swap": the sounds of the split dealt out again, none to its own clip. Where a clip gets a sound of the
      very category that it shows, its truth remains right and it is not marked as negative.

    Where categories are unknown (MS3 has none), "offscreen" is no more than another clip's sound.
    """

    def __init__(self, clips: Clips, kind: str, *, seed: int = 0) -> None:
        if kind not in NEGATIVES:
            raise InvalidOption(f"There is no negative audio {kind!r}; there are {', '.join(NEGATIVES)}.")
        if kind in ("offscreen", "swap") and len(clips) < 2:
            raise InvalidOption(f"The negative audio {kind!r} needs a split of two clips or more.")
        self.clips, self.kind, self.seed = clips, kind, seed
        self._donors = derangement(len(clips), RandomState([seed, 1])) if kind == "swap" else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        if self.kind == "silence":
            return replace(clip, audio=np.zeros_like(clip.audio), negative=True)
        if self.kind == "noise":
            hiss = RandomState([self.seed, index]).standard_normal(len(clip.audio)) * NOISE_LEVEL
            return replace(clip, audio=np.clip(hiss, -1, 1).astype(np.float32), negative=True)
        donor = self.donor(index)
        known = self.clips.categories(index)
        same = self.kind == "swap" and bool(known) and known == self.clips.categories(donor)
        sound = self.clips[donor].audio
        return replace(clip, audio=fitted(sound, len(clip.audio)), negative=not same)

    def categories(self, index: int) -> frozenset[str]:
        """Names of the classes in view."""
        return self.clips.categories(index)

    def donor(self, index: int) -> int:
        """The clip whose sound is played in clip `index`."""
        if self._donors is not None:
            return self._donors[index]
        return strangers(self.clips, index, 1, RandomState([self.seed, index]))[0]


class Composite:
    """Four clips in one picture of the same size, a quarter each, of which one is heard: clip `index`.

    The other three show none of its classes, as far as those are known. Truth lies in one quarter only.
    """

    def __init__(self, clips: Clips, *, seed: int = 0) -> None:
        if len(clips) < 4:
            raise InvalidOption("A composite needs a split of four clips or more.")
        self.clips, self.seed = clips, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        heard, place = self.clips[index], self.place(index)
        others = [self.clips[number] for number in self.partners(index)]
        quarters = [*others[:place], heard, *others[place:]]
        frames = [_frames(quarter.frames, heard.frames.shape) for quarter in quarters]
        truths = [
            _labels(quarter.truth if quarter is heard else np.zeros_like(quarter.truth), heard.truth.shape)
            for quarter in quarters
        ]
        return replace(
            heard,
            name=f"{heard.name}-composite",
            frames=_tiled(frames),
            truth=_tiled(truths),
            instances=None,
            things=(),
        )

    def categories(self, index: int) -> frozenset[str]:
        """Names of the classes in view: those of all four clips."""
        return frozenset().union(*(self.clips.categories(i) for i in (index, *self.partners(index))))

    def place(self, index: int) -> int:
        """The quarter that is heard: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
        return int(RandomState([self.seed, index]).randint(4))

    def partners(self, index: int) -> list[int]:
        """The three clips that are seen and not heard."""
        return strangers(self.clips, index, 3, RandomState([self.seed, index, 1]))


def derangement(count: int, rng: RandomState) -> list[int]:
    """A random order of `count` things in which none keeps its place: one cycle through all of them."""
    cycle = rng.permutation(count)
    order = np.empty(count, np.int64)
    order[cycle] = np.roll(cycle, 1)
    return [int(number) for number in order]


def strangers(clips: Clips, index: int, count: int, rng: RandomState) -> list[int]:
    """`count` clips that share no known class with clip `index`, nor are that clip."""
    own, found = clips.categories(index), list[int]()
    for number in rng.permutation(len(clips))[:TRIES]:
        if number != index and not own & clips.categories(int(number)):
            found.append(int(number))
        if len(found) == count:
            return found
    raise InvalidOption(
        f"Clip {index} needs {count} of other classes beside it, and the split has only {len(found)}."
    )


def fitted(sound: Sound, length: int) -> Sound:
    """A sound cut to `length` samples, or repeated to fill them."""
    return np.resize(sound, length) if len(sound) else np.zeros(length, np.float32)


def _frames(frames: Pixels, shape: Sequence[int]) -> Pixels:
    """Frames [T, H, W, 3] at half of `shape`'s height and width; a shorter clip repeats its last frame."""
    height, width = shape[1] // 2, shape[2] // 2
    small = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)) for frame in frames
    ]
    return np.stack((small + [small[-1]] * shape[0])[: shape[0]])


def _labels(truth: Pixels, shape: Sequence[int]) -> Pixels:
    """Labels [T, H, W] at half of `shape`'s size, without mixing any."""
    height, width = shape[1] // 2, shape[2] // 2
    small = [
        np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        for labels in truth
    ]
    return np.stack((small + [small[-1]] * shape[0])[: shape[0]])


def _tiled(quarters: Sequence[Pixels]) -> Pixels:
    top, bottom = (np.concatenate(quarters[row : row + 2], axis=2) for row in (0, 2))
    return np.concatenate([top, bottom], axis=1)
