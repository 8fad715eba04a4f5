"""Promise 12: memory does not creep, and a long video takes no more of it than a short one."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.clips import Picture, Sound, make_clip
from tests.cluster import SAMPLE, Cluster, family
from tests.faults.lab import Lab
from tests.faults.lifecycle import lines, order, upload
from tests.faults.promise import Measured, Promise, Scale

MEGABYTE = 2**20


def footprint(processes: Sequence[psutil.Process]) -> int:
    """Bytes that these processes hold alone: what would come back if they ended."""
    total = 0
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_full_info().uss
    return total


class Peak:
    """The most that some processes and their children held while the context was open."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self.processes = list(processes)
        self.most = self.least = footprint(self.everyone())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def everyone(self) -> list[psutil.Process]:
        return [*self.processes, *(child for one in self.processes for child in family(one.pid))]

    @property
    def grown(self) -> int:
        return self.most - self.least

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, footprint(self.everyone()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def processes_of(cluster: Cluster) -> list[psutil.Process]:
    """API and workers."""
    return [psutil.Process(one.pid) for one in [cluster.api, *cluster.workers] if one is not None]


def no_creep(scale: Scale) -> Measured:
    """Short clips, long ones, refusals and every form of a result; the first tenth only warms up."""
    requests = scale.of(1000, at_least=40)
    with Lab() as cluster, cluster.client() as client:
        processes = processes_of(cluster)

        def mixed(number: int) -> None:
            match number % 5:
                case 0:
                    client.segment(SAMPLE, "pixels", fps=5)
                case 1:
                    client.segment(SAMPLE, "free", fps=25)
                case 2:
                    with contextlib.suppress(Exception):
                        client.segment(SAMPLE, "free", nonsense=number)
                case 3:
                    with contextlib.suppress(Exception):
                        client.segment(Path(__file__), "free")
                case 4:
                    lines(order(client, upload(client), "pixels").wait())

        for number in range(max(20, requests // 10)):
            mixed(number)
        before = footprint(Peak(processes).everyone())
        for number in range(requests):
            mixed(number)
        time.sleep(1)
        grown = (footprint(Peak(processes).everyone()) - before) / MEGABYTE
    return Measured(grown <= 100, f"{requests} requests: grown by {grown:.0f} MB (<= 100)")


def long_video(scale: Scale) -> Measured:
    """The same picture for ten seconds and for two hours, a frame a second."""
    hours = 0.1 if scale.short else 2.0
    with (
        Lab(worker_threads=2) as cluster,
        cluster.client() as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        processes = processes_of(cluster)
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        looks = {"size": (320, 240), "fps": 2.0, "video": Picture(gop=8)}
        sound = {"rate": 16_000, "layout": "mono", "bit_rate": 32_000}
        make_clip(short, seconds=10.0, audio=Sound(**sound), **looks)
        make_clip(long, seconds=hours * 3600, audio=Sound(**sound), **looks)
        peaks = {}
        for clip in (short, short, long):  # the first run only warms up
            with Peak(processes) as peak:
                for _ in range(20 if clip == short else 1):
                    lines(order(client, upload(client, clip), "pixels").wait(timeout=600))
            peaks[clip] = peak.most / MEGABYTE
        more = peaks[long] / peaks[short] - 1
    text = f"{hours:g} h: {peaks[long]:.0f} MB, 10 s: {peaks[short]:.0f} MB, {more:+.0%} (<= 10 %)"
    return Measured(more <= 0.10, text)


PROMISES = [
    Promise("12a", "1,000 mixed requests: the host grows <= 100 MB", no_creep),
    Promise("12b", "a 2 h video peaks within 10 % of a 10 s clip", long_video),
    Promise("12c", "memory of the GPU under 1,000 mixed requests: needs a GPU", None),
]
