"""What a scene of SynthAVS is, and how a seed composes one.

A scene is a list of things on a backdrop, and one or more sound tracks for the same pictures. All lengths
are in frame heights, all times in seconds, so that one scene can be drawn at any size and any moment.

Two rules keep the truth decidable by ear:
- twins (two things of one class in one scene) sound together or not at all: which of two equal sources
  sounds, nobody can hear;
- a source out of view is never of a class that is in view.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import RandomState  # its streams are frozen for good; those of Generator may change
from numpy.typing import NDArray

from models.datasets.kinds import KINDS, TIMBRE_NAMES
from models.datasets.shapes import HELD_OUT_TEXTURES, area, backdrops
from models.datasets.timbres import TIMBRES, TURN, Voice

Place = tuple[float, float]
Colour = tuple[float, float, float]  # red, green, blue in 0..255
On = NDArray[np.bool_]

HELD_OUT_PITCH = (0.45, 0.60)  # the part of every timbre's range that only the probe "unseen pitch" plays
PLACING_TRIES = 8  # positions tried for an object that overlaps others; the best is kept
CROWDING = 0.7  # the objects of a scene never cover more of the frame than this
TIMBRE_NUMBER = {name: number for number, name in enumerate(TIMBRES)}


@dataclass(frozen=True)
class SynthConfig:
    """Everything that shapes a clip. Ranges are uniform unless said otherwise; chances are in [0, 1]."""

    size: int = 96
    """Height of a frame in pixels."""
    aspect: float = 1.0
    """Width of a frame over its height."""
    seconds: int = 5
    """Length of a clip, and its number of frames: one a second."""
    rate: int = 16_000
    """Samples of sound per second."""
    moment: float = 0.92
    """When in its second a frame is taken: frame 23 of 25, as AVSBench was cut."""
    tracks: int = 3
    """Sound tracks of one scene, and so clips with the same pictures."""
    objects: tuple[float, ...] = (0.05, 0.25, 0.35, 0.35)
    """Chances of one, two, three, ... objects in a scene."""
    sources: int = 3
    """At most so many classes in view sound at once."""
    area: tuple[float, float] = (0.03, 0.40)
    """An object's share of the frame, equal steps being equal ratios."""
    speed: float = 0.12
    """At most so many frame heights per second."""
    silent: float = 0.1
    """Chance that nothing in view sounds in a second."""
    join: float = 0.1
    """Chance, each, that the other classes sound too."""
    hold: float = 0.5
    """Chance that a second sounds like the one before."""
    twins: float = 0.1
    """Chance that two of the objects are of one class."""
    offscreen: float = 0.2
    """Chance that a track has a source that is not in view."""
    snr: tuple[float, float] = (-5.0, 30.0)
    """dB between one source at full loudness and the noise; the noise never stops."""
    loudness: tuple[float, float] = (-6.0, 0.0)
    """dB of a source."""
    pitch: Literal["seen", "held-out"] = "seen"
    """Which part of a timbre's range is played."""
    texture: Literal["own", "held-out"] = "own"
    """Whether things wear the texture of their class or one that no class has."""

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return round(self.size * self.aspect)


@dataclass(frozen=True)
class Thing:
    """An object in view: what it is, how it moves, what it wears, and how it sounds when it does."""

    kind: int
    radius: float
    start: Place
    velocity: Place
    tilt: float  # radians at time 0
    spin: float  # radians per second
    texture: str
    colours: tuple[Colour, Colour]
    voice: Voice

    def position(self, time: float, aspect: float) -> Place:
        """Its centre: it bounces off lines that keep most of it in the frame."""
        margin = 0.5 * self.radius
        return (
            _bounce(self.start[0] + self.velocity[0] * time, margin, aspect - margin),
            _bounce(self.start[1] + self.velocity[1] * time, margin, 1 - margin),
        )


@dataclass(frozen=True)
class Backdrop:
    """What is behind: a pattern, how large it is drawn, and how it drifts."""

    pattern: int
    scale: float  # frame heights per pattern side
    start: Place
    drift: Place
    colours: tuple[Colour, Colour]


@dataclass(frozen=True)
class Track:
    """One sound for a scene: `on` is bool [things, seconds]; `snr` None means no noise at all."""

    on: On
    offscreen: Voice  # of a class that is not in view
    offscreen_on: On  # [seconds]; never true in most tracks
    snr: float | None
    noise: int  # the colour of the noise: 0 white, 1 pink, 2 brown
    noise_phase: int


