"""The sandbox: uploaded media is read in a process of its own, which may crash, hang or swell.

Each call forks a fresh child from a small server (multiprocessing's forkserver) that has the decoder loaded
and nothing else: no model, no connection, no thread. The child limits itself (decoder.py); here is the wall
clock, and the distrust: the answer is read only when the child is dead and the file sealed; JSON and arrays.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from multiprocessing import connection, get_context, reduction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from models.errors import (
    EarshotError,
    InvalidOption,
    MediaTooLarge,
    UndecodableMedia,
    UnsupportedMedia,
)
from models.media import Limits, Media, Summary, Window, WindowPlan
from service import decoder
from service.decoder import ALIGNMENT, HEADER, NICENESS, Confinement, ProbeRequest, Request, WindowRequest
from service.settings import Settings

HEADER_BYTES = 4 * 1024 * 1024
DETAIL_CHARACTERS = 500
KINDS: Mapping[str, type[EarshotError]] = {
    kind.__name__: kind for kind in (UnsupportedMedia, UndecodableMedia, InvalidOption)
}
DTYPES = {"|u1", "<f4"}
SUMMARY = TypeAdapter(Summary)


@dataclass(frozen=True)
class Head:
    """What of a window is not an array, as the child claims it."""

    index: int
    size: tuple[int, int]
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    audio_windows: tuple[tuple[float, float], ...]
    has_audio: bool


HEAD = TypeAdapter(Head)


class Sandbox:
    """Reads media in children. Thread-safe; the server starts with the first call, or with `start`."""

    def __init__(self, settings: Settings, niceness: int = NICENESS) -> None:
        self.seconds = settings.decode_seconds
        self.memory = settings.decode_bytes
        self.niceness = niceness
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["service.decoder"])

    def start(self) -> None:
        """Start the server now, so that the first clip does not wait for its imports."""
        child = self.context.Process(target=len, args=("",))
        child.start()
        child.join()
        child.close()

    def probe(self, media: Media, limits: Limits = Limits()) -> Summary:  # noqa: B008 (frozen)
        """`models.media.probe` in a child. Raises what that raises; UndecodableMedia for a crash."""
        value, _ = self.ask(ProbeRequest(media, limits), reads=files_of(media))
        with distrusting():
            return SUMMARY.validate_python(value)

    def read_window(
        self,
        media: Media,
        summary: Summary,
        plan: WindowPlan,
        *,
        rates: tuple[int, ...] = (),
        pixels: bool = True,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> Window:
        """`models.media.read_window` in a child; its arrays are read-only."""
        request = WindowRequest(media, summary, plan, rates, pixels, limits)
        value, arrays = self.ask(request, reads=files_of(media))
        with distrusting():
            head = HEAD.validate_python(value)
            window = Window(
                **vars(head),
                frames=arrays.get("frames"),
                audio={rate: arrays[f"audio {rate}"] for rate in rates},
            )
            check(window, pixels)
            return window

    def ask(
        self, request: Request, reads: Sequence[Path] = (), writes: Sequence[Path] = ()
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """Whatever the request answers in a child: a JSON value and arrays. `reads` and `writes` are the
        files, or folders, that it may touch (enforced where the kernel has Landlock)."""
        confinement = Confinement(self.seconds, self.memory, tuple(reads), tuple(writes), self.niceness)
        with answer_file() as descriptor:
            self._run(request, confinement, descriptor)
            seal(descriptor)
            with distrusting():
                return self._parse(descriptor)

    def _run(self, request: Request, confinement: Confinement, descriptor: int) -> None:
        """Fork, wait, kill when the time is up. How it ended is no matter: the answer is whole or not."""
        child = self.context.Process(
            target=decoder.run, args=(request, confinement, Passed(descriptor)), daemon=True
        )
        child.start()
        in_time = bool(connection.wait([child.sentinel], self.seconds))
        if not in_time:
            child.kill()
        child.join()
        child.close()
        if not in_time:
            raise UndecodableMedia(f"Reading this media takes more than {self.seconds:g} s, the limit.")

    def _parse(self, descriptor: int) -> tuple[Any, dict[str, NDArray[Any]]]:
        size = os.fstat(descriptor).st_size
        if size < HEADER.size:
            raise UndecodableMedia("The decoder crashed on this media; re-encode it and try again.")
        data = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        length, offset = HEADER.unpack_from(data)
        if not 0 < length <= HEADER_BYTES or offset + length > size:
            raise UndecodableMedia("The decoder crashed on this media; re-encode it and try again.")
        header = json.loads(data[offset : offset + length])
        if header.get("swollen"):
            megabytes = self.memory // 1024**2
            raise UndecodableMedia(f"Reading this media takes more than {megabytes} MiB, the limit.")
        if "error" in header:
            raise error_of(header["error"])
        return header["value"], {claim["name"]: array_of(data, claim) for claim in header["arrays"]}


def media_limits(settings: Settings) -> Limits:
    """What a clip may measure."""
    return Limits(
        bytes_=settings.max_upload_bytes,
        pixels=settings.max_pixels,
        duration=settings.job_seconds,
        frames=settings.max_frames,
        tracks=settings.max_tracks,
    )


def files_of(media: Media) -> list[Path]:
    return [part for part in (media.video, media.audio, *media.frames) if isinstance(part, Path)]


class Passed:
    """A descriptor on its way to a child: pickled as a reference, it arrives as the child's own number."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return decoder.received, (reduction.DupFd(self.descriptor),)


@contextmanager
def answer_file() -> Iterator[int]:
    """A descriptor of an empty file in memory (on disk where the platform has no such files)."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


def seal(descriptor: int) -> None:
    """Nobody can change the file under the arrays any more, not even a process that the child left behind."""
    if hasattr(os, "memfd_create"):
        try:
            fcntl.fcntl(
                descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            )
        except OSError as error:
            raise UndecodableMedia("The decoder misbehaved on this media; it was refused.") from error


@contextmanager
def distrusting() -> Iterator[None]:
    """An answer that makes no sense comes from a decoder that something took over or broke."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UndecodableMedia("The decoder misbehaved on this media; it was refused.") from error


def error_of(claim: Mapping[str, Any]) -> EarshotError:
    """The error that the child reports: one of a few kinds, its sentence cut to a sane length."""
    if claim["kind"] == MediaTooLarge.__name__:
        limit, allowed, actual, unit = claim["values"]
        return MediaTooLarge(str(limit)[:50], float(allowed), float(actual), str(unit)[:20])
    return KINDS[claim["kind"]](str(claim["detail"])[:DETAIL_CHARACTERS])


def array_of(data: mmap.mmap, claim: Mapping[str, Any]) -> NDArray[Any]:
    """One array over the sealed file, without a copy. numpy checks that it lies inside."""
    shape = tuple(int(length) for length in claim["shape"])
    if claim["dtype"] not in DTYPES or any(length < 0 for length in shape) or claim["offset"] % ALIGNMENT:
        raise ValueError(claim)
    flat = np.frombuffer(data, np.dtype(claim["dtype"]), count=prod(shape), offset=claim["offset"])
    return flat.reshape(shape)


def check(window: Window, pixels: bool) -> None:
    """The parts of a window agree with each other."""
    number = len(window.timestamps)
    shapes = {window.frames.shape} if window.frames is not None else set()
    if shapes != ({(number, *window.size, 3)} if pixels else set()):
        raise ValueError(shapes)
    if any(sound.shape != (number, rate) for rate, sound in window.audio.items()):
        raise ValueError("sound")
    if len(window.indices) != number or len(window.audio_windows) != number:
        raise ValueError("numbers")
