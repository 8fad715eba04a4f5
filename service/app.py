"""The API process: `create_app` puts it together, its lifespan opens and closes what it uses.

No network is loaded here and torch is never imported: work goes through Redis to the workers.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import FrameType

import redis
import uvicorn
from fastapi import FastAPI
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from models.strategies import Strategy
from service import job_routes, meta_routes, pages, routes
from service.auth import Keys, RateLimit
from service.clips import ClipStore
from service.decoding import Sandbox
from service.desk import Desk
from service.engine import make_broker
from service.fleet import Fleet
from service.health import Health
from service.intake import Intake
from service.jobs import JobStore
from service.middleware import Packed, RequestScope
from service.notifier import Notifier
from service.openapi import describe
from service.problems import HANDLERS
from service.reconciler import ORPHAN_SECONDS, attempt
from service.renders import Renders
from service.settings import Settings
from service.storage import Storage
from service.telemetry import Metrics, configure_logging

ANSWER_SECONDS = 0.4  # Redis answers in a millisecond; twice this is less than the second we promise
GRACE_SECONDS = 10  # for answers under way when the process is told to stop
VERSION = "0.1.0"


def create_app(
    settings: Settings, registry: Mapping[str, Strategy] | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The application. `registry` is the table of strategies, the one that the settings name by default."""
    strategies = registry if registry is not None else strategies_of(settings)
    metrics = metrics or Metrics()
    app = FastAPI(
        title="Earshot",
        version=VERSION,
        lifespan=partial(opened, settings=settings, registry=strategies, metrics=metrics),
        exception_handlers=dict(HANDLERS),
        docs_url=None,  # ours is in meta_routes.py: FastAPI's page comes from a network that may not be there
        redoc_url=None,
        redirect_slashes=False,  # a form that was sent does not follow a redirect
    )
    app.state.metrics = metrics
    for router in (routes.router, job_routes.router, meta_routes.router):
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    app.include_router(meta_routes.bare)
    app.include_router(pages.router)
    app.mount("/playground", pages.Files(directory=pages.PLAYGROUND))
    app.mount("/samples", pages.Files(directory=pages.SAMPLES))
    app.add_middleware(Packed, compresslevel=6)
    app.add_middleware(RequestScope, metrics=metrics)
    app.openapi = partial(describe, app, bool(settings.api_keys))  # type: ignore[method-assign]  # as FastAPI says
    return app


def strategies_of(settings: Settings) -> Mapping[str, Strategy]:
    table: Mapping[str, Strategy] = importlib.import_module(settings.registry).STRATEGIES
    return table


@asynccontextmanager
async def opened(
    app: FastAPI, settings: Settings, registry: Mapping[str, Strategy], metrics: Metrics
) -> AsyncIterator[None]:
    """Opens the stores, listens for changes; closes all of it again."""
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    client = connect(settings)
    sandbox = Sandbox(settings)
    desk = make_desk(settings, registry, metrics, client, sandbox)
    app.state.desk = desk
    listening = asyncio.create_task(desk.notifier.run())
    warming = asyncio.create_task(asyncio.to_thread(prepare, sandbox, desk.storage))
    try:
        yield
    finally:
        drain(desk)
        await warming
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        client.close()


def prepare(sandbox: Sandbox, storage: Storage) -> None:
    """What need not be done before the first request: warm the sandbox, and remove the bodies that a process
    killed before this one was receiving. Where workers share the scratch folder their sweepers do it too."""
    sandbox.start()
    attempt("sweep", lambda: storage.sweep(ORPHAN_SECONDS))


def connect(settings: Settings) -> redis.Redis:
    """A client whose every call ends within a second, Redis there or not."""
    return redis.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(ConstantBackoff(0.02), 1),
    )


def make_desk(
    settings: Settings,
    registry: Mapping[str, Strategy],
    metrics: Metrics,
    client: redis.Redis,
    sandbox: Sandbox,
) -> Desk:
    storage = Storage(settings.storage_url, settings.scratch_dir)
    clips, jobs = ClipStore(client), JobStore(client, settings, metrics.reached)
    broker = make_broker(settings)
    return Desk(
        settings=settings,
        registry=registry,
        metrics=metrics,
        storage=storage,
        clips=clips,
        jobs=jobs,
        intake=Intake(settings, registry, (storage, clips, jobs), sandbox, broker),
        health=Health(jobs, Fleet(client), storage, metrics, settings.queue_jobs),
        notifier=Notifier(settings.redis_url),
        keys=Keys(settings.api_keys),
        rate=RateLimit(client, settings.requests_per_minute),
        renders=Renders(client, storage, broker),
    )


def drain(desk: Desk) -> None:
    """Not ready from now on; who waits for a job is answered with its address."""
    desk.health.draining = True
    desk.notifier.drain()


class Server(uvicorn.Server):
    """uvicorn, which drains on the first signal: calls that wait are answered at once, so that it can end.

    The signal is not raised again after an orderly end, as uvicorn would: the exit code is 0.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn calls it)
        desk = getattr(self.app.state, "desk", None)
        if desk is not None:
            drain(desk)
        self.force_exit = self.should_exit  # a second signal waits for nobody
        self.should_exit = True


def serve_http(settings: Settings) -> int:
    """Serve until a signal; 0 after an orderly end."""
    configure_logging(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # ours: JSON, with the request's id
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    server = Server(app, config)
    server.run()
    return 0 if server.started else 1
