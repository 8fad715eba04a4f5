"""Whether the service can take work: what /readyz says, and the check that comes before a body is read.

Both must be cheap when everything else is slow. What Redis says of the queue is kept for a tenth of a second,
and one question is asked at a time, however many requests wait for the answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from redis.exceptions import RedisError

from service.errors import Refusal
from service.fleet import Fleet
from service.jobs import JobStore
from service.storage import Storage
from service.telemetry import Metrics

FRESH_SECONDS = 0.1
NO_WORKER = "No worker runs; start one with `python -m service worker`."
STORAGE_FRESH_SECONDS = 5.0  # a write to an object store costs money


@dataclass(frozen=True)
class State:
    """What Redis says: how many jobs there are, and the workers alive, each with what it says of itself."""

    stats: Mapping[str, float]
    workers: Sequence[Mapping[str, Any]]


def unready(workers: Sequence[Mapping[str, Any]], strategy: str) -> Refusal | None:
    """Why no worker can run a strategy now; None where one can. What one that loads has found missing counts
    where none is ready yet: `not_ready` means that it may come."""
    ready = in_state(workers, "ready")
    speaking = ready or in_state(workers, "starting")
    said = [worker["strategies"][strategy] for worker in speaking if strategy in worker["strategies"]]
    can = any(one["ready"] for one in said)
    if ready and can:
        return None
    if not ready and (can or not said or len(said) < len(speaking)):
        return Refusal("not_ready", no_worker(workers))
    for one in said:
        return Refusal(one["code"], one["reason"])
    return Refusal("weights_missing", f"No worker was told to load {strategy}; see its settings.")


def in_state(workers: Sequence[Mapping[str, Any]], state: str) -> list[Mapping[str, Any]]:
    return [worker for worker in workers if worker["state"] == state]


def no_worker(workers: Sequence[Mapping[str, Any]]) -> str:
    """Why none is ready: how far the one that loads is, or that there is none."""
    starting = in_state(workers, "starting")
    if not starting:
        return NO_WORKER
    furthest = max(starting, key=lambda worker: len(worker["strategies"]))
    loaded = [name for name, one in furthest["strategies"].items() if one["ready"]]
    done = f"; {', '.join(loaded)} {'is' if len(loaded) == 1 else 'are'} loaded" if loaded else ""
    match furthest.get("loading", ()):
        case []:
            return f"A worker is starting{done}."
        case [name]:
            return f"A worker is loading {name}, the last{done}."
        case [name, *others]:
            return f"A worker is loading {name}, and then {', '.join(others)}{done}."
    raise AssertionError(furthest)


class Health:
    """Its threads are its own, so that no amount of other work keeps it waiting."""

    def __init__(
        self, jobs: JobStore, fleet: Fleet, storage: Storage, metrics: Metrics, queue_jobs: int
    ) -> None:
        self.jobs, self.fleet, self.storage, self.metrics = jobs, fleet, storage, metrics
        self.queue_jobs = queue_jobs
        self.draining = False
        self.known: tuple[float, State | RedisError] | None = None
        self.storage_known = (0.0, "never checked")
        self.threads = CapacityLimiter(2)
        self.asking, self.trying = anyio.Lock(), anyio.Lock()  # a slow storage holds one thread, never both

    async def state(self) -> State:
        """At most FRESH_SECONDS old. Raises RedisError; a failure is remembered as long as an answer."""
        async with self.asking:
            if self.known is None or time.monotonic() - self.known[0] > FRESH_SECONDS:
                answer = await run_sync(self.ask, limiter=self.threads)
                self.known = time.monotonic(), answer
        if isinstance(self.known[1], RedisError):
            raise self.known[1]
        return self.known[1]

    def ask(self) -> State | RedisError:
        try:
            state = State(self.jobs.stats(), self.fleet.workers())
        except RedisError as error:
            return error
        self.metrics.queue_depth.set(state.stats["queued"])
        self.metrics.queue_oldest_seconds.set(state.stats["oldest_seconds"])
        return state

    async def admit(self) -> State:
        """Refuse a request whose job could not be taken, before its body is read."""
        if self.draining:
            raise Refusal("draining", "This process is shutting down; send the request again.", retry_after=1)
        state = await self.state()
        if state.stats["active"] >= self.queue_jobs:
            raise Refusal("queue_full", f"The queue holds {self.queue_jobs} unfinished jobs, its limit.")
        return state

    async def refresh(self) -> None:
        """Bring the gauges up to date, where Redis answers."""
        with suppress(RedisError):
            await self.state()

    async def usable(self, strategy: str) -> None:
        """Refuse a strategy that every worker says it cannot run. Where one may come, work may wait."""
        workers = (await self.state()).workers
        refusal = unready(workers, strategy)
        if refusal is not None and refusal.code != "not_ready":
            raise refusal

    async def delay(self) -> str | None:
        """Why no job is begun just now; None where a worker is ready, or nothing is known."""
        with suppress(RedisError):
            workers = (await self.state()).workers
            if not in_state(workers, "ready"):
                return f"The job waits for a worker. {no_worker(workers)}"
        return None

    async def checks(self) -> tuple[dict[str, str], Sequence[Mapping[str, Any]]]:
        """`ok`, or a sentence, for each thing that must be there; and the workers."""
        workers: Sequence[Mapping[str, Any]] = ()
        checks = {"process": "This process is shutting down." if self.draining else "ok"}
        try:
            workers = (await self.state()).workers
            checks["redis"] = "ok"
            checks["worker"] = "ok" if in_state(workers, "ready") else no_worker(workers)
        except RedisError:
            checks["redis"] = "Redis does not answer."
            checks["worker"] = "The workers are unknown meanwhile."
        checks["storage"] = await self.storage_check()
        return checks, workers

    async def storage_check(self) -> str:
        async with self.trying:
            if time.monotonic() - self.storage_known[0] > STORAGE_FRESH_SECONDS:
                verdict = await run_sync(self.try_storage, limiter=self.threads)
                self.storage_known = time.monotonic(), verdict
        return self.storage_known[1]

    def try_storage(self) -> str:
        """Write a file and remove it."""
        key = f"renders/ready-{uuid4().hex}/probe"
        try:
            with self.storage.open_write(key) as file:
                file.write(b"ok")
            self.storage.delete(key)
        except OSError:
            return "The storage cannot be written to."
        return "ok"
