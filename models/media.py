"""A clip becomes frames, timestamps and one-second pieces of sound, a bounded window at a time.

`python -m models.media CLIP` prints the summary and the windows of a clip as JSON lines.

    summary = probe(media)                            # what it is; refuses what is too large or no clip
    for moments in plan(summary, Sampling(fps=2)):    # plain data: which moments each window holds
        window = read_window(media, summary, moments) # seeks, and decodes only its own stretch
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.containers import Limits, Source, audio_stream, codec_name, opened, video_stream
from models.errors import EarshotError, MediaTooLarge, UndecodableMedia
from models.images import image_size, read_images
from models.pictures import Pictures
from models.sampling import AVSBENCH_SECONDS, Sampling, Summary, WindowPlan, plan, spans
from models.sound import Sound, Wave

__all__ = [
    "Limits",
    "Media",
    "Sampling",
    "Source",
    "Summary",
    "Window",
    "WindowPlan",
    "plan",
    "probe",
    "read_window",
    "windows",
]


@dataclass(frozen=True)
class Media:
    """Where pixels and sound are: one container, a video and a sound file, or images and a sound file."""

    video: Source | None = None
    audio: Source | None = None
    frames: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Window:
    """A bounded piece of a clip. `frames` is RGB uint8 [n, H, W, 3], or None where no pixels are needed.

    `audio` maps a sample rate to float32 [n, rate] in [-1, 1]: the second of mono sound of each frame,
    the one that `audio_windows` names by its start and end in seconds.
    """

    index: int
    size: tuple[int, int]  # height, width after rotation
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    audio_windows: tuple[tuple[float, float], ...]
    frames: NDArray[np.uint8] | None
    audio: Mapping[int, NDArray[np.float32]]
    has_audio: bool


def probe(media: Media, limits: Limits = Limits()) -> Summary:  # noqa: B008  (frozen)
    """What the clip is, from its header and its first frame. Raises where no window could be read."""
    with reading(media, limits) as reader:
        return reader.summary(limits)


def read_window(
    media: Media,
    summary: Summary,
    window: WindowPlan,
    *,
    rates: Sequence[int] = (),
    pixels: bool = True,
    limits: Limits = Limits(),  # noqa: B008
) -> Window:
    """One window, decoded by itself: seeks to its stretch of the clip and reads no more than that."""
    with reading(media, limits) as reader:
        return reader.window(summary, window, rates, pixels, limits)


def windows(
    media: Media,
    sampling: Sampling = Sampling(),  # noqa: B008
    *,
    rates: Sequence[int] = (),
    pixels: bool = True,
    limits: Limits = Limits(),  # noqa: B008
) -> Iterator[Window]:
    """All windows of a clip in order, one in memory at a time."""
    with reading(media, limits) as reader:
        summary = reader.summary(limits)
        for window in plan(summary, sampling, limits):
            yield reader.window(summary, window, rates, pixels, limits)


class Reader:
    """An open clip: its picture is either a video track or a list of images."""

    def __init__(self, images: tuple[Source, ...], pictures: Pictures | None, sound: Sound | None) -> None:
        self.images, self.pictures, self.sound = images, pictures, sound

    def summary(self, limits: Limits) -> Summary:
        """What the clip is; too long a clip is refused."""
        found = summary_of_video(self.pictures) if self.pictures else summary_of_images(self.images, limits)
        if found.duration > limits.duration:
            raise MediaTooLarge("duration", limits.duration, found.duration, "seconds")
        if self.sound is None:
            return found
        codec, context = codec_name(self.sound.stream), self.sound.stream.codec_context
        return replace(
            found,
            has_audio=True,
            audio_codec=codec,
            audio_rate=context.sample_rate,
            channels=context.channels,
        )

    def window(
        self, summary: Summary, window: WindowPlan, rates: Sequence[int], pixels: bool, limits: Limits
    ) -> Window:
        """The frames of a window and their sound."""
        size = (summary.height, summary.width)
        numbers = tuple(range(window.first, window.first + len(window.times)))
        frames: NDArray[np.uint8] | None = None
        if self.pictures:
            shown = self.pictures.locate(window.times)
            times = tuple(self.pictures.timestamp(frame) for frame in shown)
            indices = tuple(round(time * summary.fps) for time in times)
            if pixels:
                frames = self.pictures.pixels(shown, size, summary.rotation)
        else:
            times, indices = window.times, numbers
            if pixels:
                frames = read_images([self.images[number] for number in numbers], size, limits)
        return Window(
            index=window.index,
            size=size,
            timestamps=times,
            indices=indices,
            audio_windows=spans(summary, window),
            frames=frames,
            audio=self.audio(summary, window, rates),
            has_audio=self.sound is not None,
        )

    def audio(self, summary: Summary, window: WindowPlan, rates: Sequence[int]) -> Mapping[int, Wave]:
        """For each rate the second of sound of each frame, silent without an audio track."""
        if self.sound is None:
            return {rate: np.zeros((len(window.times), rate), np.float32) for rate in rates}
        if window.mode == "uniform":
            return self.sound.windows(spans(summary, window), rates)
        numbers = slice(window.first, window.first + len(window.times))
        return {rate: self.sound.benchmark(AVSBENCH_SECONDS, rate)[numbers] for rate in rates}


@contextmanager
def reading(media: Media, limits: Limits) -> Iterator[Reader]:
    """The clip's files, open and checked against the limits."""
    if media.video is None and not media.frames:
        raise UndecodableMedia("This clip has no picture: give a video or frames.")
    if len(media.frames) > limits.frames:
        raise MediaTooLarge("number of frames", limits.frames, len(media.frames), "frames")
    with ExitStack() as stack:
        pictures = sound = None
        container = None if media.video is None else stack.enter_context(opened(media.video, limits))
        if container is not None:
            video = video_stream(container, limits)
            if video is None:
                raise UndecodableMedia(
                    "This clip has no video track: send one that has, or images as `frames[]` with `audio`."
                )
            pictures = Pictures(container, video, limits)
        if media.audio is not None:
            container = stack.enter_context(opened(media.audio, limits))
        audio = None if container is None else audio_stream(container, limits)
        if media.audio is not None and audio is None:
            raise UndecodableMedia("The sound file has no audio track.")
        if container is not None and audio is not None:
            # Sound of the same file runs on the picture's clock, a file of its own on its own.
            origin = pictures.origin if pictures and media.audio is None else None
            sound = Sound(container, audio, origin)
        yield Reader(media.frames, pictures, sound)


