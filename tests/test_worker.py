"""Real workers on a real Redis: killed, stopped, poisoned, drained; the record and the result stay right."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.clips import ClipStore
from service.reconciler import Sweeper
from service.records import JobStatus
from service.steps import PREFIXES
from service.window_runner import PATIENCE_SECONDS, TIMING
from tests.cluster import free_port
from tests.workers import HASTY, Workers, until


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two workers that stay alive, for everything that kills none."""
    with Workers(2, worker_threads=2, **HASTY) as workers:
        yield workers


def test_a_short_and_a_long_job_end_with_every_frame_in_order(workers: Workers) -> None:
    short, long = workers.submit("full-mask", 5, interactive=True), workers.submit("full-mask", 100)
    for job, frames in ((short, 5), (long, 100)):
        [record] = workers.wait(job)
        assert (record.status, record.progress.frames_done) == ("succeeded", frames)
        lines = [json.loads(line) for line in workers.result(job).splitlines()]
        assert len(lines) == frames
        assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
        assert record.timing["queue_ms"] > 0


def test_the_same_job_twice_gives_the_same_bytes(workers: Workers) -> None:
    jobs = [workers.submit("full-mask", 40) for _ in range(2)]
    workers.wait(*jobs)
    first, second = (workers.result(job) for job in jobs)
    assert first == second


def test_workers_say_what_they_hold(workers: Workers) -> None:
    statements = workers.fleet.workers()
    assert len(statements) == 2
    for statement in statements:
        assert (statement["state"], statement["threads"], statement["device"]) == ("ready", 2, "cpu")
        assert statement["strategies"]["sleep"] == {"ready": True, "reason": None}


@pytest.mark.parametrize("fault", ["crash", "disk"])
def test_a_bug_in_a_strategy_fails_its_job_and_tells_nothing(workers: Workers, fault: str) -> None:
    bad, good = workers.submit(fault), workers.submit("full-mask")
    failed, done = workers.wait(bad, good)
    assert (failed.status, done.status) == ("failed", "succeeded")
    assert failed.error is not None
    assert failed.error["code"] == "strategy_failed"
    assert "secret" not in json.dumps(failed.error)
    assert failed.attempt == 1


def test_a_device_out_of_memory_is_retried_in_halves_then_refused(workers: Workers) -> None:
    fits, too_large = workers.submit("oom", 8), workers.submit("oom", 16)
    done, failed = workers.wait(fits, too_large)
    assert done.status == "succeeded"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["status"]) == ("out_of_device_memory", 507)
    assert workers.wait(workers.submit("full-mask"))[0].status == "succeeded"


def test_a_clip_that_cannot_be_decoded_fails_clearly(workers: Workers) -> None:
    job = workers.submit("sleep", 160)
    key = workers.record(job).job.clip.video
    assert key is not None
    with workers.storage.open_write(key) as file:
        file.write(b"\x00" * 1000)
    [record] = workers.wait(job)
    assert record.error is not None
    assert record.error["status"] in {415, 422}


def test_cancel_stops_a_running_job_within_two_seconds(workers: Workers) -> None:
    job = workers.submit("slow", 320)
    assert until(lambda: workers.record(job).status == "running", 10)
    began = time.monotonic()
    workers.jobs.cancel(job)
    assert workers.record(job).status == "canceled"
    assert time.monotonic() - began < 0.1
    # The threads are free again: a window of `slow` takes 8 s, this job a moment.
    workers.wait(workers.submit("full-mask"), seconds=2)
    assert workers.jobs.blobs(job) == []
    assert until(lambda: not any(job in str(path) for path in workers.files()), 2)


def test_short_work_overtakes_long_work(workers: Workers) -> None:
    long = workers.submit("sleep", 320)
    assert until(lambda: workers.record(long).status == "running", 10)
    began = time.monotonic()
    workers.wait(workers.submit("full-mask", 1, interactive=True))
    assert time.monotonic() - began < 2.0, "one window of the long job takes 0.8 s"
    assert not workers.record(long).status.final
    workers.jobs.cancel(long)


