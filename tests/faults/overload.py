"""Promises 9 to 11: more than can be done, clients that vanish, readers that dawdle."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.cluster import SAMPLE, Cluster, until
from tests.faults.callers import Calls, asking, quantile
from tests.faults.lab import Lab, shared_lab
from tests.faults.orders import order, ready, unfinished, upload
from tests.faults.promise import Measured, Promise, Scale

START = 1.0  # seconds that a process of clients needs to begin
CAPACITY = 20  # clips a second: two threads, 0.1 s a clip
LOW = 10  # niceness of a load: it takes what the service leaves


def overload(scale: Scale) -> Measured:
    """Ten times the capacity comes, by an upload's id; a client at the usual priority times refusals."""
    seconds = max(6.0, 60 * scale.factor)
    with Lab(worker_threads=2, queue_jobs=16) as cluster, cluster.client() as client:
        url, body = f"{cluster.url}/v1/segment/slow", {"upload_id": upload(client), "seconds": 0.02}
        calls = Calls(url, body, headers={"Prefer": "wait=60"})
        load = replace(calls, rate=10 * CAPACITY, clients=64, niceness=LOW)
        cores = Cores(cluster)
        with asking(load) as answers, asking(replace(calls, rate=10, clients=8)) as timed:
            time.sleep(START + seconds)
        share = cores.since(len(answers) + len(timed))
        normal = until(lambda: quick(cluster, body), 30, every=0.1)
        own = logged(cluster, {429, 503})
    codes = Counter(one.status for one in answers + timed)
    slowest = quantile([one.seconds for one in timed if one.status != 200], 0.99)
    fine = all(one.good for one in answers + timed) and set(codes) <= {200, 429, 503}
    enough = len(answers) > 0.9 * 10 * CAPACITY * seconds
    ok = fine and enough and slowest < 0.05 and normal is not None and normal < 10
    text = (
        f"{len(answers)} calls: {dict(codes)}, refused in p99 {slowest * 1000:.0f} ms (< 50) for a client, "
        f"p50 {quantile(own, 0.5) * 1000:.0f} and p99 {quantile(own, 0.99) * 1000:.0f} ms by the API's own "
        f"clock ({share}); all complete or with "
        f"Retry-After {fine}, normal after {normal or 99:.1f} s (< 10)"
    )
    return Measured(ok, text)


class Cores:
    """What the API made of the machine since this was made: seconds on a core, and ready but without one."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.api is not None
        self.pid = cluster.api.pid
        self.used, self.waited = self.read()

    def read(self) -> tuple[float, float]:
        """All threads' use; the wait of the one that answers, its event loop."""
        times = psutil.Process(self.pid).cpu_times()
        waited = int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1])
        return times.user + times.system, waited / 1e9

    def since(self, calls: int) -> str:
        used, waited = self.read()
        return (
            f"the API used {(used - self.used) / max(1, calls) * 1000:.1f} ms of CPU a call and stood "
            f"{(waited - self.waited) / max(1, calls) * 1000:.1f} ms ready without a core"
        )