@dataclass(frozen=True)
class Scene:
    """Pictures that are the same, and the sounds that may go with them."""

    things: tuple[Thing, ...]
    backdrop: Backdrop
    tracks: tuple[Track, ...]


def _bounce(value: float, low: float, high: float) -> float:
    span = high - low
    return low + span - abs((value - low) % (2 * span) - span)


def compose(config: SynthConfig, rng: RandomState) -> Scene:
    """A scene, drawn at random from `rng`, whose objects are of different classes but for twins."""
    count = 1 + int(np.searchsorted(np.cumsum(config.objects), rng.random_sample() * sum(config.objects)))
    count = min(count, len(config.objects))
    kinds = [int(kind) for kind in rng.permutation(len(KINDS))]
    shown, unseen = kinds[:count], kinds[count:]
    if count > 1 and rng.random_sample() < config.twins:
        shown[1] = shown[0]
    things: list[Thing] = []
    for kind, share in zip(shown, _shares(config, rng, count), strict=True):
        things.append(_place(config, rng, kind, share, things))
    patterns = _deal(config, rng, shown)
    tracks = [_track(config, rng, on, unseen) for on in patterns]
    return Scene(tuple(things), _backdrop(rng), tuple(tracks))


def sounded_anew(config: SynthConfig, scene: Scene, rng: RandomState) -> Scene:
    """The same pictures with other sounds: voices, tracks and noise are drawn again, as `compose` draws them.

    Which of the new tracks takes the place of which old one is chosen so that as few things as possible go on
    sounding in a second: a mask that follows has to move.
    """
    kinds = [thing.kind for thing in scene.things]
    unseen = [kind for kind in range(len(KINDS)) if kind not in kinds]
    things = tuple(replace(thing, voice=voice_of(config, rng, thing.kind)) for thing in scene.things)
    tracks = [_track(config, rng, on, unseen) for on in _deal(config, rng, kinds)]
    orders = itertools.permutations(tracks)
    moved = min(
        orders,
        key=lambda order: sum((new.on & old.on).sum() for new, old in zip(order, scene.tracks, strict=True)),
    )
    return Scene(things, scene.backdrop, moved)


def _shares(config: SynthConfig, rng: RandomState, count: int) -> list[float]:
    """Shares of the frame for `count` objects, shrunk together where they would fill it."""
    low, high = config.area
    shares = low * (high / low) ** rng.random_sample(count)
    shrink = min(1.0, CROWDING / float(shares.sum()))
    return [max(low, float(share) * shrink) for share in shares]


def _place(config: SynthConfig, rng: RandomState, kind: int, share: float, others: Sequence[Thing]) -> Thing:
    """A thing of a class, where it overlaps the others least of a few tries."""
    shape = KINDS[kind].shape
    radius = min(math.sqrt(share * config.aspect / area(shape)), 0.55 * min(1.0, config.aspect))
    texture = KINDS[kind].texture
    if config.texture == "held-out":
        texture = HELD_OUT_TEXTURES[rng.randint(len(HELD_OUT_TEXTURES))]
    tilt, spin = rng.uniform(-0.5, 0.5), rng.uniform(-0.25, 0.25)
    colours, voice = _colours(rng), voice_of(config, rng, kind)
    best, least = None, math.inf
    for _ in range(PLACING_TRIES):
        x, y, heading, pace = rng.random_sample(4)
        start = (
            radius / 2 + x * (config.aspect - radius),
            radius / 2 + y * (1 - radius),
        )
        velocity = (
            pace * config.speed * math.cos(2 * math.pi * heading),
            pace * config.speed * math.sin(2 * math.pi * heading),
        )
        thing = Thing(kind, radius, start, velocity, tilt, spin, texture, colours, voice)
        overlap = sum(_overlap(config, thing, other) for other in others)
        if overlap < least:
            best, least = thing, overlap
        if overlap <= 0:
            break
    assert best is not None
    return best


def _overlap(config: SynthConfig, one: Thing, other: Thing) -> float:
    """How far two things run into each other, at the worst second."""
    near = min(
        math.dist(one.position(second, config.aspect), other.position(second, config.aspect))
        for second in range(config.seconds + 1)
    )
    return max(0.0, 0.9 * (one.radius + other.radius) - near)