def test_deletion_and_expiry_leave_no_file_and_no_key(workers: Workers) -> None:
    jobs = [workers.submit("full-mask", 20) for _ in range(10)]
    workers.wait(*jobs)
    clips = [workers.record(job).job.clip.id for job in jobs]
    for job, clip in zip(jobs, clips, strict=True):
        workers.jobs.delete(job)
        assert workers.clips.drop(clip)
    sweeper = Sweeper(workers.jobs, ClipStore(workers.client), workers.storage)
    sweeper()
    assert [path for path in workers.files() if any(job in str(path) for job in jobs)] == []
    assert [key for key in workers.client.keys("avs:*") if any(one in key for one in [*jobs, *clips])] == []


def test_a_worker_passes_on_what_only_another_has_loaded() -> None:
    with Workers(1, strategies="full-mask", **HASTY) as workers:
        job = workers.submit("sleep", 4)
        [record] = workers.wait(job)
        assert record.error is not None
        assert record.error["code"] == "weights_missing"
        workers.environment["EARSHOT_STRATEGIES"] = "sleep"
        workers.add()
        workers.until_ready(2)
        jobs = [workers.submit(name, 4) for name in ("sleep", "full-mask") * 3]
        assert [record.status for record in workers.wait(*jobs)] == ["succeeded"] * 6


