"""Promise 12: memory does not creep, and a long video takes no more of it than a short one."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import psutil

from tests.clips import Picture, Sound, make_clip
from tests.cluster import SAMPLE, Cluster, family
from tests.faults.lab import Lab
from tests.faults.orders import lines, order, upload
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

    def __init__(self, processes: Sequence[psutil.Process], every: float = 0.05) -> None:
        self.processes, self.every = list(processes), every
        self.most = self.least = footprint(self.everyone())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def everyone(self) -> list[psutil.Process]:
        return [*self.processes, *(child for one in self.processes for child in family(one.pid))]

    @property
    def grown(self) -> int:
        return self.most - self.least

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
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

        with ThreadPoolExecutor(4) as crowd:
            list(crowd.map(mixed, range(max(20, requests // 10))))
            before = footprint(Peak(processes).everyone())
            list(crowd.map(mixed, range(requests)))
        time.sleep(1)
        grown = (footprint(Peak(processes).everyone()) - before) / MEGABYTE
    return Measured(grown <= 100, f"{requests} requests: grown by {grown:.0f} MB (<= 100)")


def looped(clip: Path, seconds: float, turns: int, path: Path) -> None:
    """Write the packets of a clip's first `seconds` again and again: hours of video in a second or two."""
    with av.open(path, "w") as target:
        streams = []
        for turn in range(turns):
            with av.open(clip) as source:
                streams = streams or [target.add_stream_from_template(one) for one in source.streams]
                for packet in source.demux():
                    if packet.dts is None or not 0 <= packet.dts * packet.time_base < seconds:
                        continue  # what an encoder sends before the first sample and after the last
                    offset = round(turn * seconds / packet.time_base)
                    packet.dts, packet.pts = packet.dts + offset, (packet.pts or 0) + offset
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)


def long_video(scale: Scale) -> Measured:
    """The same picture for ten seconds and for two hours, in windows of 16 frames, two at a time either way.

    The short clip runs often: a peak of milliseconds is seen by chance, and two hours have many chances.
    """
    turns = 12 if scale.short else 225
    with (
        Lab(worker_threads=2) as cluster,
        cluster.client() as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        processes = processes_of(cluster)
        short, piece, long = (Path(folder) / name for name in ("short.mp4", "piece.mp4", "long.mp4"))
        looks = {"size": (320, 240), "fps": 2.0, "video": Picture(gop=8)}
        sound = Sound(rate=16_000, layout="mono", bit_rate=32_000)  # 32 s are 500 packets, no part of one
        make_clip(short, seconds=10.0, audio=sound, **looks)
        make_clip(piece, seconds=32.0, audio=sound, **looks)
        looped(piece, 32.0, turns, long)

        def run(clip: Path) -> None:
            fps = 1.6 if clip == short else 1.0
            lines(order(client, upload(client, clip), "pixels", fps=fps).wait(timeout=600))

        peaks = {}
        for clip in (short, short, long):  # the first run only warms up
            with Peak(processes) as peak, ThreadPoolExecutor(2) as pair:
                list(pair.map(run, [clip] * (100 if clip == short else 1)))
            peaks[clip] = peak.most / MEGABYTE
        more = peaks[long] / peaks[short] - 1
    text = (
        f"{turns * 32 / 3600:g} h: {peaks[long]:.0f} MB, 10 s: {peaks[short]:.0f} MB, {more:+.0%} (<= 10 %)"
    )
    return Measured(more <= 0.10, text)


PROMISES = [
    Promise("12a", "1,000 mixed requests: the host grows <= 100 MB", no_creep),
    Promise("12b", "a 2 h video peaks within 10 % of a 10 s clip", long_video),
    Promise("12c", "memory of the GPU under 1,000 mixed requests: needs a GPU", None),
]
