"""The worker process: loads the strategies once, then runs windows until it is told to stop.

Its threads: Dramatiq's (one for each window in work, one for each queue), a heartbeat, a listener for the
bell and for jobs that were stopped, the reconciler and the sweeper. SIGTERM stops them in order: no message
is taken any more, windows in work are finished, and those that take too long are handed back.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any
from uuid import uuid4

import dramatiq
import structlog
from prometheus_client import start_http_server

from service.clips import ClipStore
from service.engine import ACTORS, INTERACTIVE, WINDOWS, Listener, Slots, connect, make_broker
from service.fleet import Fleet
from service.jobs import JobStore
from service.loading import Loaded
from service.reconciler import Every, Reconciler, Sweeper, attempt
from service.redis_server import RedisAway, check
from service.renders import ACTOR as RENDER_OVERLAY
from service.renders import Renderer
from service.settings import Settings
from service.steps import BELL, STOPPED
from service.storage import Storage
from service.telemetry import Metrics, configure_logging
from service.window_runner import WindowRunner

LOOK_SECONDS = 0.2  # how often an idle thread of Dramatiq sees whether it should end
HAND_BACK_SECONDS = 3.0  # of the drain, kept for giving up what does not finish
KEEPER_SECONDS = 0.5  # of the same, for a step of each keeper that does not end
LOG = structlog.get_logger(__name__)


def work(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; the exit code. Raises RedisUnfit."""
    configure_logging(settings.log_level)
    check_redis(settings.redis_url)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        if worker.state == "starting":
            raise SystemExit(0)  # nothing is in work, and loading may take minutes

    worker = Worker(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker.start()
    stopping.wait()
    finished = worker.stop()
    LOG.info("worker stopped", windows_handed_back=not finished)
    if not finished:
        os._exit(0)  # a thread deep in a network cannot be ended otherwise
    return 0


def check_redis(url: str) -> None:
    """Raises RedisUnfit for a server that would lose jobs; one that is away just now is waited for later."""
    try:
        for warning in check(url):
            LOG.warning(warning)
    except RedisAway as error:
        LOG.warning("redis is away", error=str(error))


class Worker:
    """One process's worth. `start` returns when it takes messages, `stop` when it has let go of all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.state = "starting"
        self.started_at = time.time()
        self.metrics = Metrics()
        client = connect(settings)
        self.client, self.fleet = client, Fleet(client)
        self.jobs = JobStore(client, settings, self.metrics.reached)
        self.storage = Storage(settings.storage_url, settings.scratch_dir)
        self.slots = Slots(settings.worker_threads)
        self.broker = make_broker(settings, self.slots)
        self.loaded = Loaded(settings, self.count_batch)
        self.metrics.embedding_cache.read = self.loaded.lookups
        stores = (self.jobs, self.storage)
        self.runner = WindowRunner(settings, self.loaded, stores, self.broker, self.metrics)
        self.consumers = dramatiq.Worker(
            self.broker, worker_threads=settings.worker_threads, worker_timeout=round(1000 * LOOK_SECONDS)
        )
        self.listener = Listener(
            settings, {BELL: self.slots.ring, STOPPED: self.runner.stop}, self.slots.ring_all
        )
        self.beats = Every("heartbeat", settings.heartbeat_seconds, self.beat)
        sweeper = Sweeper(self.jobs, ClipStore(client), self.storage)
        reconciler = Reconciler(self.jobs, self.broker)
        self.keepers = [
            self.beats,
            Every("reconciler", settings.reconcile_seconds, reconciler),
            Every("sweeper", settings.sweep_seconds, sweeper),
        ]
        self.http: Any = None

    def start(self) -> None:
        """Say that it starts, load, then take messages and say that it is ready."""
        LOG.info("worker starting", worker=self.id)
        self.beats.start()
        if self.settings.worker_metrics_port:
            self.http, _ = start_http_server(
                self.settings.worker_metrics_port, self.settings.worker_metrics_host, self.metrics.registry
            )
        self.runner.sandbox.start()
        self.loaded.load(lambda: attempt("publish", self.publish))
        for name, model in self.loaded.models.items():
            self.metrics.model_load_seconds.labels(name).set(model["load_seconds"])
        if self.loaded.device_bytes() is not None:
            memory = self.metrics.device_memory_bytes.labels(self.loaded.device)
            memory.set_function(lambda: self.loaded.device_bytes() or 0)
        render = Renderer(self.settings, self.jobs, self.storage).run
        self.act(ACTORS[INTERACTIVE], INTERACTIVE, 0, self.runner.run)
        self.act(ACTORS[WINDOWS], WINDOWS, 1, self.runner.run)
        self.act(RENDER_OVERLAY, WINDOWS, 1, render)
        self.consumers.start()
        self.listener.start()
        for keeper in self.keepers[1:]:
            keeper.start()
        self.declare("ready")
        LOG.info("worker ready", worker=self.id, strategies=sorted(self.loaded.ready))

    def act(self, name: str, queue: str, priority: int, run: Callable[..., None]) -> None:
        """Let Dramatiq call `run` for the messages of this name."""
        dramatiq.actor(actor_name=name, queue_name=queue, priority=priority, broker=self.broker)(run)

    def count_batch(self, name: str, size: int) -> None:
        self.metrics.batch_frames.labels(name).observe(size)

    def beat(self) -> None:
        """A sign of life of the process and of each window in work."""
        self.runner.renew()
        self.publish()

    def publish(self) -> None:
        """Say what this worker is; count those of which nothing was heard any more."""
        silent = self.fleet.publish(
            {
                "id": self.id,
                "state": self.state,
                "threads": self.settings.worker_threads,
                "started_at": self.started_at,
                **self.loaded.statement(),
            }
        )
        self.metrics.worker_restarts.inc(silent)

    def declare(self, state: str) -> None:
        self.state = state
        attempt("publish", self.publish)

    def stop(self) -> bool:
        """Whether every window in work was finished; the others are handed back."""
        LOG.info("worker draining", worker=self.id)
        until = time.monotonic() + max(0.0, self.settings.drain_seconds - HAND_BACK_SECONDS)
        self.slots.close()
        self.declare("draining")
        self.consumers.stop(timeout=round(1000 * max(0.1, until - time.monotonic())))
        attempt("hand back", self.runner.hand_back)
        finished = not any(thread.is_alive() for thread in self.consumers.workers)
        for keeper in self.keepers:
            keeper.stop(KEEPER_SECONDS)
        self.listener.stop()
        attempt("withdraw", lambda: self.fleet.withdraw(self.id))
        if self.http is not None:
            self.http.shutdown()
            self.http.server_close()
        self.client.close()
        return finished
