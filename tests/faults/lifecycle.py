"""Promises 1 to 8: workers die, sleep and poison each other, Redis goes away, clients repeat and cancel."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast
from uuid import uuid4

import httpx

from service.client import Client, Job
from service.client_errors import Canceled, ClientError, Expired, ServiceFailed
from service.engine import make_broker, send_window
from service.records import Send
from service.settings import Settings
from service.steps import PREFIXES
from tests.cluster import SAMPLE, Cluster, until
from tests.faults.lab import Lab, shared_lab
from tests.faults.promise import Measured, Promise, Scale

# Faults are noticed sooner than in production, so that a run ends; the bounds stay those of the promise.
BRISK = {"lease_seconds": 6, "heartbeat_seconds": 1, "redelivery_seconds": 5, "reconcile_seconds": 1}


@contextlib.contextmanager
def journal() -> Iterator[Path]:
    """A file to which the strategies write what they begin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.touch()
        yield path


def starts(path: Path) -> Counter[int]:
    """How often each window was begun."""
    return Counter(int(line.split()[0]) for line in path.read_text().splitlines())


def upload(client: Client, clip: Path = SAMPLE) -> str:
    return str(client.send("POST", "/v1/uploads", files=[("media", clip)]).json()["upload_id"])


def order(
    client: Client, upload_id: str, strategy: str, headers: dict[str, str] | None = None, **options
) -> Job:
    """A job on a clip that is there already."""
    body = {"upload_id": upload_id, "strategy": strategy, **options}
    return Job(client, client.send("POST", "/v1/jobs", json=body, headers=headers or {}).json())


def lines(job: Job) -> bytes:
    """The result as it is stored: nothing in it depends on when or where it was computed."""
    accept = {"Accept": "application/x-ndjson"}
    return job.client.send("GET", f"{job.url}/result", headers=accept).content


def running(job: Job, frames: int = 1, seconds: float = 60) -> None:
    """Returns when so many frames are done."""
    if until(lambda: job.refresh().progress.frames_done >= frames, seconds) is None:
        raise TimeoutError(f"Job {job.id} has {job.progress} after {seconds:g} s.")


def worker_killed(scale: Scale) -> Measured:
    """A job of 20 windows of 0.8 s on two workers; one is killed with four windows in work."""
    with Lab(workers=2, worker_threads=2) as cluster, cluster.client() as client, journal() as path:
        clip = upload(client)
        fps = 16 if scale.short else 64
        unbroken = lines(order(client, clip, "slow", fps=fps).wait())
        job = order(client, clip, "slow", fps=fps, journal=str(path))
        running(job, frames=fps)
        cluster.workers[0].kill()
        done, began = job.progress.frames_done, time.monotonic()
        job.wait(timeout=120)
        seconds = time.monotonic() - began
        again = sum(count - 1 for count in starts(path).values())
        same = lines(job) == unbroken
    text = f"finished {seconds:.1f} s after the kill, {again} windows run again (<= 2), same result {same}"
    alone = (5 * fps - done) * 0.05 / 2  # what one worker of two threads needs for the rest
    return Measured(same and again <= 2 and seconds <= 45 + alone, text)


def random_kills(scale: Scale) -> Measured:
    """Small jobs on two workers, one of which dies every few seconds and is replaced."""
    jobs, kills = scale.of(2500), scale.of(30, at_least=4)
    options = {"worker_threads": 4, "queue_jobs": jobs + 1, "max_attempts": 10, "sweep_seconds": 2, **BRISK}
    with Lab(workers=2, **options) as cluster, cluster.client() as client:
        clip = upload(client)
        submitted: list[Job] = []
        stop = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=(cluster, kills, submitted, jobs, stop))
        killer.start()
        began = time.monotonic()
        try:
            submitted.extend(order(client, clip, "slow", seconds=0.01) for _ in range(jobs))
            until(lambda: not unfinished(cluster), 600, every=0.5)
        finally:
            stop.set()
            killer.join()
        seconds = time.monotonic() - began
        with ThreadPoolExecutor(4) as readers:
            endings = Counter(readers.map(ending, submitted))
        stored = Counter(path.parent.name for path in blobs(cluster))
        twice = {job.id: job for job in submitted if stored[job.id] > 1}
        for job in twice.values():
            client.send("DELETE", job.url)
        swept = until(lambda: not twice.keys() & {path.parent.name for path in blobs(cluster)}, 30)
        dead = cluster.started - 3
    ok = endings == {("succeeded", 5): jobs} and len(stored) == jobs and swept is not None
    text = (
        f"{jobs} jobs, {dead} kills, {seconds:.0f} s: {dict(endings)} by status and frames, {len(stored)} "
        f"with a result; {len(twice)} with a file more, of a worker killed before its commit, gone with the "
        f"job: {swept is not None}"
    )
    return Measured(ok, text)


def ending(job: Job) -> tuple[str, int]:
    """A job's status and how many frames its result has."""
    try:
        return "succeeded", len(lines(job).splitlines())
    except ClientError:
        return job.refresh().status, 0


def blobs(cluster: Cluster) -> list[Path]:
    """The stored results of windows, committed or not."""
    return found(cluster.folder / "storage" / "windows")


def unfinished(cluster: Cluster) -> int:
    """Jobs that are queued or running."""
    with cluster.redis() as client:
        return cast(int, client.zcard(PREFIXES["ACTIVE"]))