def logged(cluster: Cluster, statuses: set[int]) -> list[float]:
    """Seconds that the API itself counted for each POST it answered so."""
    lines = [line for path in cluster.folder.glob("*-api.log") for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    requests = [one for one in events if one["event"] == "request" and one["method"] == "POST"]
    return [one["ms"] / 1000 for one in requests if one["status"] in statuses]


def quick(cluster: Cluster, body: dict[str, object]) -> bool:
    """A call is served in twice the time it takes alone."""
    began = time.monotonic()
    got = cluster.http.post("/v1/segment/slow", json=body, timeout=30)
    return got.status_code == 200 and time.monotonic() - began < 0.5


def vanishing(scale: Scale) -> Measured:
    """Half of the clients hang up in the middle of their upload, half while they wait for the answer."""
    clients = scale.of(1000)
    with Lab(worker_threads=4, queue_jobs=2000) as cluster:
        cluster.http.get("/v1/strategies").raise_for_status()
        assert cluster.api is not None
        api = psutil.Process(cluster.api.pid)
        before = api.num_fds()
        with ThreadPoolExecutor(16) as crowd:
            list(crowd.map(lambda number: vanish(cluster, halfway=number % 2 == 0), range(clients)))
        idle = until(lambda: in_flight(cluster) == 0, 30, every=0.2)
        drained = until(lambda: not unfinished(cluster), 60, every=0.2)
        fine = until(lambda: api.num_fds() <= before + 4, 15, every=0.2)
        after = api.num_fds()
        scratch = [path for path in (cluster.folder / "scratch").rglob("*") if path.is_file()]
    ok = None not in (idle, drained, fine) and not scratch
    text = (
        f"{clients} clients: in flight 0 after {99 if idle is None else idle:.1f} s, descriptors {before} -> "
        f"{after} (+4), queue empty {drained is not None}, files left in scratch {len(scratch)} (0)"
    )
    return Measured(ok, text)


def vanish(cluster: Cluster, halfway: bool) -> None:
    """Sends a request, or half of one, and hangs up."""
    clip = SAMPLE.read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="media"; filename="a"\r\n\r\n'
    body = head + clip + b"\r\n--b--\r\n"
    request = (
        f"POST /v1/segment/slow HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as line:
        with contextlib.suppress(OSError):
            line.sendall(request + (body[: len(body) // 2] if halfway else body))
        time.sleep(0.01)


def in_flight(cluster: Cluster) -> float:
    """The gauge, less the request that reads it."""
    [value] = [one.value for one in samples(cluster) if one.name == "avs_http_requests_in_flight"]
    return value - 1


def health_under_load(scale: Scale) -> Measured:
    """Eight clients with uploads as fast as they can; health and metrics asked twenty times a second."""
    seconds = max(5.0, 30 * scale.factor)
    with shared_lab() as cluster:
        before, cores = in_time(cluster), Cores(cluster)
        load = Calls(f"{cluster.url}/v1/segment/pixels", clip=str(SAMPLE), clients=8, niceness=LOW)
        with (
            asking(load) as clips,
            asking(Calls(f"{cluster.url}/healthz", rate=20)) as health,
            asking(Calls(f"{cluster.url}/metrics", rate=20)) as metrics,
        ):
            time.sleep(START + seconds)
        share = cores.since(len(clips) + len(health) + len(metrics))
        own = in_time(cluster) - before
    served = Counter(one.status for one in clips)
    times = [[one.seconds for one in asked] for asked in (health, metrics)]
    p50, p99 = ([quantile(taken, part) * 1000 for taken in times] for part in (0.5, 0.99))
    text = (
        f"{dict(served)} clips in {seconds:.0f} s; /healthz p50 {p50[0]:.0f}, p99 {p99[0]:.0f} ms, /metrics "
        f"p50 {p50[1]:.0f}, p99 {p99[1]:.0f} ms (< 50) for a client; by the API's own clock "
        f"{own['fast'] / own['all']:.1%} of {own['all']:.0f} in < 50 ms ({share})"
    )
    return Measured(max(p99) < 50 and set(served) == {200}, text)


def in_time(cluster: Cluster) -> Counter[str]:
    """Calls of /healthz and /metrics so far, and those below 50 ms, by the API's own histogram."""
    counts: Counter[str] = Counter()
    for sample in samples(cluster):
        if sample.labels.get("route") in {"/healthz", "/metrics"}:
            if sample.name == "avs_http_request_seconds_count":
                counts["all"] += round(sample.value)
            if sample.name == "avs_http_request_seconds_bucket" and sample.labels["le"] == "0.05":
                counts["fast"] += round(sample.value)
    return counts


def samples(cluster: Cluster) -> list[Sample]:
    """What the API's /metrics says."""
    families = text_string_to_metric_families(cluster.http.get("/metrics", timeout=10).text)
    return [sample for family in families for sample in family.samples]


def slow_reader(scale: Scale) -> Measured:
    """Four clients read nothing of a long result, and of an event stream; a fifth is timed."""
    with shared_lab() as cluster, cluster.client() as client:
        clip = upload(client)
        long = order(client, clip, "free", fps=25).wait()
        running = order(client, clip, "sleep", fps=25)

        def timed() -> float:
            began = time.monotonic()
            order(client, clip, "free").wait()
            return time.monotonic() - began

        alone = statistics.median(timed() for _ in range(20))
        with contextlib.ExitStack() as stack:
            for path in [f"{long.url}/result", f"{running.url}/events"] * 4:
                line = stack.enter_context(socket.create_connection(("127.0.0.1", cluster.port)))
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                line.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            beside = statistics.median(timed() for _ in range(20))
        healthy = ready(cluster)
    ok = beside <= 2 * alone + 0.02 and healthy
    return Measured(
        ok, f"a call takes {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside 8 of them (<= twice)"
    )


PROMISES = [
    Promise("9", "10x capacity: every request answered, refusals in < 50 ms, normal again in 10 s", overload),
    Promise("10", "1,000 clients that vanish: nothing in flight, no descriptor left", vanishing),
    Promise("11a", "health and metrics answer in < 50 ms under full load", health_under_load),
    Promise("11b", "a slow reader of a stream slows nobody else", slow_reader),
]
