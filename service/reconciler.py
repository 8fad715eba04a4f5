"""What keeps the record true while processes die: windows are sent again, expired things removed.

It runs in every worker. Each step is atomic in Redis or idempotent in storage, so several at once do no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
import structlog
from dramatiq.brokers.redis import RedisBroker

from service.clips import ClipStore
from service.engine import send_all
from service.jobs import JobStore
from service.steps import PREFIXES
from service.storage import Storage

GARBAGE_SECONDS = 60.0  # for so long a late writer may still put a file where all were deleted
ORPHAN_SECONDS = 900.0  # a file without a record that is older than this was left by a process that died
RECORDS = {"windows": "JOB", "renders": "JOB", "uploads": "CLIP"}
LOG = structlog.get_logger(__name__)


class Reconciler:
    """Sends windows again that nobody works on, and ends queued jobs that are late."""

    def __init__(self, jobs: JobStore, broker: RedisBroker) -> None:
        self.jobs, self.broker = jobs, broker

    def __call__(self) -> None:
        self.jobs.expire()
        stale = self.jobs.stale()
        for send in stale:
            LOG.warning("window sent again", job_id=send.job, window=send.window)
        send_all(self.broker, stale)


class Sweeper:
    """Removes what has expired, and now and then what nothing refers to."""

    def __init__(self, jobs: JobStore, clips: ClipStore, storage: Storage) -> None:
        self.jobs, self.clips, self.storage = jobs, clips, storage
        self._orphans_at = time.monotonic()

    def __call__(self) -> None:
        for job_id in self.jobs.expire():
            self.jobs.bury(job_id)
        self.clips.expire()
        self.collect()
        if time.monotonic() - self._orphans_at > ORPHAN_SECONDS:
            self._orphans_at = time.monotonic()
            self.adopt_orphans(ORPHAN_SECONDS)
            self.collect()

    def collect(self) -> None:
        """Delete the files of what is forgotten; again for a while, for a late writer's sake."""
        garbage = self.jobs.redis.zrange(PREFIXES["GARBAGE"], 0, -1, withscores=True)
        for prefix, since in garbage:
            self.storage.delete_prefix(prefix)
            if since < time.time() - GARBAGE_SECONDS:
                self.jobs.redis.zrem(PREFIXES["GARBAGE"], prefix)

    def adopt_orphans(self, older_than: float) -> None:
        """Files without a record, older than this (seconds), become garbage."""
        self.storage.sweep(older_than)
        for kind, record in RECORDS.items():
            for owner in self.storage.owners(kind, older_than):
                if not self.jobs.redis.exists(PREFIXES[record] + owner):
                    self.jobs.redis.zadd(PREFIXES["GARBAGE"], {f"{kind}/{owner}/": 0})


def attempt(name: str, step: Callable[[], object]) -> None:
    """Call it; a failure is logged and passes. Also a defect of ours: a worker whose heartbeat or sweeper had
    ended would live on, and nobody would see it."""
    try:
        step()
    except (redis.RedisError, OSError) as error:
        LOG.warning("step failed", step=name, error=str(error))
    except Exception:
        LOG.exception("step failed for a reason that nobody foresaw", step=name)


class Every(threading.Thread):
    """Calls `step` every so many seconds, through failures."""

    def __init__(self, name: str, seconds: float, step: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self.seconds, self.step = seconds, step
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self.seconds):
            attempt(self.name, self.step)

    def stop(self, at_most: float | None = None) -> None:
        """Returns when the step under way is done, or after so many seconds: a bucket takes long to sweep."""
        self._stopping.set()
        self.join(at_most)
