"""Promises 9 to 11: more than can be done, clients that vanish, readers that dawdle."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil

from tests.cluster import SAMPLE, Cluster, until
from tests.faults.clock import Clock, quantile
from tests.faults.lab import Lab
from tests.faults.lifecycle import order, ready, unfinished, upload
from tests.faults.promise import Measured, Promise, Scale


def overload(scale: Scale) -> Measured:
    """Capacity is 20 clips a second (2 threads, 0.1 s a clip); 200 a second come, by an upload's id."""
    seconds = max(6.0, 60 * scale.factor)
    with Lab(worker_threads=2, queue_jobs=16) as cluster, cluster.client() as client:
        body = {"upload_id": upload(client), "seconds": 0.02}
        answers: list[tuple[int, float, bool]] = []

        crowded = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        line = httpx.Client(base_url=cluster.url, headers={"Prefer": "wait=60"}, timeout=90, limits=crowded)

        def call(_: int) -> None:
            began = time.monotonic()
            got = line.post("/v1/segment/slow", json=body)
            complete = got.status_code != 200 or len(got.json()["frames"]) == 5
            polite = got.status_code == 200 or "Retry-After" in got.headers
            answers.append((got.status_code, time.monotonic() - began, complete and polite))

        calls = round(200 * seconds)
        with line, ThreadPoolExecutor(64) as crowd:
            began = time.monotonic()
            futures = []
            for number in range(calls):
                time.sleep(max(0.0, began + number / 200 - time.monotonic()))
                futures.append(crowd.submit(call, number))
            for future in futures:
                future.result()
        normal = until(lambda: quick(cluster, body), 30, every=0.1)
    codes = Counter(code for code, _, _ in answers)
    refusals = [taken for code, taken, _ in answers if code != 200]
    slowest = quantile(refusals, 0.99)
    fine = all(good for _, _, good in answers) and set(codes) <= {200, 429, 503}
    ok = fine and len(answers) == calls and slowest < 0.05 and normal is not None and normal < 10
    text = (
        f"{calls} calls: {dict(codes)}, refused in p50 {quantile(refusals, 0.5) * 1000:.0f} ms, p99 "
        f"{slowest * 1000:.0f} ms (< 50), all complete or with Retry-After {fine}, normal after "
        f"{normal or 99:.1f} s (< 10)"
    )
    return Measured(ok, text)


def quick(cluster: Cluster, body: dict[str, object]) -> bool:
    """A call is served in twice the time it takes alone."""
    began = time.monotonic()
    got = httpx.post(f"{cluster.url}/v1/segment/slow", json=body, timeout=30)
    return got.status_code == 200 and time.monotonic() - began < 0.5


def vanishing(scale: Scale) -> Measured:
    """Half of the clients hang up in the middle of their upload, half while they wait for the answer."""
    clients = scale.of(1000)
    with Lab(worker_threads=4, queue_jobs=2000) as cluster:
        httpx.get(f"{cluster.url}/v1/strategies").raise_for_status()
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
    text = httpx.get(f"{cluster.url}/metrics", timeout=10).text
    [value] = [
        line.split()[1] for line in text.splitlines() if line.startswith("avs_http_requests_in_flight ")
    ]
    return float(value) - 1


def health_under_load(scale: Scale) -> Measured:
    """Eight clients with uploads as fast as they can; health and metrics asked twenty times a second."""
    seconds = max(5.0, 30 * scale.factor)
    with Lab(worker_threads=2) as cluster, cluster.client() as client:
        clocks = [Clock(f"{cluster.url}/healthz"), Clock(f"{cluster.url}/metrics")]
        until_when = time.monotonic() + seconds

        def load(_: int) -> int:
            calls = 0
            while time.monotonic() < until_when:
                client.segment(SAMPLE, "pixels")
                calls += 1
            return calls

        with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as crowd:
            for clock in clocks:
                stack.enter_context(clock.running())
            calls = sum(crowd.map(load, range(8)))
    p99 = [clock.quantile(0.99) * 1000 for clock in clocks]
    text = (
        f"{calls} clips in {seconds:.0f} s; p50 {clocks[0].quantile(0.5) * 1000:.0f} and "
        f"{clocks[1].quantile(0.5) * 1000:.0f} ms, p99 {p99[0]:.0f} and {p99[1]:.0f} ms (< 50)"
    )
    return Measured(max(p99) < 50, text)


def slow_reader(scale: Scale) -> Measured:
    """Four clients read nothing of a long result, and of an event stream; a fifth is timed."""
    with Lab(worker_threads=2) as cluster, cluster.client() as client:
        clip = upload(client)
        long = order(client, clip, "free", fps=25).wait()
        running = order(client, clip, "slow", fps=25)

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