def kill_now_and_then(
    cluster: Cluster, kills: int, submitted: list[Job], jobs: int, stop: threading.Event
) -> None:
    """Spreads the kills over the submissions."""
    for number in range(kills):
        while len(submitted) < jobs * number / kills and not stop.is_set():
            time.sleep(0.01)
        if stop.wait(random.uniform(0.2, 1.0)):
            return
        victim = random.randrange(len(cluster.workers))
        cluster.workers.pop(victim).kill()
        cluster.add_worker()


def message_again(scale: Scale) -> Measured:
    """A worker killed between commit and acknowledgement leaves just this: a message for what is done."""
    with shared_lab() as cluster, cluster.client() as client, journal() as path:
        job = order(client, upload(client), "free", journal=str(path)).wait()
        before = lines(job)
        settings = Settings(redis_url=cluster.redis_server.url)
        broker = make_broker(settings)
        for _ in range(20):
            send_window(broker, Send(job.id, 0, interactive=True))
        broker.close()
        order(client, upload(client), "free").wait()  # behind them in the same queue
        computed, same = starts(path)[0], lines(job) == before
    return Measured(
        computed == 1 and same, f"computed {computed} times (1) after 20 messages more, same {same}"
    )


def stopped_and_continued(scale: Scale) -> Measured:
    """SIGSTOP while windows are in work; they run elsewhere; SIGCONT lets the old worker try to commit."""
    asleep = 15 if scale.short else 60
    with Lab(worker_threads=1, **BRISK) as cluster, cluster.client() as client, journal() as path:
        job = order(client, upload(client), "slow", journal=str(path), fps=16)
        until(lambda: starts(path), 30)
        sleeper = cluster.workers[0]
        sleeper.send_signal(signal.SIGSTOP)
        cluster.add_worker()
        job.wait(timeout=asleep + 30)
        before, first = lines(job), job.record
        time.sleep(max(0.0, asleep - 15))
        sleeper.send_signal(signal.SIGCONT)
        time.sleep(5)
        same = lines(job) == before and job.refresh().record == first
        alive = sleeper.poll() is None
        stored = len(blobs(cluster))
        again = sum(count - 1 for count in starts(path).values())
    text = (
        f"{again} windows ran twice (>= 1), nothing changed {same}, {stored} results stored (5), "
        f"alive {alive}"
    )
    return Measured(same and alive and again >= 1 and stored == 5, text)


def poison(scale: Scale) -> Measured:
    """A clip that kills its worker among eight that do not; a supervisor starts dead workers again."""
    options = {"worker_threads": 4, "max_attempts": 3, **BRISK}
    with Lab(workers=2, **options) as cluster, cluster.client() as client, supervised(cluster):
        clip = upload(client)
        neighbours = [order(client, clip, "slow", fps=10) for _ in range(4)]
        bad = order(client, clip, "poison")
        neighbours += [order(client, clip, "slow", fps=10) for _ in range(4)]
        try:
            bad.wait(timeout=120)
            code = "none"
        except ServiceFailed as error:
            code = error.code
        attempts = bad.record["attempt"]
        statuses = Counter(outcome(job) for job in neighbours)
    ok = code == "worker_lost" and attempts == 3 and statuses == {"succeeded": 8}
    return Measured(ok, f"failed as {code} after {attempts} attempts (3), neighbours {dict(statuses)}")


def outcome(job: Job) -> str:
    """The final status."""
    with contextlib.suppress(ClientError):
        job.wait(timeout=120)
    return job.status


@contextlib.contextmanager
def supervised(cluster: Cluster) -> Iterator[None]:
    """Dead workers are replaced, as a container engine does."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            for worker in [one for one in cluster.workers if one.poll() is not None]:
                cluster.workers.remove(worker)
                cluster.add_worker()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def redis_restarted(scale: Scale) -> Measured:
    """Jobs before, Redis away, jobs after."""
    down = 3.0
    with Lab(worker_threads=4, **BRISK) as cluster, cluster.client() as client:
        clip = upload(client)
        accepted = [order(client, clip, "slow") for _ in range(scale.of(100, at_least=20))]
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
        job = order(client, upload(client), "slow", fps=32, journal=str(path))
        running(job, frames=16)
        code, seconds = ended(cluster.workers[0])
        job.wait(timeout=60)
        again = sum(count - 1 for count in starts(path).values())
        api = cluster.api
        assert api is not None
        waiting = ThreadPoolExecutor(1).submit(client.segment, SAMPLE, "slow", fps=8)
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


def ready(cluster: Cluster) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return cluster.http.get("/readyz", timeout=5).is_success
    return False


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
        busy = order(client, clip, "slow", fps=25)
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


def found(folder: Path) -> list[Path]:
    """All files below a folder from which others vanish meanwhile."""
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


PROMISES = [
    Promise(
        "1a",
        "kill -9 in a long job: windows in flight run again, committed ones never, same result",
        worker_killed,
    ),
    Promise("1b", "2,500 jobs under 30 random kills: none lost, each result written once", random_kills),
    Promise("1c", "killed after the commit, before the ack: same result, computed once", message_again),
    Promise("2", "SIGSTOP, then SIGCONT: late writes are refused", stopped_and_continued, patient=True),
    Promise("3", "a poison clip fails after 3 attempts; its neighbours succeed", poison),
    Promise("4", "Redis restarted: no accepted job lost, 503 in under 1 s, back in 10 s", redis_restarted),
    Promise("5", "SIGTERM: not ready, windows handed back, exit 0 within 30 s", sigterm),
    Promise("6", "100 equal POSTs with one Idempotency-Key at once: 1 job", one_key),
    Promise(
        "7", "cancel: queued <= 100 ms, running <= 2 s; a deadline passed in the queue is never run", canceled
    ),
    Promise("8", "results and uploads vanish within 60 s of expiry; no orphan file or key", expiry),
]
