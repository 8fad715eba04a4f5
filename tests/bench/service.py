"""The whole way of a request, with a strategy that costs nothing: HTTP, queue, worker, storage, answer.

Real processes: an API, one worker, Redis. The clip (1 MB, ten seconds) is uploaded before the clock starts.
CPU time is counted beside the wall clock: on a machine that does other things as well it tells more.
"""

from __future__ import annotations

import http.client
import json
import resource
import threading
import time
from collections.abc import Iterator
from statistics import quantiles

import httpx
import psutil

from tests.bench.timing import MIB, Timing
from tests.clips import Picture, make_clip
from tests.cluster import Cluster

CLIP_SECONDS = 10
CLIP_SIZE = (640, 360)
CLIP_BITS = 800_000  # a second of picture: with the sound, 1 MB
WARM_REQUESTS = 50
REQUESTS = 400
CLIENTS = (1, 2, 8)
Cpu = dict[str, float]


def service() -> Iterator[Timing]:
    """Requests one after the other, and from two and eight clients at once."""
    with Cluster() as cluster:
        path = cluster.folder / "clip.mp4"
        picture = Picture(noise=8, options={"b": str(CLIP_BITS)})
        make_clip(path, seconds=CLIP_SECONDS, size=CLIP_SIZE, video=picture)
        sent = httpx.post(f"{cluster.url}/v1/uploads", files={"media": path.read_bytes()}, timeout=60)
        upload = sent.json()["upload_id"]
        [first, *_] = asked(cluster.port, upload, WARM_REQUESTS)
        for clients in CLIENTS:
            yield measured(cluster, upload, clients, first, path.stat().st_size)


def measured(cluster: Cluster, upload: str, clients: int, first: float, clip_bytes: int) -> Timing:
    """`seconds` is the median latency."""
    latencies: list[float] = []

    def client() -> None:
        latencies.extend(asked(cluster.port, upload, REQUESTS // clients))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    before, began = cpu_seconds(cluster), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, after = time.perf_counter() - began, cpu_seconds(cluster)
    percentiles = quantiles(latencies, n=100)
    spent = {f"{name}_cpu_ms": round(1000 * (after[name] - before[name]) / REQUESTS, 2) for name in after}
    return Timing(
        "service",
        round(percentiles[49], 6),
        round(first, 6),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB, 1),
        {
            "clients": clients,
            "p99_seconds": round(percentiles[98], 6),
            "requests_per_second": round(REQUESTS / wall, 1),
            "clip_bytes": clip_bytes,
            **spent,
        },
    )


def asked(port: int, upload: str, requests: int) -> list[float]:
    """Seconds of each of so many requests over one connection; every answer must hold masks."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"upload_id": upload})
    latencies = []
    for _ in range(requests):
        began = time.perf_counter()
        connection.request("POST", "/v1/segment/full-mask", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document = answer.read()
        latencies.append(time.perf_counter() - began)
        assert answer.status == 200, document
        assert document.count(b'"counts"') == CLIP_SECONDS, document
    connection.close()
    return latencies


def cpu_seconds(cluster: Cluster) -> Cpu:
    """What the processes have used so far."""
    processes = {"api": cluster.api, "worker": cluster.workers[0], "redis": cluster.redis_server.process}
    times = {name: psutil.Process(one.pid).cpu_times() for name, one in processes.items() if one is not None}
    return {name: one.user + one.system for name, one in times.items()}
