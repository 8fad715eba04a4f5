"""The job record in Redis: what a job is, and the atomic steps of its life.

Dramatiq moves the messages; this record is the truth about them. A message that finds its window committed,
its job cancelled or another worker at work is dropped: one too many is harmless, and one lost is only late.

Each step is one Lua script (`service/lua`), hence atomic, and takes its time from Redis, hence no clock skew.
The JSON inside the hashes is never parsed by Lua; scripts move scalars only.

How many windows of one job are in flight: at least `windows_in_flight`, and at least twice the worker threads
alive. So one long job alone keeps every thread of every worker busy (one window in work, one on its way), and
two long jobs still share, since neither can put more than that into the queue.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import redis

from models.media import WindowPlan
from service.errors import Refusal, problem_document
from service.records import (
    Blob,
    ClipGone,
    Commit,
    Committed,
    Event,
    Go,
    Idempotency,
    IdempotencyMismatch,
    Job,
    JobRecord,
    JobStatus,
    Lease,
    Progress,
    QueueFull,
    QuotaExceeded,
    Send,
    Skip,
)
from service.settings import Settings
from service.steps import PREFIXES, Reached, Steps

STAGES = {JobStatus.QUEUED: "waiting", JobStatus.RUNNING: "segmenting", JobStatus.SUCCEEDED: "done"}
REMEMBERED_SECONDS = 24 * 3600
PAGE = 100  # records read at once while a page of the list is filled


class JobStore:
    """Every step of a job's life. One per process; thread-safe, as the Redis client is.

    `client` decodes its responses; `reached` hears of every status that a step of this process leads to.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        reached: Reached = lambda status, strategy: None,  # noqa: ARG005 (nobody listens)
    ) -> None:
        self.redis: Any = client  # redis-py types every answer as perhaps awaitable
        self.settings = settings
        self._run = Steps(client, reached)
        attempts = settings.max_attempts
        self._worn_out = problem_json(
            Refusal("worker_lost", f"The clip was tried {attempts} times, and each worker was lost.")
        )
        self._late = problem_json(
            Refusal("deadline_passed", "The deadline passed while the job was running.")
        )

    # The client's side.

    def create(
        self, job: Job, windows: Sequence[WindowPlan], idempotency: Idempotency | None = None
    ) -> tuple[JobRecord, bool]:
        """Accept a job of these windows, or find the one its key (or its name) already made.

        Raises QueueFull, QuotaExceeded, IdempotencyMismatch or ClipGone; nothing is written then.
        """
        settings = self.settings
        share = max(1, math.floor(settings.queue_jobs * settings.queue_share))
        outcome, *answer = self._run(
            "create",
            job.id,
            job.tenant,
            job.clip.id,
            job.encode(),
            job.strategy,
            int(job.interactive),
            "" if job.deadline is None else job.deadline,
            sum(len(window.times) for window in windows),
            settings.queue_jobs,
            share,
            settings.result_ttl,
            settings.max_attempts,
            idempotency.key if idempotency else "",
            idempotency.body if idempotency else "",
            math.ceil(settings.idempotency_ttl),
            int(job.clip.owned),
            job.name,
            *(json.dumps(asdict(window)) for window in windows),
        )
        if outcome == "full":
            raise QueueFull(f"The queue holds {settings.queue_jobs} unfinished jobs, its limit.")
        if outcome == "quota":
            raise QuotaExceeded(f"You have {share} unfinished jobs, your share of the queue; wait for one.")
        if outcome == "mismatch":
            raise IdempotencyMismatch("This Idempotency-Key was used with another body; choose a new key.")
        if outcome == "gone":
            raise ClipGone("The upload has expired; send the clip again.")
        rank, fields = answer
        return record(dict(zip(fields[::2], fields[1::2], strict=True)), rank), outcome == "created"

    def get(self, job_id: str, tenant: str | None = None) -> JobRecord | None:
        """The record, or None if there is none or it is another tenant's; `tenant` None sees all."""
        [record] = self._read([job_id])
        return record if record and tenant in (None, record.job.tenant) else None

    def made_before(self, tenant: str, idempotency: Idempotency) -> JobRecord | None:
        """The job that the same key and body made, if it is there."""
        name = f"{PREFIXES['IDEMPOTENCY']}{tenant}:{idempotency.key}"
        job_id, body = self.redis.hmget(name, "job", "body")
        return self.get(job_id, tenant) if job_id and body == idempotency.body else None

    def named(self, tenant: str, name: str) -> str | None:
        """The id of the job that a tenant made under this name, which may be gone."""
        found: str | None = self.redis.get(f"{PREFIXES['NAME']}{tenant}:{name}")
        return found

    def page(
        self,
        tenant: str,
        status: JobStatus | None = None,
        strategy: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[JobRecord], str | None]:
        """A tenant's jobs, newest first, and the cursor of the next page (None at the end): a moment, to the
        microsecond, so that it outlives the job that was made then."""
        start = self.redis.zcount(PREFIXES["TENANT"] + tenant, cursor, "+inf") if cursor else 0
        found: list[JobRecord] = []
        while ids := self.redis.zrevrange(PREFIXES["TENANT"] + tenant, start, start + PAGE - 1):
            start += len(ids)
            for record in filter(None, self._read(ids)):
                if status in (None, record.status) and strategy in (None, record.job.strategy):
                    if len(found) == limit:
                        return found, f"{found[-1].created_at:.6f}"
                    found.append(record)
        return found, None

    def blobs(self, job_id: str) -> list[Blob]:
        """The committed windows, in order; gaps are windows still to come."""
        fields = self.redis.hgetall(PREFIXES["WINDOWS"] + job_id)
        windows = sorted(int(name[: -len(":blob")]) for name in fields if name.endswith(":blob"))
        return [Blob(w, fields[f"{w}:blob"], int(fields[f"{w}:frames"])) for w in windows]

    def events(self, job_id: str, after: str = "0") -> list[Event]:
        """What happened to a job after the event `after`."""
        entries = self.redis.xrange(PREFIXES["EVENTS"] + job_id, min=f"({after}")
        return [Event(entry, values["kind"], json.loads(values["data"])) for entry, values in entries]

    def cancel(self, job_id: str, tenant: str | None = None) -> JobRecord | None:
        """Stop a job; a finished one stays what it is. The record afterwards, None if there is none."""
        if self.get(job_id, tenant) is None:
            return None
        self._run("finish", job_id, JobStatus.CANCELED, "")
        return self.get(job_id)

    def delete(self, job_id: str, tenant: str | None = None) -> bool:
        """Forget a job, running or not. Its blobs become garbage, which `Sweeper.collect` removes."""
        return self.get(job_id, tenant) is not None and bool(self._run("delete", job_id, 0))

    def next_windows(self, job_id: str) -> tuple[Send, ...]:
        """The windows to send now, marked as sent: as many as may be in flight."""
        return sends(job_id, self._run("next_windows", job_id, self.settings.windows_in_flight))

    def stats(self) -> Mapping[str, float]:
        """`queued`, `active`, `oldest_seconds` (of those queued) and `finished_<status>`, for the metrics."""
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.zrange(PREFIXES["QUEUED"], 0, -1)
            pipe.zcard(PREFIXES["ACTIVE"])
            pipe.hgetall(PREFIXES["COUNTS"])
            pipe.time()
            queued, active, counts, (seconds, _) = pipe.execute()
        scores = self.redis.zmscore(PREFIXES["ACTIVE"], queued) if queued else []
        oldest = min((score for score in scores if score is not None), default=float(seconds))
        finished = {f"finished_{status}": float(count) for status, count in counts.items()}
        return {
            "queued": len(queued),
            "active": active,
            "oldest_seconds": max(0.0, seconds - oldest),
            **finished,
        }

    # The worker's side.

    def begin_window(self, job_id: str, window: int, token: str, alone: bool = False) -> Go | Skip:
        """Count a start and lease the window under `token`. `alone`: nothing else runs in this process.

        A window that was begun and lost is `suspect`: it is begun again only alone, so that a clip that
        kills its worker takes no neighbour along, and after `max_attempts` losses its job fails.
        """
        # A worker that is dead for the broker (redelivery_seconds) must be dead here as well, or the message
        # that comes again would be dropped.
        live = min(1.5 * self.settings.heartbeat_seconds, 0.8 * self.settings.redelivery_seconds)
        outcome, *answer = self._run(
            "begin_window", job_id, window, token, int(alone), live, self._worn_out, self._late
        )
        if outcome == "skip":
            return Skip(*answer)
        waited, starts, plan, static = answer
        seconds = float(waited) if waited else None
        return Go(Job.decode(static), plan_of(plan), int(starts), token, seconds)

    def heartbeat(self, leases: Iterable[Lease]) -> set[str]:
        """Renew leases; the ids of jobs that must stop: ended, or their window is somebody else's now."""
        values = [value for lease in leases for value in (lease.job, lease.window, lease.token)]
        return set(self._run("heartbeat", *values)) if values else set()

    def commit_window(self, lease: Lease, commit: Commit) -> Committed:
        """Compare-and-set of one window's result; the last one ends the job."""
        outcome, *answer = self._run(
            "commit_window",
            lease.job,
            lease.window,
            lease.token,
            commit.blob,
            commit.frames,
            json.dumps(commit.models),
            self.settings.windows_in_flight,
            len(commit.timing),
            *(value for pair in commit.timing.items() for value in pair),
            *commit.warnings,
        )
        if outcome == "accepted":
            return Committed(accepted=True, send=sends(lease.job, answer))
        return Committed(accepted=outcome == "finished", finished=outcome == "finished")

    def release(self, lease: Lease) -> Send | None:
        """Hand a window back unfinished (an orderly stop): its start is not counted."""
        interactive = self._run("release", lease.job, lease.window, lease.token)
        return Send(lease.job, lease.window, interactive == "1") if interactive else None

    def fail(self, lease: Lease, problem: Mapping[str, Any]) -> bool:
        """End a job with a problem document; False if it had ended, or the window is somebody else's now."""
        document = json.dumps(problem)
        return bool(self._run("finish", lease.job, JobStatus.FAILED, document, lease.window, lease.token))

    # The reconciler's and the sweeper's side.

    def stale(self) -> tuple[Send, ...]:
        """Windows to send again: sent, uncommitted, without sign of life for `lease_seconds`."""
        answer = self._run("stale", self.settings.lease_seconds, self.settings.windows_in_flight)
        return tuple(
            Send(job, int(window), interactive == "1")
            for job, window, interactive in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        )

    def expire(self) -> list[str]:
        """End queued jobs past their deadline; the ids of finished jobs whose result is due for deletion."""
        return list(self._run("expire"))

    def bury(self, job_id: str) -> None:
        """Forget a job whose result is due. Its id and tenant are remembered as long again as the result was
        kept, a day at most: a few bytes, which end by themselves."""
        self._run("delete", job_id, math.ceil(1000 * min(self.settings.result_ttl, REMEMBERED_SECONDS)))

    def expired(self, job_id: str, tenant: str) -> bool:
        """Whether this tenant had such a job, whose time is over."""
        return bool(self.redis.get(PREFIXES["GONE"] + job_id) == tenant)

    def _read(self, job_ids: Iterable[str]) -> list[JobRecord | None]:
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(PREFIXES["JOB"] + job_id)
                pipe.zrank(PREFIXES["QUEUED"], job_id)
            answers = pipe.execute()
        return [record(*pair) if pair[0] else None for pair in zip(answers[::2], answers[1::2], strict=True)]


