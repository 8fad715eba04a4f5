"""More workers make long work shorter, and the API starts at once: what is measured, not broken."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from service.client import Job
from tests.cluster import free_port, until
from tests.faults.lab import Lab, shared_lab
from tests.faults.orders import lines, order, upload
from tests.faults.promise import Measured, Promise, Scale


def spread(scale: Scale) -> Measured:
    """One job of `slow`, 50 ms a frame, on 1, 2 and 4 workers of one thread each; windows of 16 frames."""
    fps = 25.6 if scale.short else 64.0
    results: set[bytes] = set()
    taken: dict[int, float] = {}
    with Lab(worker_threads=1) as cluster, cluster.client() as client:
        clip = upload(client)
        for count in (1, 2, 4):
            while len(cluster.workers) < count:
                cluster.add_worker()
            until(lambda wanted=count: len(cluster.alive()) >= wanted, 60)
            order(client, clip, "free").wait()
            job = order(client, clip, "sleep", fps=fps).wait(timeout=120)
            taken[count] = worked(job)
            results.add(lines(job))
        frames = job.progress.frames_done
    parts = {count: seconds * count / taken[1] for count, seconds in taken.items()}
    text = (
        f"{frames} frames: {listed(taken.values(), 1)} s; times N, over the first: "
        f"{listed(parts.values(), 2)} (0.9 to 1.1), {len(results)} different results (1)"
    )
    return Measured(len(results) == 1 and all(abs(part - 1) <= 0.1 for part in parts.values()), text)


def worked(job: Job) -> float:
    """Seconds from a job's first window to its last, by the service's own clock."""
    began, ended = (datetime.fromisoformat(job.record[name]) for name in ("started_at", "finished_at"))
    return (ended - began).total_seconds()


def listed(values: Iterable[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def api_start(scale: Scale) -> Measured:
    """Three more API processes, one after the other: from the call to the first answer; none maps torch."""
    taken, cpu, torch = [], [], False
    with shared_lab() as cluster:
        for _ in range(3):
            port = free_port()
            began = time.monotonic()
            api = cluster.process("api", EARSHOT_PORT=str(port))
            address = f"http://127.0.0.1:{port}/healthz"
            until(lambda address=address: answers(address), 30, every=0.01)
            taken.append(time.monotonic() - began)
            times = psutil.Process(api.pid).cpu_times()
            cpu.append(times.user + times.system)
            torch = torch or "libtorch" in Path(f"/proc/{api.pid}/maps").read_text()
            api.terminate()
            api.wait(30)
    text = (
        f"{listed(taken, 2)} s to the first answer (median < 2), of them {listed(cpu, 2)} s of CPU; "
        f"torch loaded {torch}"
    )
    return Measured(statistics.median(taken) < 2 and not torch, text)


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(address, timeout=5).is_success
    return False


PROMISES = [
    Promise("20", "one long job on 1, 2 and 4 workers: 1/N of the time within 10 %, the same bytes", spread),
    Promise("21", "the API starts in under 2 s, without torch", api_start),
]
