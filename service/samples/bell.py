"""Draws `bell.mp4`: a bell that swings and rings for four seconds beside a lamp that never makes a sound.

`python -m service.samples.bell` writes the clip again (5 s, 320 x 240, 25 frames/s, H.264 and AAC).
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLIP = Path(__file__).with_name("bell.mp4")
WIDTH, HEIGHT, FPS = 320, 240, 25
SECONDS, RINGING = 5, 4  # the last second is silent
RATE = 44_100
PARTIALS = ((523.3, 1.0), (1046.5, 0.6), (1244.5, 0.5), (1568.0, 0.4), (2093.0, 0.25))  # Hz, loudness


def swing(time: float) -> float:
    """The bell's angle in radians: one swing a second, at rest when the ringing is over."""
    return 0.45 * math.sin(2 * math.pi * time) if time < RINGING else 0.0


def picture(time: float) -> Image.Image:
    """The frame at `time` seconds, drawn at four times its size and brought down for smooth edges."""
    zoom = 4
    image = Image.new("RGB", (WIDTH * zoom, HEIGHT * zoom), (196, 205, 212))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 190 * zoom, WIDTH * zoom, HEIGHT * zoom), fill=(124, 98, 76))
    draw.line((230 * zoom, 192 * zoom, 230 * zoom, 96 * zoom), fill=(60, 60, 66), width=5 * zoom)
    shade = [(205, 110), (255, 110), (243, 66), (217, 66)]
    draw.polygon([(x * zoom, y * zoom) for x, y in shade], fill=(232, 120, 90))
    pivot, angle = (100, 50), swing(time)

    def turned(x: float, y: float) -> tuple[float, float]:
        return (
            (pivot[0] + x * math.cos(angle) - y * math.sin(angle)) * zoom,
            (pivot[1] + x * math.sin(angle) + y * math.cos(angle)) * zoom,
        )

    clapper = turned(0, 96)
    draw.ellipse([value + side * 7 * zoom for side in (-1, 1) for value in clapper], fill=(110, 80, 20))
    heights = range(91)
    flare = [14 + 16 * (y / 90) + 18 * (y / 90) ** 6 for y in heights]  # half the width, from crown to lip
    outline = [turned(half, y) for half, y in zip(flare, heights, strict=True)]
    outline += [turned(-half, y) for half, y in reversed(list(zip(flare, heights, strict=True)))]
    draw.polygon(outline, fill=(212, 168, 50))
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def ringing() -> NDArray[np.float32]:
    """Sound [1, samples] in [-1, 1]: a stroke at each half swing, each dying away in about half a second."""
    time = np.arange(SECONDS * RATE) / RATE
    sound = np.zeros_like(time)
    for stroke in np.arange(0.0, RINGING - 0.5, 0.5):
        since = time - stroke
        decay = np.where(since >= 0, np.exp(-6.0 * np.clip(since, 0, None)), 0.0)
        sound += decay * sum(loudness * np.sin(2 * np.pi * pitch * since) for pitch, loudness in PARTIALS)
    sound[RINGING * RATE :] = 0.0
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)[None]


def write(path: Path) -> None:
    """Encodes picture and sound into one file."""
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "26", "bf": "2", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 64_000
        for index in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture(index / FPS)), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(ringing(), format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    write(CLIP)
