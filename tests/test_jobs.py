"""The job record on a real Redis: each step is atomic, happens once, and leaves nothing behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.media import WindowPlan
from service.clips import ClipStore
from service.jobs import JobStore
from service.records import (
    ClipGone,
    Commit,
    Go,
    Idempotency,
    IdempotencyMismatch,
    JobStatus,
    Lease,
    QueueFull,
    QuotaExceeded,
    Send,
    Skip,
)
from service.steps import CHANGED, STOPPED
from tests.job_makers import begun, keys_of, made, new_clip, new_job, other, status

PLAN = [WindowPlan(0, (0.0,))]


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
    early, late, running = (made(store, deadline=time.time() + 0.5) for _ in range(3))
    begun(store, running)
    patient = made(store, deadline=time.time() + 60)
    time.sleep(0.55)
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
    brief = other(store, result_ttl=0.5)
    job, kept = made(brief), made(store)
    brief.commit_window(begun(brief, job), Commit("b", 2))
    store.commit_window(begun(store, kept), Commit("b", 2))
    assert store.expire() == []
    time.sleep(0.55)
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
