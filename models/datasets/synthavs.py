"""SynthAVS: an endless, seeded benchmark of hearing, drawn and played as it is asked for.

Clips come in families: `tracks` neighbours share every pixel and differ in sound and truth, so a model that
does not listen cannot tell them apart, and what it can reach at best is known exactly (`ceilings.py`). The
same seed gives the same bits, in any order and in any process.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import RandomState

from models.datasets.clip import Clip, Clips, Mask, Pixels
from models.datasets.drawing import draw
from models.datasets.kinds import KINDS
from models.datasets.mixing import mix
from models.datasets.scenes import Scene, SynthConfig, Track, compose, sounded_anew
from models.datasets.timbres import TIMBRES
from models.datasets.views import Composite
from models.errors import InvalidOption

SPLITS = {"train": 24_000, "val": 240, "test": 600}  # clips
ANEW = 1  # marks the seeds from which the probe "swap" draws sounds for pictures that have some already
SHIFT = 2  # seconds by which the probe "time-shift" delays the sound

CLASS_OF_TIMBRE = {kind.timbre: number for number, kind in enumerate(KINDS)}
CLASS_OF_VOICE = tuple(CLASS_OF_TIMBRE[name] for name in TIMBRES)


@dataclass(frozen=True)
class Probe:
    """A question to a model: what changes in the config, and what in the track.

    `negative` probes play what nothing in view makes. Where no config changes, clip `i` of a probe has the
    pixels of clip `i` of the plain split.
    """

    question: str
    config: dict[str, Any] = field(default_factory=dict)
    negative: bool = False


PROBES = {
    "silence": Probe("Digital silence: does it stay silent too?", negative=True),
    "noise": Probe("Noise alone: is any sound enough for it?", negative=True),
    "offscreen": Probe("Only a class that is not in view: does it notice?", negative=True),
    "swap": Probe("Another deal of sounds to the same things: does the mask follow?"),
    "time-shift": Probe("The sound two seconds late: does each frame get its own second?"),
    "distractor": Probe(
        "One class sounds among four objects: does it choose?",
        {"objects": (0, 0, 0, 1), "sources": 1, "join": 0.0, "twins": 0.0},
    ),
    "twins": Probe("Two objects of one class: does it find both?", {"objects": (0, 1, 1, 1), "twins": 1.0}),
    "low-snr": Probe("Noise as loud as the sources: does it hear through it?", {"snr": (-5.0, 0.0)}),
    "unseen-pitch": Probe(
        "A band of pitches left out of training: has it learnt timbres?", {"pitch": "held-out"}
    ),
    "unseen-texture": Probe("Textures left out of training: has it learnt shapes?", {"texture": "held-out"}),
    "composite": Probe(
        "Four clips in one picture, one of them heard: does it find the corner?",
        {"objects": (0.5, 0.5), "area": (0.1, 0.4), "tracks": 1},
    ),
}


class SynthAVS:
    """A split of the benchmark, or a probe of it; see `SynthConfig` for what its clips are like."""

    def __init__(
        self,
        split: str = "train",
        clips: int | None = None,
        *,
        probe: str | None = None,
        seed: int = 0,
        config: SynthConfig = SynthConfig(),  # noqa: B008  (frozen)
    ) -> None:
        if split not in SPLITS:
            raise InvalidOption(f"SynthAVS has no split {split!r}; it has {', '.join(SPLITS)}.")
        if probe is not None and probe not in PROBES:
            raise InvalidOption(f"SynthAVS has no probe {probe!r}; it has {', '.join(PROBES)}.")
        self.split, self.probe, self.seed = split, probe, seed
        self.clips = SPLITS[split] if clips is None else clips
        self.config = replace(config, **(PROBES[probe].config if probe else {}))
        self._number = list(SPLITS).index(split)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(f"SynthAVS {self.split} has {len(self)} clips; there is no clip {index}.")
        scene = self.scene(index)
        track = self._heard(scene, index)
        frames, instances = draw(scene, self.config, self.times)
        negative = self.probe is not None and PROBES[self.probe].negative
        own = scene.tracks[index % self.config.tracks] if negative else track
        everyone = (True,) * self.config.seconds
        return Clip(
            name="-".join(["synth", self.split, *([self.probe] if self.probe else []), f"{index:06d}"]),
            frames=frames,
            audio=mix(scene, track, self.config),
            rate=self.config.rate,
            truth=truth(scene, own, instances),
            annotated=everyone,
            present=everyone,
            category=_loudest(scene, own),
            negative=negative,
            instances=instances,
            things=tuple(KINDS[thing.kind].name for thing in scene.things),
        )

    @property
    def times(self) -> tuple[float, ...]:
        """The moments of a clip's frames, in seconds."""
        return tuple(second + self.config.moment for second in range(self.config.seconds))

    def scene(self, index: int) -> Scene:
        """The scene behind a clip."""
        place = [self.seed, self._number, index // self.config.tracks]
        scene = compose(self.config, RandomState(place))
        if self.probe == "swap":
            return sounded_anew(self.config, scene, RandomState([*place, ANEW]))
        return scene

    def track(self, index: int) -> Track:
        """What is heard in a clip."""
        return self._heard(self.scene(index), index)

    def _heard(self, scene: Scene, index: int) -> Track:
        return _altered(scene.tracks[index % self.config.tracks], self.probe)

    def categories(self, index: int) -> frozenset[str]:
        """Names of the classes in view or heard in a clip, without drawing it."""
        scene = self.scene(index)
        track = self._heard(scene, index)
        kinds = {thing.kind for thing in scene.things}
        if track.offscreen_on.any():
            kinds.add(CLASS_OF_VOICE[track.offscreen.timbre])
        return frozenset(KINDS[kind].name for kind in kinds)

    def family(self, number: int) -> tuple[Pixels, Mask]:
        """The pictures uint8 [T, H, W, 3] of a family, and its truths bool [tracks, T, H, W]."""
        scene = self.scene(number * self.config.tracks)
        frames, instances = draw(scene, self.config, self.times)
        return frames, np.stack([truth(scene, track, instances) != 0 for track in scene.tracks])


def open_synth(
    split: str,
    clips: int | None = None,
    *,
    probe: str | None = None,
    seed: int = 0,
    config: SynthConfig = SynthConfig(),  # noqa: B008  (frozen)
) -> Clips:
    """A split or any probe; the composite, which is made of four clips, comes as a view."""
    plain = SynthAVS(split, clips, probe=probe, seed=seed, config=config)
    return Composite(plain, seed=seed) if probe == "composite" else plain


def truth(scene: Scene, track: Track, instances: Pixels) -> Pixels:
    """Uint8 [T, H, W]: 1 + the number of the class where a thing shows that sounds in that second, else 0."""
    labels = np.zeros((len(instances), len(scene.things) + 1), np.uint8)
    kinds = np.array([thing.kind + 1 for thing in scene.things], np.uint8)
    labels[:, 1:] = (track.on * kinds[:, None]).T
    return np.stack([row.take(picture) for row, picture in zip(labels, instances, strict=True)])


def _altered(track: Track, probe: str | None) -> Track:
    """The track that a probe plays in place of a clip's own."""
    nothing, never = np.zeros_like(track.on), np.zeros_like(track.offscreen_on)
    if probe == "silence":
        return replace(track, on=nothing, offscreen_on=never, snr=None)
    if probe == "noise":
        return replace(track, on=nothing, offscreen_on=never)
    if probe == "offscreen":
        return replace(track, on=nothing, offscreen_on=~never)
    if probe == "time-shift":
        late = np.roll(track.on, SHIFT, axis=1), np.roll(track.offscreen_on, SHIFT)
        return replace(track, on=late[0], offscreen_on=late[1])
    return track


def _loudest(scene: Scene, track: Track) -> str:
    """The class that sounds longest, as a clip's category; empty where nothing in view sounds."""
    seconds = track.on.sum(axis=1)
    return KINDS[scene.things[int(seconds.argmax())].kind].name if seconds.any() else ""
