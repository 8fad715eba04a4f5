"""The job record in Redis: what a job is, and the atomic steps of its life.

Dramatiq moves the messages; this record is the truth about them. A message that finds its window committed, its
job cancelled or another worker at work is dropped, so one too many is harmless and one lost is only late.

Each step is one Lua script (`service/lua`), hence atomic, and takes its time from Redis, hence without clock skew.
The JSON inside the hashes is never parsed by Lua; scripts move scalars only.

How many windows of one job are in flight: at least `windows_in_flight`, and at least twice the worker threads
alive, so that one long job alone keeps every thread of every worker busy (one window in work, one on its way),
and two long jobs still share, since neither can put more than that into the queue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis

from service.clips import Clip
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

# Every key and channel of the service. Dramatiq's own begin with `avs:mq:` (engine.py).
PREFIXES = {
    "JOB": "avs:job:",  # hash: the record; `avs:job:<id>`
    "PLAN": "avs:plan:",  # hash: window -> its frame times, JSON
    "WINDOWS": "avs:windows:",  # hash: `<window>:starts|lease|sent|blob|frames`
    "FLIGHT": "avs:flight:",  # sorted set: windows sent and uncommitted, by last sign of life
    "EVENTS": "avs:events:",  # stream: what the SSE endpoint replays
    "TENANT": "avs:tenant:",  # sorted set: a tenant's jobs by creation
    "HELD": "avs:held:",  # set: a tenant's unfinished jobs, for its share of the queue
    "IDEMPOTENCY": "avs:idempotency:",  # hash: the job and body of one Idempotency-Key
    "ACTIVE": "avs:active",  # sorted set: unfinished jobs by creation
    "QUEUED": "avs:queued",  # sorted set: jobs not begun, in the order they will begin
    "DEADLINES": "avs:deadlines",  # sorted set: unfinished jobs with a deadline
    "EXPIRY": "avs:expiry",  # sorted set: finished jobs by the end of their result
    "GARBAGE": "avs:garbage",  # sorted set: deleted jobs whose blobs may still lie in storage
    "COUNTS": "avs:counts",  # hash: jobs ever finished, by status
    "CLIP": "avs:clip:",  # string: an upload, JSON
    "CLIPS": "avs:clips",  # sorted set: uploads by expiry
    "CLIP_JOBS": "avs:clip-jobs:",  # set: jobs that still need an upload
    "WORKERS": "avs:workers",  # sorted set: worker processes by last sign of life
    "THREADS": "avs:worker-threads",  # hash: worker -> its threads
    "WORKER": "avs:worker:",  # string: what a worker says of itself, JSON
}
CHANGED = "avs:changed"  # channel: the id of each job whose record changed
STOPPED = "avs:stopped"  # channel: the id of each job that must not go on
LUA = Path(__file__).parent / "lua"
BELT_SECONDS = 7 * 24 * 3600  # keys end by themselves even if no sweeper ever runs again
EVENTS_KEPT = 1000


class JobStore:
    """Every step of a job's life. One per process; thread-safe, as the Redis client is."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.redis = client
        self.settings = settings
        prelude = "".join(f"local {name} = '{prefix}'\n" for name, prefix in PREFIXES.items())
        prelude += f"local CHANGED, STOPPED = '{CHANGED}', '{STOPPED}'\n"
        prelude += (
            f"local BELT, EVENTS_KEPT = {BELT_SECONDS}, {EVENTS_KEPT}\n" + (LUA / "prelude.lua").read_text()
        )
        self.scripts = {
            path.stem: client.register_script(prelude + path.read_text())
            for path in LUA.glob("*.lua")
            if path.stem != "prelude"
        }

    # The client's side

    def create(
        self, job: Job, windows: Sequence[Sequence[float]], idempotency: Idempotency | None = None
    ) -> tuple[JobRecord, bool]:
        """Accept a job whose windows sample these times (seconds), or find the one its key already made.

        Raises QueueFull, QuotaExceeded, IdempotencyMismatch or ClipGone; nothing is written then.
        """

    def get(self, job_id: str, tenant: str | None = None) -> JobRecord | None:
        """The record, or None if there is none or it is another tenant's; `tenant` None sees all."""

    def list(
        self,
        tenant: str,
        status: JobStatus | None = None,
        strategy: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[JobRecord], str | None]:
        """A tenant's jobs, newest first, and the cursor of the next page (None at the end)."""

    def blobs(self, job_id: str) -> list[Blob]:
        """The committed windows, in order; gaps are windows still to come."""

    def events(self, job_id: str, after: str = "0") -> list[Event]:
        """What happened to a job after the event `after`."""

    def cancel(self, job_id: str, tenant: str | None = None) -> JobRecord | None:
        """Stop a job; a finished one stays what it is. The record afterwards, None if there is none."""

    def delete(self, job_id: str, tenant: str | None = None) -> bool:
        """Forget a job, running or not. Its blobs become garbage that the sweeper (or `sweep.collect`) removes."""

    def next_windows(self, job_id: str) -> tuple[Send, ...]:
        """The windows to send now, marked as sent: as many as may be in flight."""

    def stats(self) -> Mapping[str, float]:
        """`queued`, `active`, `oldest_seconds` and `finished_<status>`, for the metrics."""

    # The worker's side

    def begin_window(
        self, job_id: str, window: int, worker: str, token: str, alone: bool = False
    ) -> Go | Skip:
        """Count a start and lease the window. `alone` says that nothing else runs in this process.

        A window that was begun and lost is `suspect`: it is begun again only alone, so that a clip that
        kills its worker takes no neighbour along, and after `max_attempts` losses its job fails.
        """

    def heartbeat(self, leases: Iterable[Lease]) -> set[str]:
        """Renew leases; the ids of jobs that must stop: ended, or their window is somebody else's now."""

    def commit_window(self, lease: Lease, commit: Commit) -> Committed:
        """Compare-and-set of one window's result; the last one ends the job."""

    def release(self, lease: Lease) -> Send | None:
        """Hand a window back unfinished (an orderly stop): its start is not counted."""

    def fail(self, job_id: str, problem: Mapping[str, Any]) -> bool:
        """End a job with a problem document; False if it had ended already."""

    # The reconciler's and the sweeper's side

    def stale(self) -> tuple[Send, ...]:
        """Windows to send again: sent, uncommitted, without sign of life for `lease_seconds`."""

    def expire(self) -> list[str]:
        """End queued jobs past their deadline; the ids of finished jobs whose result is due for deletion."""
