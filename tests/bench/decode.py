"""Decoding: a clip of five seconds in 720p, frames and sound at the rate of AudioCLIP."""

from __future__ import annotations

from collections.abc import Iterator

from models.media import Media, windows
from models.segments import AUDIOCLIP_RATE
from tests.bench.timing import Timing, measure
from tests.clips import clip_bytes

SECONDS = 5
SIZE = (1280, 720)


def decode() -> Iterator[Timing]:
    """From the bytes of an mp4 to pixels and sound."""
    clip = Media(video=clip_bytes(seconds=SECONDS, size=SIZE))
    frames = sum(len(window.timestamps) for window in windows(clip, rates=(AUDIOCLIP_RATE,)))

    def call() -> int:
        return sum(len(window.timestamps) for window in windows(clip, rates=(AUDIOCLIP_RATE,)))

    yield measure("decode", call, frames=frames, width=SIZE[0], height=SIZE[1])
