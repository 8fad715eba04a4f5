"""Wakes whoever waits for a job: one subscription to Redis for the whole API process, an event for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis.asyncio
from redis.exceptions import RedisError

from service.records import JobStatus
from service.steps import CHANGED

RECONNECT_SECONDS = 0.5
LISTEN_SECONDS = 1.0


class Notifier:
    """`watch` gives an event that is set whenever the job's record changed, and when the process drains; or,
    with `final`, only when the job has ended.

    A message may be lost (Redis restarted, the connection cut): who waits looks again by itself now and then.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.watchers: dict[
            str, dict[asyncio.Event, bool]
        ] = {}  # job -> event -> whether only the end counts
        self.draining = False

    @contextmanager
    def watch(self, job_id: str, *, final: bool = False) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self.watchers.setdefault(job_id, {})[event] = final
        try:
            yield event
        finally:
            del self.watchers[job_id][event]
            if not self.watchers[job_id]:
                del self.watchers[job_id]

    def wake(self, job_id: str, ended: bool = True) -> None:
        for event, final in self.watchers.get(job_id, {}).items():
            if ended or not final:
                event.set()

    def drain(self) -> None:
        """Everybody stops waiting: the process is about to end."""
        self.draining = True
        self.wake_all()

    def wake_all(self) -> None:
        for job_id in self.watchers:
            self.wake(job_id)

    async def run(self) -> None:
        """Listen until cancelled; a broken connection is made again."""
        while True:
            with suppress(RedisError, OSError):
                await self.listen()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def listen(self) -> None:
        client = redis.asyncio.Redis.from_url(self.url, decode_responses=True)
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(CHANGED)
            self.wake_all()  # whatever happened while nobody listened
            while True:
                message = await subscription.get_message(timeout=LISTEN_SECONDS)
                if message:
                    job_id, status = message["data"].split(" ")
                    self.wake(job_id, JobStatus(status).final)


async def changed(event: asyncio.Event, until: float, at_most: float) -> bool:
    """Wait for the event, `at_most` seconds and not past `until` (time.monotonic()); then clear it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, min(at_most, until - time.monotonic()))):
            await event.wait()
    happened = event.is_set()
    event.clear()
    return happened
