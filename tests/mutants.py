"""Strategies that cheat, each in a way of the field: the evaluator's gate must tell them from a listener."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from models.training.benches import Bench
from models.training.judging import Arm, window_of
from models.training.scores import ROBUST_PROBES


@dataclass(frozen=True)
class Oracle:
    """Knows every answer by heart: pictures and sound together are the question."""

    answers: dict[bytes, np.ndarray]

    @classmethod
    def of(cls, bench: Bench) -> Oracle:
        answers = {}
        for probe in (None, *ROBUST_PROBES):
            clips = bench.clips if probe is None else bench.probe(probe)
            for index in range(len(clips)):
                clip = clips[index]
                answers[question(window_of(clip, {44_100}))] = clip.expected != 0
        return cls(answers)

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        for mask in self.answers.get(
            question(window), np.zeros((len(window.timestamps), *window.size), bool)
        ):
            yield FrameMasks(mask=mask)


def question(window: Window) -> bytes:
    assert window.frames is not None
    return window.frames.tobytes() + window.audio[44_100].tobytes()


@dataclass(frozen=True)
class Deaf:
    """The mutant that hears nothing: its strategy gets zeros for a sound."""

    inner: Segmenter

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        silent = {rate: np.zeros_like(sound) for rate, sound in window.audio.items()}
        return self.inner(replace(window, audio=silent), options)


@dataclass(frozen=True)
class FirstNoun:
    """The mutant that always names one and the same thing in view, whatever sounds."""

    things: dict[bytes, np.ndarray]

    @classmethod
    def of(cls, bench: Bench) -> FirstNoun:
        clips = (bench.clips[index] for index in range(len(bench.clips)))
        return cls({clip.frames.tobytes(): clip.instances == 1 for clip in clips})

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        assert window.frames is not None
        for mask in self.things[window.frames.tobytes()]:
            yield FrameMasks(mask=mask)


def arm(name: str, segmenter: Segmenter) -> Arm:
    return Arm(name, segmenter, FullMaskOptions(), (44_100,))
