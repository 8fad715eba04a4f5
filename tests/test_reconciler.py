"""What keeps the record true: windows sent again, files of the forgotten removed, orphans found."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from models.media import WindowPlan
from service.clips import Clip, ClipStore
from service.engine import WINDOWS, make_broker
from service.jobs import JobStore
from service.quarantine import Quarantine
from service.reconciler import GARBAGE_SECONDS, Every, Reconciler, Sweeper
from service.records import Commit, Job, Lease
from service.settings import Settings
from service.steps import MESSAGES, PREFIXES
from service.storage import Storage
from tests.workers import until


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_url, settings.scratch_dir)


@pytest.fixture
def sweeper(store: JobStore, storage: Storage) -> Sweeper:
    return Sweeper(store, ClipStore(store.redis), storage)


def put(storage: Storage, key: str) -> str:
    with storage.open_write(key) as file:
        file.write(b"x")
    return key


def made(store: JobStore, storage: Storage) -> Job:
    """A job with a clip of its own in storage."""
    clip_id = uuid4().hex
    key = put(storage, f"uploads/{clip_id}/media")
    clip = Clip(clip_id, "anna", video=key, owned=True, expires_at=time.time() + 60)
    ClipStore(store.redis).put(clip)
    job = Job(uuid4().hex, "anna", "sleep", clip)
    store.create(job, [WindowPlan(0, (0.0,))])
    return job


def done(store: JobStore, storage: Storage) -> Job:
    job = made(store, storage)
    store.begin_window(job.id, 0, "t")
    store.commit_window(Lease(job.id, 0, "t"), Commit(put(storage, f"windows/{job.id}/0-t"), 1))
    return job


def files(storage: Storage) -> list[Path]:
    assert storage.folder is not None
    return [path for path in storage.folder.rglob("*") if path.name != "partial"]


def test_results_and_uploads_vanish_without_a_trace(
    client: redis.Redis, settings: Settings, storage: Storage
) -> None:
    store = JobStore(client, settings.model_copy(update={"result_ttl": 0.05}))
    sweeper = Sweeper(
        JobStore(client, settings.model_copy(update={"result_ttl": 60})), ClipStore(client), storage
    )
    jobs = [done(store, storage) for _ in range(50)]
    for job in jobs:
        put(storage, f"renders/{job.id}/overlay.mp4")
    kept = done(JobStore(client, settings), storage)
    time.sleep(0.1)
    sweeper()
    left = {str(path) for path in files(storage) if path.is_file()}
    assert left == {
        str(storage.local_copy(key)) for key in (kept.clip.video, f"windows/{kept.id}/0-t") if key
    }
    empty = [path for path in files(storage) if path.is_dir() and path.parent.name in {"windows", "uploads"}]
    assert {path.name for path in empty} == {kept.id, kept.clip.id}
    assert set(client.keys("avs:job:*")) == {f"avs:job:{kept.id}"}
    assert all(store.expired(job.id, "anna") for job in jobs)
    assert not store.expired(jobs[0].id, "bert")
    tombstones = {PREFIXES["GONE"] + job.id for job in jobs}
    assert {key for key in client.scan_iter("*") if any(job.id in key for job in jobs)} == tombstones
    assert all(0 < client.pttl(key) <= 60_000 for key in tombstones), "and they end by themselves"


def test_a_late_writers_file_goes_too(store: JobStore, storage: Storage, sweeper: Sweeper) -> None:
    job = done(store, storage)
    store.delete(job.id)
    sweeper()
    late = put(storage, f"windows/{job.id}/0-late")  # and its writer dies before it learns that it lost
    sweeper()
    assert not storage.exists(late)
    for prefix in store.redis.zrange("avs:garbage", 0, -1):
        store.redis.zadd("avs:garbage", {prefix: time.time() - GARBAGE_SECONDS - 1})
    sweeper()
    assert store.redis.zcard("avs:garbage") == 0


def test_files_without_a_record_are_found_once_they_are_old(
    store: JobStore, storage: Storage, sweeper: Sweeper
) -> None:
    job = done(store, storage)
    keys = [put(storage, f"{kind}/{uuid4().hex}/x") for kind in ("windows", "uploads", "renders")]
    sweeper.adopt_orphans(60)
    sweeper.collect()
    assert all(storage.exists(key) for key in keys), "somebody may be about to write the record"
    for path in files(storage):
        if path.is_file():
            os.utime(path, (time.time() - 100,) * 2)
    sweeper.adopt_orphans(60)
    sweeper.collect()
    assert not any(storage.exists(key) for key in keys)
    assert storage.exists(f"windows/{job.id}/0-t")
    assert job.clip.video is not None
    assert storage.exists(job.clip.video)


def test_a_strangers_file_stops_no_sweeper(storage: Storage, sweeper: Sweeper) -> None:
    assert storage.folder is not None
    stranger = storage.folder / "windows" / ".DS_Store"
    stranger.parent.mkdir()
    stranger.touch()
    os.utime(stranger, (0, 0))
    sweeper.adopt_orphans(60)
    sweeper.collect()
    assert stranger.exists()


def test_lost_windows_are_sent_again_and_late_jobs_ended(
    store: JobStore, storage: Storage, settings: Settings
) -> None:
    broker = make_broker(settings)
    job = made(store, storage)
    store.next_windows(job.id)  # and whoever asked died before it sent
    reconcile = Reconciler(store, broker)
    reconcile()
    assert store.redis.llen(f"{MESSAGES}:{WINDOWS}") == 0
    store.redis.zadd(f"avs:flight:{job.id}", {"0": time.time() - settings.lease_seconds - 1})
    reconcile()
    assert store.redis.llen(f"{MESSAGES}:{WINDOWS}") == 1
    broker.client.close()


@pytest.mark.parametrize("failure", [redis.ConnectionError("away"), OSError("full"), KeyError("ours")])
def test_a_step_that_fails_is_tried_again(failure: Exception) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise failure

    every = Every("test", 0.01, step)
    every.start()
    assert until(lambda: len(calls) >= 4, 5)
    every.stop()
    stopped = len(calls)
    time.sleep(0.05)
    assert len(calls) == stopped


def test_a_step_that_takes_long_does_not_hold_up_the_end() -> None:
    begun, end = threading.Event(), threading.Event()
    every = Every("test", 0.01, lambda: (begun.set(), end.wait(30)))
    every.start()
    assert begun.wait(10)
    began = time.monotonic()
    every.stop(0.1)
    assert time.monotonic() - began < 5
    end.set()
    every.join()


def test_quarantine_lets_many_in_together_and_one_alone() -> None:
    quarantine, inside, worst = Quarantine(), [0, 0], [0]
    lock = threading.Lock()

    def enter(alone: bool) -> None:
        with quarantine.alone() if alone else quarantine.together():
            with lock:
                inside[alone] += 1
                worst[0] = max(worst[0], inside[0])
                assert not (inside[1] and sum(inside) > 1)
            time.sleep(0.005)
            with lock:
                inside[alone] -= 1

    failures: list[BaseException] = []

    def guarded(alone: bool) -> None:
        try:
            enter(alone)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number % 4 == 0,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert worst[0] > 1
    assert not any(thread.is_alive() for thread in threads)
