"""What every route has at hand: the stores, who is calling, and the wait for a job."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request

from models.recommended import AUTO, recommended
from models.strategies import Strategy
from service.auth import Caller, Keys, RateLimit
from service.clips import ClipStore
from service.errors import Refusal, invalid
from service.health import Health, unready
from service.intake import Intake, Order
from service.jobs import JobStore
from service.middleware import bind
from service.notifier import Notifier, changed
from service.options import takes
from service.records import JobRecord
from service.renders import Renders
from service.settings import Settings
from service.storage import Storage
from service.telemetry import Metrics

GONE = "There is no such job: it was deleted, has expired, or the id is wrong; /v1/jobs lists yours."
LOOK_SECONDS = 2.0  # who waits looks again so often, should a notice be lost
STORE_THREADS = 32
INTAKE_THREADS = 16
WAIT = re.compile(r"\bwait\s*=\s*\"?(\d{1,9})\b")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Desk:
    """One for each API process, made when it starts."""

    settings: Settings
    registry: Mapping[str, Strategy]
    metrics: Metrics
    storage: Storage
    clips: ClipStore
    jobs: JobStore
    intake: Intake
    health: Health
    notifier: Notifier
    keys: Keys
    rate: RateLimit
    renders: Renders
    store_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(STORE_THREADS))
    intake_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(INTAKE_THREADS))

    async def store(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A short call of Redis or storage, in a thread."""
        return await run_sync(lambda: call(*args, **kwargs), limiter=self.store_threads)

    async def take_in(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A call that looks into a clip: slower, and kept from the threads of the others."""
        return await run_sync(lambda: call(*args, **kwargs), limiter=self.intake_threads)

    async def admitted(self, request: Request) -> Caller:
        """Who brings work: known, within its rate, and there is room; all before the body is read."""
        caller = caller_of(request)
        await self.health.admit()
        if self.rate.per_minute:
            await self.store(self.rate.take, caller)
        return caller

    async def accept(self, order: Order) -> tuple[JobRecord, bool]:
        """The job of an order, and whether it is new."""
        if order.strategy == AUTO:
            order = await self.resolved(order)
        self.intake.options(order)  # what is wrong with the request comes before what is missing here
        await self.health.usable(order.strategy)
        record, created = await self.take_in(self.intake.submit, order)
        bind(job_id=record.id)
        return record, created

    async def resolved(self, order: Order) -> Order:
        """An order for `auto` as one for the strategy that will answer it: of those that take its options,
        the first that is recommended and ready."""
        fitting = [name for name, strategy in self.registry.items() if takes(strategy, order.fields)]
        if not fitting:
            raise Refusal(
                "invalid_option", "No strategy takes all of these options; /v1/strategies lists them."
            )
        workers = (await self.health.state()).workers
        refusals = {name: refusal for name in fitting if (refusal := unready(workers, name))}
        chosen = recommended(fitting, [name for name in fitting if name not in refusals])
        if chosen is None:
            first = recommended(fitting, fitting) or fitting[0]
            self.intake.options(replace(order, strategy=first))
            raise Refusal(refusals[first].code, f"{first}: {refusals[first].detail}")
        return replace(order, strategy=chosen, requested=AUTO)

    async def job(self, job_id: str, caller: Caller) -> JobRecord:
        """A job of this tenant, by its id or by the name under which it was PUT."""
        return await self.store(self.find, job_id, caller.tenant)

    def find(self, job_id: str, tenant: str) -> JobRecord:
        found = self.jobs.get(job_id, tenant)
        if found is None:
            job_id = self.jobs.named(tenant, job_id) or job_id
            found = self.jobs.get(job_id, tenant)
        if found is not None:
            bind(job_id=found.id)
            return found
        if self.jobs.expired(job_id, tenant):
            raise Refusal(
                "expired", "The result of this job has expired and was deleted; send the clip again."
            )
        raise Refusal("not_found", GONE)

    async def wait(self, record: JobRecord, seconds: float) -> JobRecord:
        """The record when the job has ended, or as it is when the time is up or this process drains."""
        until = time.monotonic() + seconds
        with self.notifier.watch(record.id, final=True) as event:
            while True:
                now = await self.store(self.jobs.get, record.id)
                if now is None:
                    raise Refusal("not_found", "The job was deleted while this request waited for it.")
                if now.status.final or self.notifier.draining or time.monotonic() >= until:
                    return now
                await changed(event, until, LOOK_SECONDS)


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def caller_of(request: Request) -> Caller:
    """The tenant behind this request; 401 without a valid key, where keys are on."""
    caller = desk_of(request).keys.caller(request.headers)
    bind(tenant=caller.tenant)
    return caller


def wait_of(request: Request, settings: Settings) -> float:
    """Seconds to wait for the job: `Prefer: wait=N` or `respond-async` (RFC 7240), within the limit."""
    prefer = request.headers.get("prefer", "").lower()
    found = WAIT.search(prefer)
    if found:  # beside `respond-async` too: so long, and then without waiting
        return min(float(found[1]), settings.max_wait_seconds)
    return 0.0 if "respond-async" in prefer else min(settings.wait_seconds, settings.max_wait_seconds)


def preference_applied(seconds: float) -> dict[str, str]:
    return {"Preference-Applied": f"wait={seconds:.0f}" if seconds else "respond-async"}


def known_query(request: Request) -> None:
    """Refuse a query parameter that the route does not read: silence hides typos."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "this address takes none"
            raise invalid(f"/query/{name}", f"There is no such parameter here; {there}.")


async def unless_gone(request: Request, work: Coroutine[Any, Any, R]) -> R | None:
    """What `work` returns, or None when the client hung up before; `work` is cancelled then."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def disconnected(request: Request) -> None:
    """Returns when the client has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
