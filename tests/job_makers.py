"""Jobs for tests of the record: made, begun, lost."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from models.media import WindowPlan
from service.clips import Clip, ClipStore
from service.jobs import JobStore
from service.records import Go, Job, JobStatus, Lease


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
