"""Twelve timbres: what a class of SynthAVS sounds like, whatever its pitch, loudness and phase.

Sound is read from tables at phases that are 32-bit integers, so that a seed gives the same samples on every
machine and a second of sound costs a fraction of a millisecond. No timbre reaches 8 kHz: a clip sounds the
same at 16 kHz and at 44.1 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.datasets.clip import Sound

CYCLE_BITS = 13  # a period of a steady tone: 8,192 samples
SLOW_BITS = 16  # a period of vibrato, tremolo or sweep; long, for a sweep covers dozens of cycles of its tone
STROKE = 1 << 16  # samples of one stroke
LOOP_BITS = 18
LOOP = 1 << LOOP_BITS  # samples of a noise loop
LOOP_RATE = 48_000  # Hz at which strokes and loops were made
TURN = 1 << 32  # one whole period in phase units
BAND_LIMIT = 7_200.0  # Hz: below half of 16 kHz, with room for vibrato
CREST = 7.0  # peaks above this many times the RMS are turned down, or a click would clip the mix


Phases = NDArray[np.uint32]


@dataclass(frozen=True)
class Voice:
    """One source's sound: its timbre by number, and what is random inside a timbre.

    `pitch` and `rhythm` are places in the timbre's ranges, 0 the lowest (slowest), 1 the highest (fastest);
    `phase` and `beat_phase` are uint32 phases at time 0; `gain` is a factor on the timbre's level.
    """

    timbre: int
    pitch: float
    rhythm: float
    phase: int
    beat_phase: int
    gain: float


@dataclass(frozen=True)
class Steady:
    """A sustained tone: `partials` of one period; `bend` is vibrato's depth in parts of the pitch."""

    partials: tuple[float, ...]
    hertz: tuple[float, float]
    beat: tuple[float, float]
    bend: float
    tremolo: float = 0.0


@dataclass(frozen=True)
class Struck:
    """A stroke that returns with every beat: `ratios`, levels and decay rates (1/s) of partials of `hertz`.

    `rise` makes each partial's frequency grow (or fall) by this factor per second of the stroke.
    """

    ratios: tuple[float, ...]
    levels: tuple[float, ...]
    decays: tuple[float, ...]
    hertz: tuple[float, float]
    beat: tuple[float, float]
    rise: float = 1.0
    attack: float = 0.003  # seconds


@dataclass(frozen=True)
class Hiss:
    """Noise between two frequencies (in parts of `hertz`), swelling with every beat from `floor` to 1."""

    band: tuple[float, float]
    hertz: tuple[float, float]
    beat: tuple[float, float]
    floor: float
    sharpness: float  # how short a swell is: the power of a raised cosine


Recipe = Steady | Struck | Hiss

