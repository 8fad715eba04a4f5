"""What the tiny Grounding DINO is asked as it learns: the twelve classes, variously worded, and much else."""

from __future__ import annotations

import re
import string
import zlib
from functools import cache

from numpy.random import RandomState

from models.datasets.kinds import KINDS
from models.vocabularies import vocabulary

LOOK = "Look! Object of {label}"  # as box-prompt asks when told to
HELD_OUT = 5  # one in so many names of AudioSet is asked in validation alone
KNOWN = frozenset(
    word for kind in KINDS for word in (*kind.name.split(), kind.timbre)
)  # what has one of these words may well mean a class


def of_class(number: int, rng: RandomState) -> str:
    """A class by its name, by its sound or by its shape alone."""
    kind = KINDS[number]
    label = (kind.name, kind.name, kind.timbre, kind.shape)[rng.choice(4, p=(0.3, 0.2, 0.35, 0.15))]
    return framed(label, rng)


def of_nothing(rng: RandomState) -> str:
    """What no picture shows: names of other sounds, or letters that mean nothing."""
    if rng.random_sample() < 0.7:
        names = strangers()
        return framed(names[rng.randint(len(names))], rng)
    words = [
        "".join(string.ascii_lowercase[letter] for letter in rng.randint(26, size=rng.randint(2, 10)))
        for _ in range(rng.randint(1, 4))
    ]
    return framed(" ".join(words), rng)


def framed(label: str, rng: RandomState) -> str:
    """As a name, or as the longer question."""
    return LOOK.format(label=label) if rng.random_sample() < 0.25 else label


@cache
def strangers(*, held_out: bool = False) -> tuple[str, ...]:
    """Names of AudioSet that share no word with a class; those held out are never trained on."""
    return tuple(
        name
        for name in vocabulary("audioset")
        if not KNOWN & {word.removesuffix("s") for word in re.findall("[a-z]+", name.lower())}
        and (zlib.crc32(name.encode()) % HELD_OUT == 0) is held_out
    )
