"""Which moments of a clip to look at, cut into windows: plain data, planned before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import Literal, get_args

from models.containers import Limits
from models.errors import InvalidOption, MediaTooLarge

WINDOW_FRAMES = 16
WINDOW_PIXELS = 64 * 1024 * 1024  # RGB frames of one window stay under 192 MiB, whatever the size of a frame
Mode = Literal["uniform", "avsbench"]
AVSBENCH_SECONDS = 5
ALMOST = 1e-6  # samples: start + k / fps is a rounded number
AVSBENCH_MOMENT = 15 / 16  # of each second, where the benchmark's script takes its frame


@dataclass(frozen=True)
class Summary:
    """What a clip is. Sizes are after rotation; `rotation` is how far the picture is turned, clockwise."""

    width: int
    height: int
    fps: float  # average
    duration: float  # seconds of picture
    rotation: int = 0  # 0, 90, 180 or 270
    has_audio: bool = False
    container: str = ""
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None  # hertz
    channels: int | None = None
    frames: int | None = None  # None where the file does not say


@dataclass(frozen=True)
class Sampling:
    """Which moments of a clip to look at.

    `uniform`: the frame on the screen at start + k / fps, for as long as that is before `end`.
    `avsbench`: five frames as the benchmark's own script takes them, each with its second of the first five.
    """

    fps: float = 1.0
    start: float = 0.0
    end: float | None = None
    max_frames: int | None = None
    mode: Mode = "uniform"


@dataclass(frozen=True)
class WindowPlan:
    """The moments of one window in seconds, ascending; `first` numbers its first sample in the clip."""

    index: int
    times: tuple[float, ...]
    first: int = 0
    mode: Mode = "uniform"


def plan(
    summary: Summary,
    sampling: Sampling,
    limits: Limits = Limits(),  # noqa: B008
    together: int = 1,
) -> tuple[WindowPlan, ...]:
    """Cut the sampled moments of a clip into windows of at most WINDOW_FRAMES and WINDOW_PIXELS.

    Frames that are seen `together` stay in one window, unless they are too large for it.
    """
    check(sampling)
    if sampling.mode == "avsbench":
        first, times = 0, benchmark_moments(summary, sampling)
    else:
        first, times = uniform_moments(summary, sampling, limits)
    size = max(1, min(WINDOW_FRAMES, WINDOW_PIXELS // (summary.width * summary.height)))
    size -= size % together if size > together else 0
    return tuple(
        WindowPlan(index, times[begin : begin + size], first + begin, sampling.mode)
        for index, begin in enumerate(range(0, len(times), size))
    )


def uniform_moments(summary: Summary, sampling: Sampling, limits: Limits) -> tuple[int, tuple[float, ...]]:
    """The number of the first sample, and the times of all in seconds."""
    images = summary.container == "images"
    duration = summary.duration / sampling.fps if images else summary.duration
    if duration > limits.duration:
        raise MediaTooLarge("duration", limits.duration, duration, "seconds")
    end = duration if sampling.end is None else min(sampling.end, duration)
    if sampling.start >= end:
        raise InvalidOption(f"The start, {sampling.start:g} s, is not before the end of the clip, {end:g} s.")
    # Of images there is one at each k / fps, so a start between two of them begins with the next.
    first = ceil(sampling.start * sampling.fps - ALMOST) if images else 0
    start = first / sampling.fps if images else sampling.start
    # Compared before it becomes a list: a rate may ask for more moments than memory holds, or than a float.
    wanted = min(
        (end - start) * sampling.fps - ALMOST, inf if sampling.max_frames is None else sampling.max_frames
    )
    if wanted > limits.frames:
        actual = ceil(wanted) if isfinite(wanted) else wanted
        raise MediaTooLarge("number of sampled frames", limits.frames, actual, "frames")
    count = max(0 if images else 1, ceil(wanted))
    if not count:
        raise InvalidOption(
            f"There is no image from {sampling.start:g} s to {end:g} s: of images there is one each "
            f"{1 / sampling.fps:g} s."
        )
    return first, tuple(start + number / sampling.fps for number in range(count))


def benchmark_moments(summary: Summary, sampling: Sampling) -> tuple[float, ...]:
    """The times in seconds of the five frames, or of as many as there are images."""
    count = min(AVSBENCH_SECONDS, sampling.max_frames or AVSBENCH_SECONDS)
    if summary.container == "images":
        return tuple(float(second) for second in range(min(count, summary.frames or 0)))
    return tuple(benchmark_moment(summary, second) for second in range(count))


def benchmark_moment(summary: Summary, second: int) -> float:
    """In the middle of the frame that the benchmark's script takes, which counts frames at a whole rate."""
    rate = max(1, round(summary.fps))
    last = (summary.frames or round(summary.duration * summary.fps)) - 1
    frame = min(int(second * rate + AVSBENCH_MOMENT * rate), max(0, last))
    return (frame + 0.5) / summary.fps


def check(sampling: Sampling) -> None:
    """Refuse values that make no sense for any clip."""
    if not (isfinite(sampling.fps) and sampling.fps > 0):
        raise InvalidOption(f"fps must be a positive number, not {sampling.fps}.")
    if not (isfinite(sampling.start) and sampling.start >= 0):
        raise InvalidOption(f"start must be 0 or more seconds, not {sampling.start}.")
    if sampling.end is not None and not sampling.end > sampling.start:
        raise InvalidOption(f"end, {sampling.end} s, must be after start, {sampling.start} s.")
    if sampling.max_frames is not None and (sampling.max_frames < 1 or sampling.max_frames % 1):
        raise InvalidOption(f"max_frames must be a whole number from 1 on, not {sampling.max_frames}.")
    if sampling.mode not in get_args(Mode):
        raise InvalidOption(f"mode must be one of {', '.join(get_args(Mode))}, not {sampling.mode!r}.")


def spans(summary: Summary, window: WindowPlan) -> tuple[tuple[float, float], ...]:
    """Start and end of each frame's second of sound, moved back where it would stick out of the clip."""
    if window.mode == "avsbench":
        return tuple((window.first + k + 0.0, window.first + k + 1.0) for k in range(len(window.times)))
    if summary.container == "images":
        return tuple((time, time + 1) for time in window.times)
    end = summary.duration
    return tuple((max(0.0, min(time, end - 1)), min(max(time + 1, 1.0), end)) for time in window.times)
