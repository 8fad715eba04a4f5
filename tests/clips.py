"""Test clips, made on the spot with PyAV: a square that walks over a gradient, and a tone that climbs.

Frame k shows the square at `square_at(k, size)`, and second s of the sound is a sine of 200 + 100 * s hertz,
so that a test can tell from pixels and from sound alone which moment of the clip it was given.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

VIDEO_TICKS = 90_000  # time base of the video tracks that we encode, unless `time_base` says otherwise
SQUARE = 5  # the square's side is the frame's shorter side over this


@dataclass(frozen=True)
class Picture:
    """How the video track is encoded."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    gop: int = 12
    b_frames: int = 0
    rotation: int = 0  # degrees, counter-clockwise, written as metadata
    times: Sequence[float] | None = None  # seconds of every frame; None: constant rate
    noise: float = 0.0  # standard deviation in grey levels, seeded
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sound:
    """How the audio track is encoded."""

    codec: str = "aac"
    rate: int = 44_100
    layout: str = "stereo"
    seconds: float | None = None  # None: as long as the video
    start: float = 0.0
    noise: float = 0.0  # standard deviation, seeded
    bit_rate: int = 96_000
    gain: float = 1.0  # 0: a track of silence


def make_clip(
    path: Path | str | io.BytesIO,
    seconds: float = 5.0,
    size: tuple[int, int] = (320, 240),
    fps: float = 25.0,
    audio: bool | Sound = True,
    video: bool | Picture = True,
    container: str | None = None,
) -> None:
    """Write a clip of `size` (width, height); `container` names the muxer where the path does not tell."""
    picture = Picture() if video is True else video or None
    sound = Sound() if audio is True else audio or None
    target = str(path) if isinstance(path, str | Path) else path
    with av.open(target, "w", format=container) as output:
        packets: list[tuple[float, av.Packet]] = []
        encoders: list[Callable[[], Iterator[av.Packet]]] = []
        if picture:
            encoders.append(video_encoder(output, picture, seconds, size, fps))
        if sound:
            encoders.append(audio_encoder(output, sound, seconds))
        output.start_encoding()
        for encode in encoders:
            packets += [(float((packet.dts or 0) * packet.time_base), packet) for packet in encode()]
        for _, packet in sorted(packets, key=lambda timed: timed[0]):
            output.mux(packet)


def clip_bytes(*args: object, container: str = "mp4", **options: object) -> bytes:
    """The same in memory."""
    buffer = io.BytesIO()
    make_clip(buffer, *args, container=container, **options)
    return buffer.getvalue()


def square_at(frame: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of the white square in frame `frame` of a clip of `size` (width, height)."""
    width, height = size
    side = max(1, min(size) // SQUARE)
    return (7 * frame) % max(1, width - side), (5 * frame) % max(1, height - side), side


def drawn(frame: int, size: tuple[int, int], noise: float = 0.0) -> NDArray[np.uint8]:
    """RGB [height, width, 3] of frame `frame`, before encoding."""
    width, height = size
    image = np.empty((height, width, 3), np.float32)
    image[..., 0] = np.linspace(0, 120, width)[None, :]
    image[..., 1] = np.linspace(0, 120, height)[:, None]
    image[..., 2] = (frame * 11) % 120
    left, top, side = square_at(frame, size)
    image[top : top + side, left : left + side] = 255
    if noise:
        image += np.random.default_rng(frame).normal(0, noise, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8)


def tone(seconds: float, rate: int, noise: float = 0.0) -> NDArray[np.float32]:
    """Mono float32 in [-0.5, 0.5]: a sine of 200 Hz in second 0, of 300 Hz in second 1, and so on."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 + 100 * np.floor(time)) * time)
    if noise:
        wave = wave + np.random.default_rng(0).normal(0, noise, wave.shape)
    return wave.clip(-1, 1).astype(np.float32)


def video_encoder(
    output: av.container.OutputContainer, picture: Picture, seconds: float, size: tuple[int, int], fps: float
) -> Callable[[], Iterator[av.Packet]]:
    """Add the video track; what it returns encodes it."""
    rate = Fraction(fps).limit_denominator(1001)
    quiet = {"x265-params": "log-level=none"} if picture.codec == "libx265" else {}
    stream = output.add_stream(picture.codec, rate=rate, options=quiet | picture.options)
    stream.width, stream.height = size
    stream.pix_fmt = picture.pix_fmt
    stream.codec_context.gop_size = picture.gop
    stream.codec_context.thread_count = 1
    if picture.b_frames:
        stream.codec_context.max_b_frames = picture.b_frames
    elif picture.codec in {"libx264", "libx265", "mpeg4", "mpeg2video"}:
        stream.codec_context.max_b_frames = 0
    if picture.times is not None:
        stream.codec_context.time_base = Fraction(1, VIDEO_TICKS)
    if picture.rotation:
        stream.set_display_rotation(picture.rotation)
    times = picture.times if picture.times is not None else [k / rate for k in range(round(seconds * fps))]

    def encode() -> Iterator[av.Packet]:
        time_base = stream.codec_context.time_base or 1 / rate
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(drawn(index, size, picture.noise), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time) / time_base), time_base
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return encode


def audio_encoder(
    output: av.container.OutputContainer, sound: Sound, seconds: float
) -> Callable[[], Iterator[av.Packet]]:
    """Add the audio track; what it returns encodes it."""
    stream = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
    stream.bit_rate = sound.bit_rate
    channels = stream.codec_context.channels
    wave = sound.gain * tone(sound.seconds if sound.seconds is not None else seconds, sound.rate, sound.noise)

    def encode() -> Iterator[av.Packet]:
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=sound.layout,
            rate=sound.rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        frame = av.AudioFrame.from_ndarray(
            np.repeat(wave[None], channels, axis=0), format="fltp", layout=sound.layout
        )
        frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = round(sound.start * sound.rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            yield from stream.encode(piece)
        yield from stream.encode(None)

    return encode
