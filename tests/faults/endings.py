"""Promises 4 to 8: Redis goes away, processes end, clients repeat and cancel, results expire."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from service.client import Client, Job
from service.client_errors import Canceled, Expired
from service.steps import PREFIXES
from tests.cluster import SAMPLE, Cluster, until
from tests.faults.lab import Lab, shared_lab
from tests.faults.orders import (
    BRISK,
    found,
    journal,
    order,
    outcome,
    ready,
    running,
    starts,
    unfinished,
    upload,
)
from tests.faults.promise import Measured, Promise, Scale


def redis_restarted(scale: Scale) -> Measured:
    """Jobs before, Redis away, jobs after."""
    down = 3.0
    with Lab(worker_threads=4, **BRISK) as cluster, cluster.client() as client:
        clip = upload(client)
        accepted = [order(client, clip, "sleep") for _ in range(scale.of(100, at_least=20))]
        restart = threading.Thread(target=cluster.restart_redis, args=(down,))
        restart.start()
        time.sleep(0.5)
        answers = []
        while restart.is_alive() and len(answers) < 20:
            began = time.monotonic()
            status = cluster.http.get(f"/v1/jobs/{accepted[0].id}", timeout=10).status_code
            answers.append((status, time.monotonic() - began))
            time.sleep(0.05)
        restart.join()
        back = until(lambda: cluster.http.get("/readyz", timeout=10).is_success, 30)
        statuses = Counter(outcome(job) for job in accepted)
    slowest = max(seconds for status, seconds in answers if status == 503)
    codes = {status for status, _ in answers[:-1]}
    ok = (
        statuses == {"succeeded": len(accepted)}
        and codes == {503}
        and slowest < 1
        and back is not None
        and back < 10
    )
    text = (
        f"answers {codes} in {slowest:.2f} s (503, < 1), back in {back or 99:.1f} s (< 10), {dict(statuses)}"
    )
    return Measured(ok, text)


def sigterm(scale: Scale) -> Measured:
    """A worker with windows in work is asked to end; then the API."""
    with Lab(workers=2, worker_threads=2) as cluster, cluster.client() as client, journal() as path:
        job = order(client, upload(client), "sleep", fps=32, journal=str(path))
        running(job, frames=16)
        code, seconds = ended(cluster.workers[0])
        job.wait(timeout=60)
        again = sum(count - 1 for count in starts(path).values())
        api = cluster.api
        assert api is not None
        waiting = ThreadPoolExecutor(1).submit(client.segment, SAMPLE, "sleep", fps=8)
        time.sleep(0.3)
        began = time.monotonic()
        api.terminate()
        unready = until(lambda: not ready(cluster), 5, every=0.005)
        api_code = api.wait(30)
        api_seconds = time.monotonic() - began
        cluster.start_api()
        until(lambda: ready(cluster), 30)
        frames = len(waiting.result(30).frames)
    ok = (
        (code, api_code) == (0, 0)
        and seconds <= 30
        and api_seconds <= 30
        and again == 0
        and unready is not None
    )
    text = (
        f"worker: exit {code} in {seconds:.1f} s (0, <= 30), {again} windows again (0); API: "
        f"unready in {unready or 99:.2f} s, exit {api_code} in {api_seconds:.1f} s, got {frames} frames (40)"
    )
    return Measured(ok and frames == 40, text)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Exit code and seconds after SIGTERM."""
    began = time.monotonic()
    process.terminate()
    return process.wait(60), time.monotonic() - began


def one_key(scale: Scale) -> Measured:
    """100 equal requests with the same key at once, each with the clip."""
    posts = 100
    with shared_lab() as cluster, cluster.client() as client, ThreadPoolExecutor(posts) as crowd:
        key = {"Idempotency-Key": uuid4().hex}
        gate, before = threading.Barrier(posts), newest(client)

        def post(_: int) -> tuple[int, str]:
            gate.wait()
            files = {"media": SAMPLE.read_bytes()}
            data = {"strategy": "free"}
            answer = cluster.http.post("/v1/jobs", files=files, data=data, headers=key, timeout=60)
            return answer.status_code, answer.json().get("id", "")

        answers = list(crowd.map(post, range(posts)))
        listed = len(newest(client) - before)
    codes = Counter(code for code, _ in answers)
    jobs = len({job for _, job in answers})
    ok = jobs == listed == 1 and set(codes) <= {200, 201, 202}
    return Measured(ok, f"{posts} answers {dict(codes)}, {jobs} job (1), {listed} more in the list (1)")