def sends(job_id: str, answer: Sequence[Any]) -> tuple[Send, ...]:
    """A script's answer: the job's queue, then its windows."""
    interactive, *windows = answer
    return tuple(Send(job_id, int(window), interactive == "1") for window in windows)


def plan_of(text: str) -> WindowPlan:
    values = json.loads(text)
    return WindowPlan(**{**values, "times": tuple(values["times"])})


def problem_json(error: Refusal) -> str:
    return json.dumps(problem_document(error))


def record(fields: Mapping[str, str], rank: int | None) -> JobRecord:
    """The record from its hash and its place among the queued."""
    status = JobStatus(fields["status"])
    stage = STAGES.get(status, status.value)
    job = Job.decode(fields["static"])
    created, started, finished, expires = (
        float(fields[name]) if name in fields else None
        for name in ("created_at", "started_at", "finished_at", "expires_at")
    )
    assert created is not None
    timing = {"queue_ms": ((started or finished or created) - created) * 1000}
    timing |= {key[len("timing:") :]: float(ms) for key, ms in fields.items() if key.startswith("timing:")}
    counts = (
        int(fields.get(name, 0)) for name in ("frames_done", "frames_total", "windows_done", "windows_total")
    )
    return JobRecord(
        job=job,
        status=status,
        progress=Progress(stage, *counts),
        created_at=created,
        started_at=started,
        finished_at=finished,
        result_expires_at=expires,
        queue_position=None if rank is None else rank + 1,
        attempt=int(fields.get("attempt", 0)),
        max_attempts=int(fields["max_attempts"]),
        error=json.loads(fields["error"]) if "error" in fields else None,
        timing=timing,
        models=json.loads(fields.get("models", "{}")),
        warnings=(*job.warnings, *(key[len("warning:") :] for key in fields if key.startswith("warning:"))),
    )