def voice_of(config: SynthConfig, rng: RandomState, kind: int) -> Voice:
    """How one source sounds: everything but its timbre is drawn anew."""
    place, rhythm, loud = rng.random_sample(3)
    low, high = HELD_OUT_PITCH
    if config.pitch == "held-out":
        pitch = low + place * (high - low)
    else:
        pitch = place * (1 - (high - low))
        pitch += (high - low) if pitch >= low else 0.0
    quiet, full = config.loudness
    phase, beat_phase = (int(value) for value in rng.randint(0, TURN, 2, np.int64))
    gain = 10 ** ((quiet + loud * (full - quiet)) / 20)
    return Voice(
        TIMBRE_NUMBER[TIMBRE_NAMES[kind]], float(pitch), float(rhythm), phase, beat_phase, float(gain)
    )


def _deal(config: SynthConfig, rng: RandomState, shown: Sequence[int]) -> list[On]:
    """Which things sound in which second, for every track: bool [things, seconds] each.

    The classes in view are dealt out like cards, one to a track, so that tracks of one scene light different
    pixels; then further classes may join, and a second may fall silent or repeat the one before.
    """
    groups = sorted(set(shown))
    member = np.array([[kind == group for group in groups] for kind in shown])
    sounding = np.zeros((config.tracks, config.seconds, len(groups)), bool)
    for second in range(config.seconds):
        if second and rng.random_sample() < config.hold:
            sounding[:, second] = sounding[:, second - 1]
            continue
        for track, first in enumerate(_first(rng, len(groups), config.tracks)):
            if rng.random_sample() < config.silent:
                continue
            joins = rng.random_sample(len(groups)) < config.join
            if first is not None:
                joins[first] = True
            sounding[track, second, _at_most(joins, config.sources, first)] = True
    return [np.asarray(track @ member.T).T for track in sounding]


def _first(rng: RandomState, groups: int, tracks: int) -> list[int | None]:
    """The class that each track surely plays, all different; None for tracks that get none."""
    dealt = [int(group) for group in rng.permutation(groups)][:tracks]
    cards = dealt + [None] * (tracks - len(dealt))
    return [cards[int(number)] for number in rng.permutation(tracks)]


def _at_most(joins: On, sources: int, first: int | None) -> list[int]:
    """The first `sources` of the classes that want to sound; the dealt one always among them."""
    wanted = [int(group) for group in np.flatnonzero(joins)]
    wanted.sort(key=lambda group: group != first)
    return wanted[:sources]


def _track(config: SynthConfig, rng: RandomState, on: On, unseen: Sequence[int]) -> Track:
    """A sound track: what is dealt, perhaps a source out of view, and noise."""
    chance, level = rng.random_sample(2)
    kind = unseen[rng.randint(len(unseen))]
    voice = voice_of(config, rng, kind)
    seconds = rng.random_sample(config.seconds) < 0.6
    seconds[rng.randint(config.seconds)] = True
    snr = config.snr[0] + level * (config.snr[1] - config.snr[0])
    heard = chance < config.offscreen
    phase = int(rng.randint(0, TURN, dtype=np.int64))
    return Track(on, voice, seconds & heard, float(snr), int(rng.randint(3)), phase)


def _colours(rng: RandomState) -> tuple[Colour, Colour]:
    """Two colours that differ clearly in lightness; nothing about them depends on the class."""
    hue, other, saturation, light = rng.random_sample(4)
    bright = _paint(hue, 0.25 + 0.6 * saturation, 190 + 65 * light)
    dark = _paint(other, 0.3 + 0.6 * saturation, 45 + 60 * light)
    return (bright, dark) if rng.random_sample() < 0.5 else (dark, bright)


def _paint(hue: float, saturation: float, value: float) -> Colour:
    """Red, green and blue of a hue (0..1), a saturation (0..1) and a value (0..255)."""
    parts = (abs((hue * 6 + turn) % 6 - 3) - 1 for turn in (0, 4, 2))
    red, green, blue = (value * (1 - saturation * (1 - min(max(part, 0.0), 1.0))) for part in parts)
    return red, green, blue


def _backdrop(rng: RandomState) -> Backdrop:
    """A pattern in two muted colours that lie close to each other."""
    hue, saturation, light, step, scale, x, y, dx, dy = rng.random_sample(9)
    value = 60 + 130 * light
    colours = (
        _paint(hue, 0.1 + 0.35 * saturation, value),
        _paint((hue + 0.08) % 1, 0.1 + 0.35 * saturation, value * (0.6 + 0.25 * step)),
    )
    drift = (0.08 * (dx - 0.5), 0.08 * (dy - 0.5))
    return Backdrop(int(rng.randint(len(backdrops()))), 1 + 1.5 * scale, (x, y), drift, colours)
