"""The clip again, with its masks tinted and its sound: an MP4, made frame by frame in the sandbox."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from models.containers import Limits, audio_stream, focus, opened, video_stream
from models.images import read_image
from models.media import Media, Summary
from models.pictures import upright
from service.masks import read_mask

TINT = np.array([255, 70, 30], np.uint16)  # RGB, mixed half and half with the picture
CLOCK = Fraction(1, 90_000)
SOUND_RATE = 44_100  # hertz
LAST_SECONDS = 1.0  # how long the last mask stays, where there is no other to tell the distance
ENCODER = {"preset": "veryfast", "crf": "23"}
Picture = NDArray[np.uint8]
F = TypeVar("F", VideoFrame, AudioFrame)


@dataclass(frozen=True)
class OverlayRequest:
    """What the sandbox runs; `lines` is the result as NDJSON, `target` the file to write."""

    media: Media
    summary: Summary
    lines: Path
    target: Path
    limits: Limits

    def answer(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with self.lines.open("rb") as lines:
            render_overlay(self.media, self.summary, lines, self.target, self.limits)
        return {}, {}


def render_overlay(
    media: Media,
    summary: Summary,
    lines: Iterable[bytes],
    target: Path,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> None:
    """Write `target`. A mask stays on the picture from its own moment to the next mask's."""
    frames = (json.loads(line) for line in lines)
    with ExitStack() as stack:
        if media.frames:
            shown = tinted_images(media, frames, limits)
        else:
            masks = Masks(frames)
            shown = (
                (moment, tinted(image, masks.at(moment)))
                for moment, image in pictures(stack, media, summary, limits)
            )
        write(target, summary, shown, sounds(stack, media, limits))


def pictures(
    stack: ExitStack, media: Media, summary: Summary, limits: Limits
) -> Iterator[tuple[float, Picture]]:
    """Each frame of the video, RGB and upright, and when it is shown, in seconds from the first."""
    assert media.video is not None
    container = stack.enter_context(opened(media.video, limits))
    stream = video_stream(container, limits)
    assert stream is not None and stream.time_base is not None
    focus(container, stream)
    size = (summary.height, summary.width)
    start, time_base = stream.start_time or 0, stream.time_base
    for number, frame in enumerate(container.decode(stream)):
        moment = number / summary.fps if frame.pts is None else float((frame.pts - start) * time_base)
        yield moment, upright(frame, size, summary.rotation)


def tinted_images(
    media: Media, frames: Iterable[dict[str, Any]], limits: Limits
) -> Iterator[tuple[float, Picture]]:
    """The images that were segmented, each at its moment; the last is held for a while."""
    moment, image = 0.0, None
    for frame in frames:
        moment = frame["timestamp"]
        image = tinted(read_image(media.frames[frame["index"]], limits), read_mask(frame["mask"]))
        yield moment, image
    if image is not None:
        yield moment + LAST_SECONDS, image


def sounds(stack: ExitStack, media: Media, limits: Limits) -> Iterator[tuple[float, AudioFrame]]:
    """The decoded sound, and when each piece of it begins, in seconds from the start of the clip."""
    source = media.audio or media.video
    if source is None:
        return
    container = stack.enter_context(opened(source, limits))
    stream = audio_stream(container, limits)
    if stream is None:
        return
    picture = video_stream(container, limits) if media.audio is None else None
    leader = picture or stream
    origin = (leader.start_time or 0) * (leader.time_base or CLOCK)
    focus(container, stream)
    for frame in container.decode(stream):
        if frame.pts is not None and frame.time_base is not None:
            yield float(frame.pts * frame.time_base - origin), frame


class Masks:
    """The mask at a moment; moments only grow, and one frame is held at a time."""

    def __init__(self, frames: Iterable[dict[str, Any]]) -> None:
        self.frames = iter(frames)
        self.coming = next(self.frames, None)
        self.mask: NDArray[np.bool_] | None = None
        self.since, self.gap = 0.0, LAST_SECONDS

    def at(self, moment: float) -> NDArray[np.bool_] | None:
        """None before the first mask, and when the last has had its time."""
        while self.coming is not None and self.coming["timestamp"] <= moment + float(CLOCK):
            if self.mask is not None:
                self.gap = self.coming["timestamp"] - self.since
            self.since, self.mask = self.coming["timestamp"], read_mask(self.coming["mask"])
            self.coming = next(self.frames, None)
        over = self.coming is None and moment >= self.since + max(self.gap, 0.04)
        return None if over else self.mask


def tinted(image: Picture, mask: NDArray[np.bool_] | None) -> Picture:
    """The picture with the mask's pixels mixed with the tint; sides made even, as the encoder needs them."""
    height, width = image.shape[:2]
    result = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    if mask is not None:
        inside = result[:height, :width]
        inside[mask] = ((inside[mask] + TINT) // 2).astype(np.uint8)
    return result


def write(
    target: Path,
    summary: Summary,
    shown: Iterator[tuple[float, Picture]],
    heard: Iterator[tuple[float, AudioFrame]],
) -> None:
    """Encode picture and sound side by side, in the order of time, so that neither waits for the other."""
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        picture = output.add_stream(
            "libx264", rate=Fraction(summary.fps).limit_denominator(1001), options=ENCODER
        )
        picture.width, picture.height = summary.width + summary.width % 2, summary.height + summary.height % 2
        picture.pix_fmt = "yuv420p"
        picture.thread_count = 1
        picture.codec_context.time_base = CLOCK
        sound = output.add_stream("aac", rate=SOUND_RATE, layout="stereo") if summary.has_audio else None
        last = -1
        pieces: Iterator[tuple[float, Any]] = heapq.merge(shown, heard, key=itemgetter(0))
        for moment, piece in pieces:
            if not isinstance(piece, AudioFrame):
                last = max(last + 1, round(moment / CLOCK))
                frame = VideoFrame.from_ndarray(piece, format="rgb24")
                output.mux(picture.encode(stamped(frame, last, CLOCK)))
            elif sound is not None and moment >= 0:
                ticks = round(moment * SOUND_RATE)
                output.mux(sound.encode(stamped(piece, ticks, Fraction(1, SOUND_RATE))))
        for stream in (picture, sound):
            if stream is not None:
                output.mux(stream.encode(None))


def stamped(frame: F, pts: int, time_base: Fraction) -> F:
    frame.pts, frame.time_base = pts, time_base
    return frame
