"""What runs inside the decoder's process: confine itself, read the clip, write the answer into a file.

The answer is a length, a JSON header and raw arrays. The parent never unpickles what comes from here: a clip
that takes over a decoder must not thereby take over the worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import EarshotError, MediaTooLarge
from models.media import Limits, Media, Summary, Window, WindowPlan, probe, read_window
from service.landlock import only

HEADER = struct.Struct("<QQ")  # bytes of the JSON header, and where it is; written last: zero is unfinished
ALIGNMENT = 64
ANSWER_BYTES = 256 * 1024 * 1024  # a window's pixels (192 MiB at most), its sound, and room
OPEN_FILES = 64
NICENESS = 10  # many may decode at once; whoever answers requests goes first
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


@dataclass(frozen=True)
class Confinement:
    """`seconds` of CPU time; `memory` bytes of address space above what the process begins with; the files
    that it may read and, at or under them, write; by how much it steps back behind other processes."""

    seconds: float
    memory: int
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    niceness: int = NICENESS


class Request(Protocol):
    """Something to do in the child: its answer is a JSON value and arrays by name."""

    def answer(self) -> tuple[Any, dict[str, NDArray[Any]]]: ...


@dataclass(frozen=True)
class ProbeRequest:
    media: Media
    limits: Limits

    def answer(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return asdict(probe(self.media, self.limits)), {}


@dataclass(frozen=True)
class WindowRequest:
    media: Media
    summary: Summary
    plan: WindowPlan
    rates: tuple[int, ...]
    pixels: bool
    limits: Limits

    def answer(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        window = read_window(
            self.media, self.summary, self.plan, rates=self.rates, pixels=self.pixels, limits=self.limits
        )
        return describe(window), arrays(window)


def describe(window: Window) -> dict[str, Any]:
    """What of a window is not an array."""
    names = ("index", "size", "timestamps", "indices", "audio_windows", "has_audio")
    return {name: getattr(window, name) for name in names}


def arrays(window: Window) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {f"audio {rate}": sound for rate, sound in window.audio.items()}
    if window.frames is not None:
        found["frames"] = window.frames
    return found


def received(duplicate: Any) -> int:  # noqa: ANN401 (private to multiprocessing)
    """The descriptor that `decoding.Passed` sent. Here, so that the child need not import `decoding`."""
    descriptor: int = duplicate.detach()
    return descriptor


def run(request: Request, confinement: Confinement, descriptor: int) -> None:
    """The process's main function. `descriptor` is the file for the answer."""
    confine(confinement)
    try:
        document, found = request.answer()
        write(descriptor, {"value": document}, found)
    except EarshotError as error:
        write(descriptor, {"error": problem(error)}, {})
    except MemoryError:
        write(descriptor, {"swollen": True}, {})


def problem(error: EarshotError) -> dict[str, Any]:
    values = (
        [error.limit, error.allowed, error.actual, error.unit] if isinstance(error, MediaTooLarge) else []
    )
    return {"kind": type(error).__name__, "detail": str(error), "values": values}


def write(descriptor: int, header: Mapping[str, Any], found: Mapping[str, NDArray[Any]]) -> None:
    """Arrays first, then the header, then its length: the answer is there whole or not at all."""
    layout = []
    offset = ALIGNMENT
    for name, array in found.items():
        data = np.ascontiguousarray(array)
        layout.append({"name": name, "dtype": data.dtype.str, "shape": data.shape, "offset": offset})
        put(descriptor, data.reshape(-1).view(np.uint8).data, offset)
        offset += -(-data.nbytes // ALIGNMENT) * ALIGNMENT
    text = json.dumps({**header, "arrays": layout}).encode()
    put(descriptor, memoryview(text), offset)
    put(descriptor, memoryview(HEADER.pack(len(text), offset)), 0)


def put(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def confine(confinement: Confinement) -> None:
    """Give up what decoding does not need. What a platform does not know is left as it is."""
    os.nice(confinement.niceness)
    os.environ.clear()  # the worker's settings, with the address and perhaps the password of Redis
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker finishes its windows, and ends us when it must
    seconds = max(1, round(confinement.seconds))
    limit(resource.RLIMIT_CPU, seconds)
    signal.alarm(seconds + 5)  # should the worker die, nobody else watches the clock
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    limit(resource.RLIMIT_FSIZE, ANSWER_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit(resource.RLIMIT_AS, pages * resource.getpagesize() + confinement.memory)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        die_with_worker()
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # An empty network of its own. Without root that takes a user namespace, where the system allows one.
        if libc.unshare(CLONE_NEWNET) != 0:
            libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
        code = [Path(place) for place in (*sys.path, sys.base_prefix) if place]  # some imports come late
        only([*code, *confinement.reads], confinement.writes)


def die_with_worker() -> None:
    """The server that forked us ends when no process holds its pipe any more, and we with it: so it is the
    worker's alone to hold. multiprocessing hands it to every child, and has no public name for it."""
    held = vars(forkserver._forkserver).get("_forkserver_alive_fd")
    if held is not None:
        os.close(held)


def limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))