TONE = (200.0, 800.0)  # Hz: two octaves, shared by all melodic timbres, so that pitch names none of them
HARMONIC = tuple(float(k) for k in range(1, 9))
TIMBRES: dict[str, Recipe] = {
    "bell": Struck(
        ratios=(1.0, 2.76, 5.4, 8.93),  # of a free bar: no two of them in harmony
        levels=(1.0, 0.9, 0.7, 0.4),
        decays=(1.5, 2.0, 3.0, 4.5),
        hertz=TONE,
        beat=(1.5, 2.5),
    ),
    "drum": Struck(
        ratios=(1.0, 1.59, 2.14, 2.65),
        levels=(1.0, 0.5, 0.35, 0.25),
        decays=(9.0, 14.0, 18.0, 22.0),
        hertz=(75.0, 150.0),
        beat=(2.5, 4.5),
        rise=0.2,
    ),
    "clock": Struck(
        ratios=(1.0, 1.37, 1.83),
        levels=(1.0, 0.8, 0.6),
        decays=(55.0, 70.0, 90.0),
        hertz=(1_800.0, 3_600.0),
        beat=(5.0, 9.0),
        attack=0.0005,
    ),
    "flute": Steady(partials=(1.0, 0.12, 0.03), hertz=TONE, beat=(4.5, 6.5), bend=0.012, tremolo=0.25),
    "siren": Steady(partials=(1.0, 0.3, 0.12), hertz=(450.0, 1_300.0), beat=(1.0, 2.0), bend=0.4),
    "guitar": Struck(
        ratios=HARMONIC,
        levels=(1.0, 0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.25),
        decays=(5.0, 6.5, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0),
        hertz=TONE,
        beat=(3.0, 5.0),
    ),
    "engine": Steady(
        partials=tuple(1.0 / k**0.6 for k in range(1, 33)), hertz=(35.0, 75.0), beat=(1.0, 2.0), bend=0.06
    ),
    "wind": Hiss(band=(0.6, 1.5), hertz=(400.0, 1_600.0), beat=(0.6, 1.2), floor=0.45, sharpness=1.0),
    "bird": Struck(
        ratios=(1.0,),
        levels=(1.0,),
        decays=(24.0,),
        hertz=(1_500.0, 2_600.0),
        beat=(4.0, 7.0),
        rise=180.0,
        attack=0.02,
    ),
    "rattle": Hiss(band=(0.6, 1.0), hertz=(5_000.0, 7_200.0), beat=(7.0, 12.0), floor=0.0, sharpness=5.0),
    "trumpet": Steady(
        partials=(0.7, 1.0, 1.0, 0.9, 0.8, 0.65, 0.5, 0.4), hertz=TONE, beat=(4.5, 6.5), bend=0.004
    ),
    "clarinet": Steady(
        partials=(1.0, 0.0, 0.75, 0.0, 0.5, 0.0, 0.35, 0.0, 0.2), hertz=TONE, beat=(4.5, 6.5), bend=0.004
    ),
}
RECIPES = tuple(TIMBRES.values())


def play(voice: Voice, rate: int, start: int, count: int) -> Sound:
    """Samples `start` to `start + count` (at `rate` Hz) of an endless sound: float32, RMS about `gain`."""
    sound = _untuned(voice, rate, start, count)
    sound *= np.float32(voice.gain * _level(voice.timbre))
    return sound


def _untuned(voice: Voice, rate: int, start: int, count: int) -> Sound:
    """The sound of a recipe, each timbre at a level of its own."""
    recipe = RECIPES[voice.timbre]
    tone = between(recipe.hertz, voice.pitch)
    step = increment(between(recipe.beat, voice.rhythm), rate)
    beat = ramp(start, count, step, voice.beat_phase)
    if isinstance(recipe, Steady):
        pitch = increment(tone, rate)
        return _sustain(recipe, ramp(start, count, pitch, voice.phase), beat, pitch / step)
    if isinstance(recipe, Struck):
        # A stroke's table was made for the lowest tone; a higher one reads it faster, and dies away sooner.
        reading = tone / recipe.hertz[0] * LOOP_RATE / rate
        place = (beat.astype(np.float32) * np.float32(reading / step)).astype(np.int32)
        return _stroke(recipe).take(place, mode="clip")
    reading = tone / recipe.hertz[1] * LOOP_RATE / LOOP
    here = ramp(start, count, increment(reading, rate), voice.phase) >> np.uint32(32 - LOOP_BITS)
    sound = noise_loop(recipe.band[0] * recipe.hertz[1], recipe.band[1] * recipe.hertz[1]).take(here)
    sound *= _swell(recipe.floor, recipe.sharpness).take(beat >> np.uint32(32 - SLOW_BITS))
    return sound


def between(span: tuple[float, float], place: float) -> float:
    """The frequency at `place` (0 to 1) of a span, equal steps being equal intervals to the ear."""
    return float(span[0] * (span[1] / span[0]) ** place)


def increment(hertz: float, rate: int) -> int:
    """How far a phase moves in one sample."""
    return round(hertz / rate * TURN)


def ramp(start: int, count: int, step: int, phase: int) -> Phases:
    """Phases of `count` samples from sample `start` on; whole turns fall away by themselves."""
    first = np.uint32((phase + start * step) % TURN)
    return _counting(count) * np.uint32(step % TURN) + first


