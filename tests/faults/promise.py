"""What a promise is made of: a sentence, a function that tries to break it, and what that measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How hard to try. `of(2500)` is a number of jobs, requests or files; `short` also shortens waits."""

    factor: float = 1.0
    short: bool = False

    def of(self, number: int, at_least: int = 1) -> int:
        return max(at_least, round(number * self.factor))


@dataclass(frozen=True)
class Measured:
    """What came out; `text` has the numbers beside their bounds."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Promise:
    """`number` is that of the list; a promise of several parts has a letter too."""

    number: str
    sentence: str
    attempt: Callable[[Scale], Measured] | None  # None: cannot be tried here, and `sentence` says why
    patient: bool = False  # it waits more than it works: tried beside the promises before it
