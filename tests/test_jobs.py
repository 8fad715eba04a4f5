"""The job record on a real Redis: each step is atomic, happens once, and leaves nothing behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis

from models.media import WindowPlan
from service.clips import Clip, ClipStore
from service.fleet import Fleet
from service.jobs import JobStore
from service.records import (
    ClipGone,
    Commit,
    Go,
    Idempotency,
    IdempotencyMismatch,
    Job,
    JobStatus,
    Lease,
    QueueFull,
    QuotaExceeded,
    Send,
    Skip,
)
from service.settings import Settings
from service.steps import CHANGED, STOPPED

PLAN = [WindowPlan(0, (0.0,))]


@pytest.fixture
def store(client: redis.Redis, settings: Settings) -> JobStore:
    return JobStore(client, settings)


@pytest.fixture
def clips(client: redis.Redis) -> ClipStore:
    return ClipStore(client)


def other(store: JobStore, **changes: Any) -> JobStore:
    """A store of the same Redis under other settings."""
    return JobStore(store.redis, store.settings.model_copy(update=changes))


def new_clip(store: JobStore, tenant: str = "anna", **fields: Any) -> Clip:
    clip = Clip(id=uuid4().hex, tenant=tenant, video="uploads/x/media", expires_at=time.time() + 60, **fields)
    ClipStore(store.redis).put(clip)
    return clip


def new_job(store: JobStore, tenant: str = "anna", **fields: Any) -> Job:
    values = {"strategy": "sleep", "clip": new_clip(store, tenant), "metadata": {"ref": "ä"}, **fields}
    return Job(id=uuid4().hex, tenant=tenant, **values)


def made(store: JobStore, windows: int = 1, **fields: Any) -> Job:
    job = new_job(store, **fields)
    store.create(job, [WindowPlan(w, (float(w), w + 0.5), 2 * w) for w in range(windows)])
    return job


def begun(store: JobStore, job: Job, window: int = 0, alone: bool = False) -> Lease:
    token = uuid4().hex
    go = store.begin_window(job.id, window, token, alone)
    assert isinstance(go, Go), go
    return Lease(job.id, window, token)


def status(store: JobStore, job: Job) -> JobStatus:
    record = store.get(job.id)
    assert record is not None
    return record.status


def lose(store: JobStore, lease: Lease) -> None:
    """Make a window look as if its worker had died a minute ago."""
    store.redis.zadd(f"avs:flight:{lease.job}", {str(lease.window): time.time() - 60})


def keys_of(store: JobStore, job: Job) -> list[str]:
    """What is left of a job in Redis."""
    found = [key for key in store.redis.keys("avs:*") if job.id in key]
    for name in ("active", "queued", "deadlines", "expiry", f"tenant:{job.tenant}"):
        found += [name] if store.redis.zscore(f"avs:{name}", job.id) is not None else []
    return found + ["held"] * store.redis.sismember(f"avs:held:{job.tenant}", job.id)


# Life.


def test_a_job_lives_from_queued_to_succeeded(store: JobStore) -> None:
    job = new_job(store)
    record, created = store.create(job, [WindowPlan(0, (0.0, 0.5)), WindowPlan(1, (1.0,), 2, "avsbench")])
    assert created
    assert record.job == job
    assert (record.status, record.queue_position, record.progress.frames_total) == ("queued", 1, 3)
    assert store.next_windows(job.id) == (Send(job.id, 0, False), Send(job.id, 1, False))
    assert store.next_windows(job.id) == ()

    go = store.begin_window(job.id, 1, "t1")
    assert isinstance(go, Go)
    assert go == Go(job, WindowPlan(1, (1.0,), 2, "avsbench"), 1, "t1", go.waited)
    assert go.waited == pytest.approx(0, abs=1)
    running = store.get(job.id)
    assert running is not None
    assert (running.status, running.queue_position, running.attempt) == ("running", None, 1)

    models = {"sam": {"id": "x", "sha256": "y"}}
    commit = Commit("windows/j/1-t1", 1, {"decode_ms": 1.5}, models, ("no sound",))
    first = store.commit_window(Lease(job.id, 1, "t1"), commit)
    assert first.accepted
    assert not first.finished
    last = store.commit_window(begun(store, job, 0), Commit("windows/j/0-t0", 2, {"decode_ms": 2.0}, models))
    assert last.finished

    done = store.get(job.id)
    assert done is not None
    assert (done.status, done.progress.stage, done.progress.frames_done) == ("succeeded", "done", 3)
    assert done.timing["decode_ms"] == 3.5
    assert done.timing["queue_ms"] >= 0
    assert (done.models, done.warnings, done.error) == (models, ("no sound",), None)
    assert done.finished_at is not None
    assert done.result_expires_at == pytest.approx(done.finished_at + store.settings.result_ttl, abs=0.01)
    assert [(blob.window, blob.key, blob.frames) for blob in store.blobs(job.id)] == [
        (0, "windows/j/0-t0", 2),
        (1, "windows/j/1-t1", 1),
    ]


def test_events_tell_each_step_and_replay_from_anywhere(store: JobStore) -> None:
    job = made(store, windows=2)
    for window in (0, 1):
        store.commit_window(begun(store, job, window), Commit("b", 2))
    events = store.events(job.id)
    assert [(event.kind, event.data["status"], event.data["frames_done"]) for event in events] == [
        ("status", "queued", 0),
        ("status", "running", 0),
        ("progress", "running", 2),
        ("progress", "running", 4),
        ("status", "succeeded", 4),
    ]
    assert [event.data.get("window") for event in events] == [None, None, 0, 1, None]
    assert store.events(job.id, after=events[2].id) == events[3:]


def test_every_change_is_published(store: JobStore) -> None:
    with store.redis.pubsub(ignore_subscribe_messages=True) as channels:
        channels.subscribe(CHANGED, STOPPED)
        channels.get_message(timeout=1), channels.get_message(timeout=1)
        job = made(store)
        store.cancel(job.id)
        heard = [channels.get_message(timeout=1) for _ in range(3)]
    assert [(message["channel"], message["data"]) for message in heard if message] == [
        (CHANGED, f"{job.id} queued"),
        (CHANGED, f"{job.id} canceled"),
        (STOPPED, job.id),
    ]


def test_another_tenant_sees_nothing(store: JobStore) -> None:
    job = made(store)
    assert store.get(job.id, "bert") is None
    assert store.cancel(job.id, "bert") is None
    assert not store.delete(job.id, "bert")
    assert store.page("bert") == ([], None)
    assert status(store, job) == "queued"


def test_the_list_is_newest_first_filtered_and_paged(store: JobStore) -> None:
    jobs = [made(store, strategy=("sleep", "slow")[number % 2]) for number in range(7)]
    newest = [job.id for job in reversed(jobs)]
    page, cursor = store.page("anna", limit=3)
    assert [record.id for record in page] == newest[:3]
    rest, end = store.page("anna", limit=10, cursor=cursor)
    assert [record.id for record in rest] == newest[3:]
    assert end is None
    slow, _ = store.page("anna", strategy="slow")
    assert [record.id for record in slow] == [job.id for job in reversed(jobs[1::2])]
    assert store.page("anna", status=JobStatus.FAILED) == ([], None)


def test_interactive_jobs_stand_first_in_the_queue(store: JobStore) -> None:
    long, short = made(store), made(store, interactive=True)
    positions = [record.queue_position for job in (long, short) if (record := store.get(job.id))]
    assert positions == [2, 1]
    assert store.next_windows(short.id) == (Send(short.id, 0, True),)


# Acceptance.


def test_a_hundred_equal_requests_make_one_job(store: JobStore) -> None:
    key = Idempotency("once", "body")

    def create(_: int) -> tuple[str, bool]:
        record, created = store.create(new_job(store), PLAN, key)
        return record.id, created

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(create, range(100)))
    assert len({job for job, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    with pytest.raises(IdempotencyMismatch):
        store.create(new_job(store), PLAN, Idempotency("once", "another body"))
    assert store.create(new_job(store, "bert"), PLAN, key)[1], "keys are a tenant's own"
    store.delete(answers[0][0])
    assert store.create(new_job(store), PLAN, key)[1], "a deleted job's key is free again"


def test_a_full_queue_and_a_used_share_refuse(store: JobStore) -> None:
    small = other(store, queue_jobs=4, queue_share=0.5)
    jobs = [made(small), made(small)]
    with pytest.raises(QuotaExceeded):
        made(small)
    others = [made(small, tenant="bert"), made(small, tenant="bert")]
    with pytest.raises(QueueFull):
        made(small, tenant="carl")
    small.cancel(jobs[0].id)
    made(small, tenant="carl")
    assert [status(small, job) for job in others] == ["queued", "queued"]


def test_a_clip_that_is_gone_makes_no_job(store: JobStore, clips: ClipStore) -> None:
    job = new_job(store)
    clips.drop(job.clip.id)
    with pytest.raises(ClipGone):
        store.create(job, PLAN)
    assert keys_of(store, job) == []


# The bound of windows in flight.


def test_windows_in_flight_are_bounded_and_refilled_by_commits(store: JobStore) -> None:
    job = made(store, windows=10)
    assert [send.window for send in store.next_windows(job.id)] == [0, 1, 2, 3]
    assert store.next_windows(job.id) == ()
    committed = store.commit_window(begun(store, job, 2), Commit("b", 2))
    assert [send.window for send in committed.send] == [4]


def test_the_bound_grows_with_the_threads_alive(store: JobStore) -> None:
    fleet = Fleet(store.redis)
    statement = {"threads": 4, "state": "ready", "started_at": 1.0}
    fleet.publish({"id": "w1", **statement})
    fleet.publish({"id": "w2", **statement})
    job = made(store, windows=40)
    assert len(store.next_windows(job.id)) == 16
    assert [worker["id"] for worker in fleet.workers()] == ["w1", "w2"]
    fleet.withdraw("w1")
    assert [worker["id"] for worker in fleet.workers()] == ["w2"]


# Starts, leases, late writers.


def test_a_window_is_committed_once_and_by_the_lease_holder_only(store: JobStore) -> None:
    job = made(store, windows=2)
    old = begun(store, job)
    lose(store, old)
    new = begun(store, job, alone=True)
    assert not store.commit_window(old, Commit("late", 2)).accepted
    assert store.commit_window(new, Commit("good", 2)).accepted
    assert not store.commit_window(new, Commit("again", 2)).accepted
    assert [blob.key for blob in store.blobs(job.id)] == ["good"]
    assert store.begin_window(job.id, 0, "t") == Skip("committed")


@pytest.mark.parametrize("ending", ["cancel", "delete", "fail"])
def test_an_ended_job_refuses_late_commits_and_stops_its_windows(store: JobStore, ending: str) -> None:
    job = made(store, windows=2)
    lease = begun(store, job)
    assert store.heartbeat([lease]) == set()
    store.fail(lease, {"code": "x"}) if ending == "fail" else getattr(store, ending)(job.id)
    assert not store.commit_window(lease, Commit("late", 2)).accepted
    assert store.heartbeat([lease]) == {job.id}
    assert isinstance(store.begin_window(job.id, 1, "t"), Skip)
    assert store.next_windows(job.id) == ()


def test_a_step_told_again_because_its_answer_was_lost_happens_once(store: JobStore) -> None:
    job = made(store, windows=2)
    begins = [store.begin_window(job.id, 0, "t") for _ in range(2)]
    assert isinstance(begins[0], Go)
    assert begins[1] == replace(begins[0], waited=None)
    commits = [store.commit_window(Lease(job.id, 0, "t"), Commit("b", 2)) for _ in range(2)]
    assert [commit.accepted for commit in commits] == [True, True]
    last = begun(store, job, 1)
    assert [store.commit_window(last, Commit("c", 2)).finished for _ in range(2)] == [True, True]
    record = store.get(job.id)
    assert record is not None
    assert (record.progress.frames_done, record.attempt) == (4, 1)


def test_only_the_lease_holder_may_fail_the_job(store: JobStore) -> None:
    job = made(store)
    old = begun(store, job)
    lose(store, old)
    new = begun(store, job, alone=True)
    assert not store.fail(old, {"code": "x"})
    assert store.fail(new, {"code": "x"})
    assert status(store, job) == "failed"


def test_a_live_window_is_not_begun_twice(store: JobStore) -> None:
    job = made(store)
    begun(store, job)
    assert store.begin_window(job.id, 0, "t", alone=True) == Skip("running elsewhere")


def test_a_lost_window_is_begun_alone_and_its_third_loss_fails_the_job(store: JobStore) -> None:
    job, neighbour = made(store, windows=2), made(store)
    for start in range(3):
        if start:
            assert store.begin_window(job.id, 0, "t") == Skip("suspect")
        lose(store, begun(store, job, alone=start > 0))
    assert store.begin_window(job.id, 0, "t", alone=True) == Skip("worn out", "sleep")
    record = store.get(job.id)
    assert record is not None
    assert (record.status, record.attempt) == ("failed", 3)
    assert record.error is not None
    assert record.error["code"] == "worker_lost"
    assert isinstance(store.begin_window(neighbour.id, 0, "t"), Go)


def test_a_window_handed_back_does_not_count_as_a_start(store: JobStore) -> None:
    job = made(store, interactive=True)
    lease = begun(store, job)
    assert store.release(lease) == Send(job.id, 0, True)
    assert store.release(lease) is None
    go = store.begin_window(job.id, 0, "t")
    assert isinstance(go, Go)
    assert go.starts == 1


# The reconciler.


def test_only_windows_without_sign_of_life_are_stale(store: JobStore) -> None:
    job = made(store, windows=3)
    store.next_windows(job.id)
    leases = [begun(store, job, window) for window in range(3)]
    assert store.stale() == ()
    lose(store, leases[0])
    lose(store, leases[1])
    store.heartbeat(leases[1:])
    assert store.stale() == (Send(job.id, 0, False),)
    assert store.stale() == (), "one reconciler sends"
    assert not store.commit_window(leases[0], Commit("late", 2)).accepted


def test_a_message_that_waits_is_sent_again_less_and_less_often(store: JobStore) -> None:
    job = made(store)
    store.next_windows(job.id)
    ages = []
    for age in range(25, 400, 10):
        store.redis.zadd(f"avs:flight:{job.id}", {"0": time.time() - age})
        if store.stale():
            ages.append(age)
    assert ages == [35, 65, 125, 245]


def test_a_job_whose_creator_died_is_sent(store: JobStore) -> None:
    job = made(store, windows=2)
    assert store.stale() == (), "its creator may be about to send"
    store.redis.zadd("avs:active", {job.id: time.time() - 5})
    assert [send.window for send in store.stale()] == [0, 1]


# Ends.


def test_cancel_is_idempotent_and_spares_what_is_done(store: JobStore) -> None:
    job, done = made(store), made(store)
    store.commit_window(begun(store, done), Commit("b", 2))
    for _ in range(2):
        record = store.cancel(job.id, "anna")
        assert record is not None
        assert record.status == "canceled"
    assert store.cancel(done.id) == store.get(done.id)
    assert status(store, done) == "succeeded"
    assert store.cancel("nobody") is None


def test_a_deadline_passed_in_the_queue_expires_the_job(store: JobStore) -> None:
    early, late, running = (made(store, deadline=time.time() + 0.1) for _ in range(3))
    begun(store, running)
    patient = made(store, deadline=time.time() + 60)
    time.sleep(0.15)
    assert store.begin_window(early.id, 0, "t") == Skip("late")
    assert store.expire() == []
    assert [status(store, job) for job in (early, late, running, patient)] == [
        "expired",
        "expired",
        "running",
        "queued",
    ]


def test_delete_leaves_nothing_and_takes_its_own_clip_along(store: JobStore, clips: ClipStore) -> None:
    shared = new_clip(store)
    jobs = [made(store, clip=new_clip(store, owned=True)), made(store, clip=shared), made(store, clip=shared)]
    for job in jobs:
        store.next_windows(job.id)
    store.commit_window(begun(store, jobs[0]), Commit("b", 2))
    begun(store, jobs[1])
    for job in jobs:
        assert store.delete(job.id, "anna")
        assert not store.delete(job.id, "anna")
        assert keys_of(store, job) == []
        assert store.get(job.id) is None
    assert clips.get(jobs[0].clip.id, "anna") is None
    assert clips.get(shared.id, "anna") == shared
    garbage = {f"{kind}/{job.id}/" for job in jobs for kind in ("windows", "renders")}
    assert set(store.redis.zrange("avs:garbage", 0, -1)) == garbage | {f"uploads/{jobs[0].clip.id}/"}


def test_results_are_due_after_their_time_and_not_before(store: JobStore) -> None:
    brief = other(store, result_ttl=0.1)
    job, kept = made(brief), made(store)
    brief.commit_window(begun(brief, job), Commit("b", 2))
    store.commit_window(begun(store, kept), Commit("b", 2))
    assert store.expire() == []
    time.sleep(0.15)
    assert store.expire() == [job.id]


def test_a_clip_lives_while_a_job_needs_it(store: JobStore, clips: ClipStore) -> None:
    job = made(store)
    idle = new_clip(store)
    for clip in (job.clip, idle):
        clips.put(replace(clip, expires_at=time.time() - 1))
    assert clips.get(idle.id, "anna") is None
    assert not clips.drop(job.clip.id)
    assert clips.expire() == [idle.id]
    store.delete(job.id)
    assert clips.expire() == [job.clip.id]
    assert store.redis.keys("avs:clip*") == []


def test_every_key_of_a_job_ends_by_itself(store: JobStore) -> None:
    job = made(store, windows=3)
    store.next_windows(job.id)
    begun(store, job)
    for key in store.redis.keys("avs:*"):
        if job.id in key or job.clip.id in key or "tenant:" in key or "held:" in key:
            assert store.redis.ttl(key) > 0, key


def test_stats_count_what_waits_and_what_ended(store: JobStore) -> None:
    waiting, running = made(store), made(store)
    begun(store, running)
    store.cancel(made(store).id)
    store.redis.zadd("avs:active", {waiting.id: time.time() - 10})
    stats = store.stats()
    assert (stats["queued"], stats["active"], stats["finished_canceled"]) == (1, 2, 1)
    assert 9 < stats["oldest_seconds"] < 12