@cache
def _counting(count: int) -> Phases:
    return np.arange(count, dtype=np.uint32)


def _sustain(recipe: Steady, phase: Phases, beat: Phases, periods: float) -> Sound:
    """A period read again and again, `periods` times a beat; its phase sways by the vibrato's integral."""
    sway = _sine().take(beat >> np.uint32(32 - SLOW_BITS))
    turns = sway * np.float32(recipe.bend * periods / (2 * np.pi) * (1 << SLOW_BITS))
    swaying = phase + turns.astype(np.int32).astype(np.uint32) * np.uint32(TURN >> SLOW_BITS)
    sound = _period(recipe.partials).take(swaying >> np.uint32(32 - CYCLE_BITS))
    if recipe.tremolo:
        sound *= np.float32(1.0) + np.float32(recipe.tremolo) * sway
    return sound


@cache
def _sine() -> Sound:
    return np.sin(2 * np.pi * np.arange(1 << SLOW_BITS) / (1 << SLOW_BITS)).astype(np.float32)


@cache
def _period(partials: tuple[float, ...]) -> Sound:
    """One period of a tone. Partials start at scattered phases, as those of an instrument do."""
    turns = np.arange(1 << CYCLE_BITS) / (1 << CYCLE_BITS)
    tones = [
        level * np.sin(2 * np.pi * (number * turns + 0.37 * number**2))
        for number, level in enumerate(partials, start=1)
    ]
    return _grid(np.sum(tones, axis=0))


@cache
def _stroke(recipe: Struck) -> Sound:
    """One stroke at the lowest tone, ending in silence."""
    time = np.arange(STROKE) / LOOP_RATE
    growth = np.log(recipe.rise)
    stretched = time if recipe.rise == 1 else np.expm1(growth * np.minimum(time, 0.2)) / growth
    stretched = stretched + (0 if recipe.rise == 1 else np.exp(growth * 0.2) * np.maximum(time - 0.2, 0))
    tones = [
        level * np.exp(-decay * time) * np.sin(2 * np.pi * ratio * recipe.hertz[0] * stretched)
        for ratio, level, decay in zip(recipe.ratios, recipe.levels, recipe.decays, strict=True)
    ]
    edges = np.minimum(time / recipe.attack, 1.0) * np.clip((time[-1] - time) / 0.05, 0, 1)
    return _grid(np.sum(tones, axis=0) * edges)


@cache
def noise_loop(low: float, high: float, tilt: float = 0.0) -> Sound:
    """A loop of noise from `low` to `high` Hz, its power falling as frequency to the power `tilt`; RMS 1."""
    high = min(high, BAND_LIMIT)
    spectrum = np.fft.rfft(np.random.RandomState(20_23).standard_normal(LOOP))
    hertz = np.fft.rfftfreq(LOOP, 1 / LOOP_RATE)
    shape = np.where((hertz >= low) & (hertz <= high), np.maximum(hertz, 20.0) ** (-tilt / 2), 0.0)
    return _grid(np.fft.irfft(spectrum * shape, LOOP))


@cache
def _swell(floor: float, sharpness: float) -> Sound:
    raised = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1 << SLOW_BITS) / (1 << SLOW_BITS))
    return (floor + (1 - floor) * raised**sharpness).astype(np.float32)


@cache
def _level(timbre: int) -> float:
    """What brings a timbre to RMS 1, or its peaks to CREST where they stand out further."""
    plain = _untuned(Voice(timbre, 0.5, 0.5, 0, 0, 1.0), 16_000, 0, 80_000)
    level = min(1 / np.sqrt(np.mean(np.square(plain, dtype=np.float64))), CREST / np.abs(plain).max())
    return round(float(level), 4)


def _grid(values: NDArray[np.float64]) -> Sound:
    """Scaled to RMS 1, and rounded: the last bits, which differ between machines, are lost."""
    scaled = values / np.sqrt(np.mean(np.square(values)))
    return np.asarray(np.rint(scaled * 65_536) / 65_536, np.float32)
