"""The twelve classes of SynthAVS. A class is a shape, a texture and a timbre; its colour says nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`name` is what a text prompt says of the thing in view, `timbre` what one says of its sound."""

    name: str
    shape: str
    texture: str
    timbre: str


KINDS = (
    Kind("striped star", "star", "striped", "bell"),
    Kind("dotted ball", "ball", "dotted", "drum"),
    Kind("checkered square", "square", "checkered", "clock"),
    Kind("wavy drop", "drop", "wavy", "flute"),
    Kind("striped arrow", "arrow", "striped", "siren"),
    Kind("dotted heart", "heart", "dotted", "guitar"),
    Kind("checkered cross", "cross", "checkered", "engine"),
    Kind("wavy moon", "moon", "wavy", "wind"),
    Kind("ringed flower", "flower", "ringed", "bird"),
    Kind("speckled triangle", "triangle", "speckled", "rattle"),
    Kind("speckled ring", "ring", "speckled", "trumpet"),
    Kind("ringed hourglass", "hourglass", "ringed", "clarinet"),
)
CLASS_NAMES = tuple(kind.name for kind in KINDS)
TIMBRE_NAMES = tuple(kind.timbre for kind in KINDS)
CLASSES = len(KINDS)