def scraped(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples of a worker's /metrics by name and labels."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples}


def value(port: int, metric: str, **labels: str) -> float:
    """0 where there is no such sample."""
    return scraped(port).get((metric, frozenset(labels.items())), 0.0)


def test_a_result_times_every_stage_and_the_metrics_agree() -> None:
    port = free_port()
    with Workers(1, worker_metrics_port=port, **HASTY) as workers:
        [record] = workers.wait(workers.submit("stages", 40))
        told = {
            name: 1000 * value(port, "avs_stage_seconds_sum", stage=stage, strategy="stages")
            for stage, name in TIMING.items()
        }
        windows = value(port, "avs_stage_seconds_count", stage="detect", strategy="stages")
        frames = value(port, "avs_frames_total", strategy="stages")
        waits = value(port, "avs_queue_seconds_count", strategy="stages")
        [plain] = workers.wait(workers.submit("full-mask", 1))
    assert (windows, frames, waits) == (3, 40, 1)
    assert {name: record.timing[name] for name in told} == pytest.approx(told)
    assert record.timing["queue_ms"] > 0
    assert min(record.timing[name] for name in ("audio_ms", "encoder_ms", "detect_ms", "decoder_ms")) >= 6
    assert plain.timing.keys() == record.timing.keys()
    assert plain.timing["encoder_ms"] == 0


def test_a_worker_counts_what_becomes_of_jobs() -> None:
    port = free_port()
    with Workers(1, worker_metrics_port=port, **HASTY) as workers:
        workers.wait(workers.submit("full-mask"), workers.submit("crash"))
        late = workers.submit("sleep", 16, deadline=time.time() - 1)
        workers.wait(late)
        for status, strategy in (
            ("running", "full-mask"),
            ("succeeded", "full-mask"),
            ("running", "crash"),
            ("failed", "crash"),
            ("expired", "sleep"),
        ):
            assert value(port, "avs_jobs_total", status=status, strategy=strategy) == 1, (status, strategy)
        assert value(port, "avs_worker_restarts_total") == 0
        workers.client.zadd("avs:workers", {"one that is dead": time.time() - 60})
        assert until(lambda: value(port, "avs_worker_restarts_total") == 1, 5)


# Deaths. Times are shortened tenfold or so; the slow tests below use those we ship.


def in_work(workers: Workers, job: str) -> int:
    """Windows that a worker has begun and not committed."""
    fields = list(workers.client.hkeys(PREFIXES["WINDOWS"] + job))
    leased = {field.split(":")[0] for field in fields if field.endswith(":lease")}
    return len(leased - {field.split(":")[0] for field in fields if field.endswith(":blob")})


def test_kill_9_loses_only_what_was_in_work() -> None:
    with Workers(2, worker_threads=1, **HASTY) as workers:
        job = workers.submit("sleep", 96)
        assert until(lambda: workers.record(job).progress.windows_done >= 1, 20)
        assert until(lambda: in_work(workers, job) == 2, 20), (
            "one in each worker, so that the killed one has some"
        )
        committed = {blob.window: blob.key for blob in workers.jobs.blobs(job)}
        workers.processes[0].kill()
        [record] = workers.wait(job, seconds=30)
        assert record.status == "succeeded"
        assert record.attempt == 2
        after = {blob.window: blob.key for blob in workers.jobs.blobs(job)}
        assert committed.items() <= after.items(), "what was committed is not run again"
        unbroken = workers.submit("free", 96)  # the same masks, at no cost
        workers.wait(unbroken)
        assert workers.result(job) == workers.result(unbroken)


def test_a_window_begun_again_is_counted() -> None:
    port = free_port()
    with Workers(1, worker_metrics_port=port, **HASTY) as workers:
        job = workers.submit("sleep", 16)
        assert until(lambda: workers.record(job).status == "running", 20)
        workers.processes[0].kill()
        workers.add()
        [record] = workers.wait(job, seconds=30)
        assert (record.status, record.attempt) == ("succeeded", 2)
        assert value(port, "avs_retries_total", strategy="sleep") == 1


def test_a_storage_that_cannot_be_written_is_waited_for() -> None:
    with Workers(1, **{**HASTY, "lease_seconds": 1, "reconcile_seconds": 0.2}, max_attempts=1) as workers:
        in_the_way = workers.folder / "storage" / "windows"
        in_the_way.write_bytes(b"")
        job = workers.submit("full-mask")
        log = workers.folder / "log"
        assert until(lambda: log.read_text().count("window given up") > 1, 20), "more often than its attempts"
        in_the_way.unlink()
        assert workers.wait(job)[0].status == "succeeded"


def test_a_poison_clip_fails_after_three_workers_and_its_neighbours_live() -> None:
    port = free_port()
    with Workers(1, worker_metrics_port=port, **HASTY) as workers:
        workers.revive()
        neighbours = [workers.submit("sleep", 16) for _ in range(3)]
        poison = workers.submit("poison", 4)
        failed, *others = workers.wait(poison, *neighbours, seconds=90)
        assert failed.status == "failed"
        assert failed.attempt == 3
        assert failed.error is not None
        assert failed.error["code"] == "worker_lost"
        assert [record.status for record in others] == ["succeeded"] * 3
        assert value(port, "avs_dead_letters_total", strategy="poison") == 1
        assert value(port, "avs_jobs_total", status="failed", strategy="poison") == 1


def test_sigterm_finishes_what_is_in_work_and_hands_back_the_rest() -> None:
    with Workers(1, worker_threads=1, **HASTY) as workers:
        job = workers.submit("sleep", 64)
        assert until(lambda: workers.record(job).status == "running", 20)
        began = time.monotonic()
        workers.processes[0].send_signal(signal.SIGTERM)
        assert until(lambda: all(one["state"] != "ready" for one in workers.fleet.workers()), 0.5)
        assert workers.processes[0].wait(30) == 0
        assert time.monotonic() - began < 5
        assert workers.record(job).progress.windows_done >= 1
        assert workers.fleet.workers() == []
        workers.add()
        [record] = workers.wait(job)
        assert (record.status, record.attempt) == ("succeeded", 1), "an orderly stop is no loss"


def test_sigterm_hands_back_a_window_that_takes_too_long() -> None:
    with Workers(1, worker_threads=1, drain_seconds=3.5, **HASTY) as workers:
        job = workers.submit("slow", 10)
        assert until(lambda: workers.record(job).status == "running", 20)
        began = time.monotonic()
        workers.processes[0].send_signal(signal.SIGTERM)
        assert workers.processes[0].wait(30) == 0
        assert time.monotonic() - began < 5
        workers.add()
        [record] = workers.wait(job)
        assert (record.status, record.attempt) == ("succeeded", 1)


@pytest.mark.slow
def test_a_worker_that_wakes_late_changes_nothing() -> None:
    with Workers(1, worker_threads=1, **HASTY) as workers:
        job = workers.submit("sleep", 32)
        assert until(lambda: workers.record(job).status == "running", 20)
        workers.processes[0].send_signal(signal.SIGSTOP)
        workers.add()
        [record] = workers.wait(job, seconds=30)
        blobs, result = workers.jobs.blobs(job), workers.result(job)
        workers.processes[0].send_signal(signal.SIGCONT)
        time.sleep(2)
        assert workers.jobs.blobs(job) == blobs
        assert workers.result(job) == result
        assert workers.record(job) == record
        assert len(workers.files()) == len(blobs), "the loser removed its own"
        # It goes on as a worker like any other.
        workers.processes[1].kill()
        workers.wait(workers.submit("full-mask"), seconds=10)


def test_redis_restarts_under_running_jobs() -> None:
    with Workers(2, worker_threads=2, **HASTY) as workers:
        jobs = [workers.submit("sleep", 64) for _ in range(3)]
        assert until(lambda: workers.record(jobs[0]).progress.windows_done >= 1, 20)
        workers.server.stop()
        time.sleep(1)
        workers.server.start()
        records = workers.wait(*jobs, seconds=PATIENCE_SECONDS + 30)
        assert [record.status for record in records] == ["succeeded"] * 3
        assert [record.progress.frames_done for record in records] == [64] * 3
        assert len({workers.result(job) for job in jobs}) == 1


@pytest.mark.slow
def test_one_long_job_spreads_over_all_workers() -> None:
    seconds, results = {}, set()
    for count in (1, 2, 4):
        with Workers(count, worker_threads=1) as workers:
            job = workers.submit("sleep", 512)
            [record] = workers.wait(job, seconds=120)
            assert record.started_at is not None
            assert record.finished_at is not None
            seconds[count] = record.finished_at - record.started_at
            results.add(workers.result(job))
    print(f"512 frames of 50 ms on 1, 2, 4 workers: {seconds}")  # noqa: T201 (a measurement)
    assert len(results) == 1
    for count in (2, 4):
        assert seconds[count] * count == pytest.approx(seconds[1], rel=0.1)


@pytest.mark.slow
def test_kill_9_with_the_times_we_ship() -> None:
    with Workers(2, worker_threads=2) as workers:
        job = workers.submit("sleep", 640)
        assert until(lambda: workers.record(job).progress.windows_done >= 3, 20)
        began = time.monotonic()
        workers.processes[0].kill()
        assert until(lambda: workers.record(job).attempt == 2, 45)
        print(f"run again {time.monotonic() - began:.1f} s after kill -9")  # noqa: T201 (a measurement)
        assert workers.wait(job)[0].status is JobStatus.SUCCEEDED


@pytest.mark.slow
def test_sigstop_for_a_minute() -> None:
    with Workers(2, worker_threads=2) as workers:
        job = workers.submit("sleep", 320)
        assert until(lambda: workers.record(job).progress.windows_done >= 1, 20)
        workers.processes[0].send_signal(signal.SIGSTOP)
        time.sleep(60)
        [record] = workers.wait(job)
        blobs = workers.jobs.blobs(job)
        workers.processes[0].send_signal(signal.SIGCONT)
        time.sleep(5)
        assert (workers.record(job), workers.jobs.blobs(job)) == (record, blobs)
        assert len(workers.files()) == len(blobs)


@pytest.mark.slow
def test_hundreds_of_jobs_survive_random_kills() -> None:
    chance = random.Random(1)
    with Workers(2, worker_threads=4, max_attempts=20, queue_jobs=1000, **HASTY) as workers:
        workers.revive()
        jobs: list[str] = []
        kills = 0
        for _ in range(12):
            jobs += [workers.submit("full-mask", chance.choice([1, 16, 40])) for _ in range(30)]
            jobs.append(workers.submit("sleep", 32))
            time.sleep(chance.uniform(0.5, 3))
            victim = chance.choice(workers.processes)
            victim.kill()
            kills += 1
        records = workers.wait(*jobs, seconds=240)
        lost = [record for record in records if record.status is not JobStatus.SUCCEEDED]
        again = sum(record.attempt > 1 for record in records)
        print(f"{len(jobs)} jobs, {kills} kills: {len(lost)} lost, {again} run again")  # noqa: T201 (a measurement)
        assert lost == []
        for record in records:
            lines = workers.result(record.id).splitlines()
            assert len(lines) == record.progress.frames_total == record.progress.frames_done
            assert (
                len({blob.window for blob in workers.jobs.blobs(record.id)}) == record.progress.windows_total
            )
