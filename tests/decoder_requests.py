"""What a clip might do to the decoder that reads it; each runs in a child of the sandbox."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import MediaTooLarge
from service.decoder import HEADER

Answer = tuple[Any, dict[str, NDArray[Any]]]


class Crash:
    def answer(self) -> Answer:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError


class Hang:
    def answer(self) -> Answer:
        time.sleep(60)
        raise AssertionError


class Spin:
    def answer(self) -> Answer:
        while True:
            pass


@dataclass
class Swell:
    size: int

    def answer(self) -> Answer:
        return len(bytearray(self.size)), {}


class Refuse:
    def answer(self) -> Answer:
        raise MediaTooLarge("duration", 60, 61, "s")


class Raise:
    """An error that no reader of media should raise."""

    def answer(self) -> Answer:
        raise ZeroDivisionError


class Echo:
    """Arrays of every kind that windows have."""

    def answer(self) -> Answer:
        arrays = {
            "frames": np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3),
            "audio 8000": np.linspace(-1, 1, 16000, dtype=np.float32).reshape(2, 8000),
            "empty": np.zeros((0, 4), np.float32),
        }
        return {"pid": os.getpid()}, arrays


class Touch:
    """Which of these paths can be read, and which written: their names."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def answer(self) -> Answer:
        return {mode: [path.name for path in self.paths if self.can(path, mode)] for mode in ("rb", "ab")}, {}

    def can(self, path: Path, mode: str) -> bool:
        try:
            path.open(mode).close()
        except OSError:
            return False
        return True


class Surroundings:
    """The environment, as a child of the decoder would get it too, and the process's niceness."""

    def answer(self) -> Answer:
        return {"environment": dict(os.environ), "niceness": os.nice(0)}, {}


class Connect:
    """Whom can the decoder reach? The error's name, or `connected`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def answer(self) -> Answer:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2)
        except OSError as error:
            return type(error).__name__, {}
        return "connected", {}


class Cost:
    """Seconds of CPU that the child has used by now."""

    def answer(self) -> Answer:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime, {}


class OpenMany:
    def answer(self) -> Answer:
        files = []
        try:
            for _ in range(1000):
                files.append(Path("/dev/null").open())  # noqa: PERF401, SIM115 (the limit is in the middle)
        except OSError:
            return len(files), {}
        return len(files), {}


@dataclass
class Lie:
    """A decoder that something took over writes what it likes into the answer."""

    text: bytes
    length: int | None = None

    def answer(self) -> Answer:
        descriptor = answer_descriptor()
        os.ftruncate(descriptor, 4096)
        os.pwrite(descriptor, self.text[:3000], 64)
        os.pwrite(descriptor, HEADER.pack(self.length or len(self.text), 64), 0)
        os._exit(0)


class Linger:
    """Leaves a process behind that holds the answer open for writing, to change it after it was checked."""

    def answer(self) -> Answer:
        mapped = mmap.mmap(answer_descriptor_sized(), 4096)
        if os.fork() == 0:
            signal.alarm(3)
            time.sleep(2)
            mapped[64:65] = b"x"
            os._exit(0)
        return "fine", {}


def answer_descriptor() -> int:
    """The child's own descriptor of the file for its answer."""
    for number in range(3, 64):
        try:
            if "memfd:answer" in Path(f"/proc/self/fd/{number}").readlink().name:
                return number
        except OSError:
            continue
    raise AssertionError("no answer file")


def answer_descriptor_sized() -> int:
    descriptor = answer_descriptor()
    os.ftruncate(descriptor, 4096)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFD) >= 0
    return descriptor


def claim(**changes: Any) -> bytes:
    """The header of an answer with one array, some of it wrong."""
    array = {"name": "frames", "dtype": "|u1", "shape": [4], "offset": 0, **changes}
    return json.dumps({"value": {}, "arrays": [array]}).encode()
