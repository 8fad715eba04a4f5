"""One measurement, and how it is taken."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import psutil
import torch

REPEATS = 3
MIB = 1 << 20


@dataclass(frozen=True)
class Timing:
    """`seconds` is the median of the repeats after one call that is not counted, `first_seconds` that call's.

    `peak_mib` is the process's since its start (of the device's memory where there is one): every benchmark
    runs in a process of its own.
    """

    name: str
    seconds: float
    first_seconds: float
    peak_mib: float
    details: dict[str, float | int | str] = field(default_factory=dict)


@contextmanager
def growth() -> Iterator[list[float]]:
    """By how many MiB the process grows at most while the block runs, as a list of one."""
    gc.collect()
    process, stop, result = psutil.Process(), threading.Event(), [0.0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.002):
            result[0] = max(result[0], (process.memory_info().rss - before) / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield result
    finally:
        stop.set()
        watcher.join()


def device() -> torch.device:
    """Where networks are measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure(name: str, call: Callable[[], object], **details: float | int | str) -> Timing:
    """Time `call`, to the end of what it started on the device."""
    first, *rest = [timed(call) for _ in range(1 + REPEATS)]
    return Timing(name, round(median(rest), 6), round(first, 6), round(peak() / MIB, 1), details)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak() -> int:
    """Bytes at the worst moment so far."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