def summary_of_video(pictures: Pictures) -> Summary:
    """The rotation and the true size are known from the first frame alone, so that one is decoded."""
    first = next(pictures.decode(pictures.locate([0.0])))
    rotation = round(-first.rotation / 90) * 90 % 360
    width, height = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
    return Summary(
        width=width,
        height=height,
        fps=pictures.rate,
        duration=pictures.duration(),
        rotation=rotation,
        container=pictures.container.format.name,
        video_codec=codec_name(pictures.stream),
        frames=pictures.stream.frames or None,
    )


def summary_of_images(images: Sequence[Source], limits: Limits) -> Summary:
    """One image a second, until a sampling says otherwise."""
    height, width = image_size(images[0], limits)
    count = len(images)
    return Summary(
        width=width, height=height, fps=1.0, duration=float(count), container="images", frames=count
    )


def main(arguments: Sequence[str]) -> int:
    """Print a clip's summary, then each window's facts, as JSON lines."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        sys.stderr.write("Give the path of one clip: python -m models.media CLIP\n")
        return 2
    media = Media(video=Path(arguments[0]))
    try:
        say(asdict(probe(media)))
        for window in windows(media):
            say(facts(window))
    except EarshotError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BrokenPipeError:
        return 1  # the reader, `head` for one, has seen enough
    except OSError as error:
        sys.stderr.write(f"The output cannot be written: {error.strerror}.\n")
        return 1
    return 0


def say(entry: Mapping[str, object]) -> None:
    """One JSON line, written at once: what cannot be written must fail here and not when Python ends."""
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


def facts(window: Window) -> Mapping[str, object]:
    """A window without its pixels and its sound."""
    return {
        "window": window.index,
        "timestamps": window.timestamps,
        "indices": window.indices,
        "audio_windows": window.audio_windows,
        "shape": None if window.frames is None else window.frames.shape,
        "has_audio": window.has_audio,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
