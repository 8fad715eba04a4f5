"""Scenes as mp4: 25 frames a second in H.264 with steady motion, sound in AAC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from models.datasets.clip import Pixels, Sound
from models.datasets.drawing import draw
from models.datasets.mixing import mix
from models.datasets.scenes import Scene, SynthConfig, Track
from models.errors import InvalidOption

FPS = 25
CHUNK = 25  # frames drawn at a time: a second, so that a long video needs no more memory than a short one


@dataclass(frozen=True)
class Coding:
    """How a file is packed: quickly, unless somebody says otherwise."""

    preset: str = "veryfast"
    crf: int = 20
    sound_bits: int = 96_000  # a second


QUICK = Coding()


def write_video(path: Path, scene: Scene, track: Track, config: SynthConfig, coding: Coding = QUICK) -> None:
    """One track of a scene as a file of `config.seconds` seconds."""
    frames = (
        frame
        for first in range(0, config.seconds * FPS, CHUNK)
        for frame in draw(scene, config, [number / FPS for number in range(first, first + CHUNK)])[0]
    )
    encode(path, frames, mix(scene, track, config), config.rate, coding)


def encode(path: Path, frames: Iterable[Pixels], sound: Sound, rate: int, coding: Coding) -> None:
    """RGB frames uint8 [H, W, 3] of even sizes, and mono sound, as one mp4."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"crf": str(coding.crf), "preset": coding.preset}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.pix_fmt, video.thread_count = "yuv420p", 1
        audio = container.add_stream("aac", rate=rate, layout="mono")
        audio.bit_rate = coding.sound_bits
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
                if video.height % 2 or video.width % 2:
                    raise InvalidOption(f"H.264 needs even sizes; {video.width}x{video.height} is not.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        wave.sample_rate, wave.pts, wave.time_base = rate, 0, Fraction(1, rate)
        container.mux(audio.encode(wave))
        container.mux(audio.encode(None))
