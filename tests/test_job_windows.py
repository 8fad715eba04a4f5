"""The windows of a job on a real Redis: how many fly, who may commit, which are sent again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from models.media import WindowPlan
from service.fleet import Fleet
from service.jobs import JobStore
from service.records import (
    Commit,
    Go,
    Lease,
    Send,
    Skip,
)
from tests.job_makers import begun, lose, made, status

PLAN = [WindowPlan(0, (0.0,))]


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


def test_a_worker_whose_clock_is_late_is_alive(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, clock = Fleet(store.redis), time.time
    statement = {"threads": 4, "state": "ready", "started_at": 1.0}
    monkeypatch.setattr(time, "time", lambda: clock() - 60)
    fleet.publish({"id": "late", **statement})
    monkeypatch.undo()
    assert fleet.publish({"id": "right", **statement}) == 0, "nobody has gone silent"
    assert [worker["id"] for worker in fleet.workers()] == ["late", "right"]
    assert len(store.next_windows(made(store, windows=40).id)) == 16


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