def newest(client: Client) -> set[str]:
    """The ids of the last jobs."""
    return {job["id"] for job in client.send("GET", "/v1/jobs?limit=100").json()["data"]}


def canceled(scale: Scale) -> Measured:
    """Jobs canceled while they wait and while they run, and one whose deadline passes in the queue."""
    with Lab(worker_threads=1) as cluster, cluster.client() as client, journal() as path:
        clip = upload(client)
        busy = order(client, clip, "sleep", fps=25)
        running(busy)
        queued = [order(client, clip, "free", journal=str(path)) for _ in range(5)]
        late = order(client, clip, "free", deadline=0.5, journal=str(path))
        waits = [cancel_seconds(job) for job in queued]
        time.sleep(1)
        began = time.monotonic()
        busy.cancel()
        order(client, clip, "free").wait(timeout=30)  # the only thread is free again
        freed = time.monotonic() - began
        statuses = Counter(outcome(job) for job in [busy, *queued])
        expired = outcome(late)
        with contextlib.suppress(Expired, Canceled):
            late.wait()
        never = starts(path).total()
    ok = (
        max(waits) <= 0.1
        and freed <= 2
        and statuses == {"canceled": 6}
        and expired == "expired"
        and never == 0
    )
    text = (
        f"queued: {max(waits) * 1000:.0f} ms (<= 100), running: {freed:.2f} s (<= 2), "
        f"deadline passed: {expired}, windows run of those: {never} (0)"
    )
    return Measured(ok, text)


def cancel_seconds(job: Job) -> float:
    began = time.monotonic()
    job.client.send("POST", f"{job.url}/cancel")
    status = job.refresh().status
    return time.monotonic() - began if status == "canceled" else 99.0


def expiry(scale: Scale) -> Measured:
    """Jobs and uploads with a life of seconds; then nothing of them may be anywhere."""
    jobs, life = scale.of(1000), 5.0
    options = {"result_ttl": life, "upload_ttl": life, "idempotency_ttl": life, "sweep_seconds": 2}
    with Lab(queue_jobs=jobs + 1, **options) as cluster, cluster.client() as client:
        until(lambda: ready(cluster), 30)
        empty = keys(cluster)

        def submit(first: int) -> None:
            clip = upload(client)
            for number in range(first, min(first + 20, jobs)):
                order(client, clip, "free", headers={"Idempotency-Key": f"key {number}"})

        with ThreadPoolExecutor(4) as crowd:
            list(crowd.map(submit, range(0, jobs, 20)))
        until(lambda: not unfinished(cluster), 120, every=0.2)
        stored = len(files(cluster))
        time.sleep(life)
        # What was deleted is listed for a minute more, lest a late worker write it again.
        lasting = empty | {PREFIXES["GARBAGE"]}
        gone = until(lambda: not files(cluster) and not keys(cluster) - lasting, 90, every=0.5)
        left = len(files(cluster)), sorted(keys(cluster) - lasting)[:5]
    text = (
        f"{jobs} jobs, {stored} files: all gone {99 if gone is None else gone:.0f} s after expiry (<= 60), "
        f"left {left}"
    )
    return Measured(gone is not None and gone <= 60, text)


def keys(cluster: Cluster) -> set[str]:
    """Redis keys, less the one that counts jobs for ever and those that come and go with a worker."""
    lasting = (PREFIXES["COUNTS"], "avs:worker", "avs:mq:")
    with cluster.redis() as client:
        return {key for key in client.scan_iter("avs:*") if not key.startswith(lasting)}


def files(cluster: Cluster) -> list[Path]:
    return found(cluster.folder / "storage")


PROMISES = [
    Promise("4", "Redis restarted: no accepted job lost, 503 in under 1 s, back in 10 s", redis_restarted),
    Promise("5", "SIGTERM: not ready, windows handed back, exit 0 within 30 s", sigterm),
    Promise("6", "100 equal POSTs with one Idempotency-Key at once: 1 job", one_key),
    Promise(
        "7", "cancel: queued <= 100 ms, running <= 2 s; a deadline passed in the queue is never run", canceled
    ),
    Promise("8", "results and uploads vanish within 60 s of expiry; no orphan file or key", expiry),
]
