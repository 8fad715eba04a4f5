"""Promises 1 to 3: workers die, sleep and poison each other."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.client import Job
from service.client_errors import ClientError, ServiceFailed
from service.engine import make_broker, send_window
from service.records import Send
from service.settings import Settings
from tests.cluster import Cluster, until
from tests.faults.lab import Lab, shared_lab
from tests.faults.orders import (
    BRISK,
    found,
    journal,
    lines,
    order,
    outcome,
    running,
    starts,
    unfinished,
    upload,
)
from tests.faults.promise import Measured, Promise, Scale


def worker_killed(scale: Scale) -> Measured:
    """A job of 20 windows of 0.8 s on two workers; one is killed with four windows in work."""
    with Lab(workers=2, worker_threads=2) as cluster, cluster.client() as client, journal() as path:
        clip = upload(client)
        fps = 16 if scale.short else 64
        unbroken = lines(order(client, clip, "sleep", fps=fps).wait())
        job = order(client, clip, "sleep", fps=fps, journal=str(path))
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
            submitted.extend(order(client, clip, "sleep", seconds=0.01) for _ in range(jobs))
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
        job = order(client, upload(client), "sleep", journal=str(path), fps=16)
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
        neighbours = [order(client, clip, "sleep", fps=10) for _ in range(4)]
        bad = order(client, clip, "poison")
        neighbours += [order(client, clip, "sleep", fps=10) for _ in range(4)]
        try:
            bad.wait(timeout=120)
            code = "none"
        except ServiceFailed as error:
            code = error.code
        attempts = bad.record["attempt"]
        statuses = Counter(outcome(job) for job in neighbours)
    ok = code == "worker_lost" and attempts == 3 and statuses == {"succeeded": 8}
    return Measured(ok, f"failed as {code} after {attempts} attempts (3), neighbours {dict(statuses)}")


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
]
