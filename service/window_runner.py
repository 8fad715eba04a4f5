"""One window from message to commit: begin, decode, segment, encode, store, commit, send the next.

Strategies see a window and know nothing of this. Whatever happens here ends in the job's record, never in an
exception: Dramatiq would do nothing useful with one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import redis
import structlog
from dramatiq.brokers.redis import RedisBroker

from models.errors import EarshotError
from models.media import Summary, Window
from models.stages import measured, stage
from models.strategies import FrameMasks
from service.clips import media_of
from service.decoding import Sandbox, media_limits
from service.engine import send_all
from service.errors import Refusal, problem_document
from service.fleet import Fleet
from service.jobs import JobStore
from service.loading import Loaded, Ready
from service.masks import Outputs, frame_line
from service.quarantine import Quarantine
from service.records import Commit, Go, Lease, Send, Skip
from service.settings import Settings
from service.storage import Storage
from service.telemetry import Metrics
from service.window_cache import WindowCache

T = TypeVar("T")
LOG = structlog.get_logger(__name__)
PATIENCE_SECONDS = 20.0  # Redis may restart under a window; the lease must outlast this
PASS_ON_SECONDS = 0.2
TIMING = {  # a stage of the metrics -> its name in a result
    "decode": "decode_ms",
    "audio_encode": "audio_ms",
    "image_encode": "encoder_ms",
    "detect": "detect_ms",
    "mask_decode": "decoder_ms",
    "serialize": "serialize_ms",
}


class Stopped(Exception):
    """The window need not be finished: its job ended, or it is somebody else's now."""


class StrategyBroke(Exception):
    """A strategy raised an OSError. Only one of the storage means that the window is to be tried again."""


class Elsewhere(Exception):
    """Another worker has loaded the strategy, this one has not."""


@dataclass
class InWork:
    """A window that a thread of this process works on."""

    lease: Lease
    stop: threading.Event = field(default_factory=threading.Event)


class WindowRunner:
    """Runs windows in the threads of one worker process."""

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded,
        stores: tuple[JobStore, Storage],
        broker: RedisBroker,
        metrics: Metrics,
    ) -> None:
        self.settings, self.loaded, self.metrics, self.broker = settings, loaded, metrics, broker
        self.jobs, self.storage = stores
        self.fleet = Fleet(self.jobs.redis)
        self.sandbox = Sandbox(settings)
        self.cache = WindowCache(settings.window_cache_bytes)
        self.quarantine = Quarantine()
        self.limits = media_limits(settings)
        self._in_work: dict[str, InWork] = {}
        self._lock = threading.Lock()

    def run(self, job_id: str, window: int) -> None:
        """What a message asks for. Begins it beside others, or alone if it was lost before."""
        try:
            with self.quarantine.together():
                skipped = self._begin_and_run(job_id, window, alone=False)
            if skipped == Skip("suspect"):
                with self.quarantine.alone():
                    self._begin_and_run(job_id, window, alone=True)
        except (redis.RedisError, OSError) as error:
            # Not the clip's fault. The lease runs out, and the reconciler sends the window again.
            LOG.warning("window given up", job_id=job_id, window=window, error=str(error))

    def renew(self) -> None:
        """The heartbeat of every window in work."""
        with self._lock:
            leases = [work.lease for work in self._in_work.values()]
        for job_id in self.jobs.heartbeat(leases):
            self.stop(job_id)

    def stop(self, job_id: str) -> None:
        """Leave off the windows of this job at their next frame."""
        with self._lock:
            for work in self._in_work.values():
                if work.lease.job == job_id:
                    work.stop.set()

    def hand_back(self) -> int:
        """Give up every window in work, for others to begin at once; how many there were."""
        with self._lock:
            works = list(self._in_work.values())
        for work in works:
            work.stop.set()
        sends: list[Send | None] = [self.jobs.release(work.lease) for work in works]
        send_all(self.broker, [send for send in sends if send is not None])
        return len(works)

    def _begin_and_run(self, job_id: str, window: int, alone: bool) -> Skip | None:
        token = uuid4().hex
        leave = patiently(lambda: self.jobs.begin_window(job_id, window, token, alone))
        if isinstance(leave, Skip):
            if leave.strategy is not None:
                self.metrics.dead_letters.labels(leave.strategy).inc()
            LOG.debug("window skipped", job_id=job_id, window=window, reason=leave.reason)
            return leave
        with (
            self._working(leave) as work,
            structlog.contextvars.bound_contextvars(
                job_id=job_id, request_id=leave.job.request_id, window=window, start=leave.starts
            ),
        ):
            self._guarded(leave, work)
        return None

    @contextmanager
    def _working(self, leave: Go) -> Iterator[InWork]:
        """While the block runs, the lease is renewed and can be stopped."""
        work = InWork(leave.lease)
        with self._lock:
            self._in_work[leave.token] = work
        if leave.waited is not None:
            self.metrics.queue_seconds.labels(leave.job.strategy).observe(leave.waited)
        if leave.starts > 1:
            self.metrics.retries.labels(leave.job.strategy).inc()
        try:
            yield work
        finally:
            with self._lock:
                del self._in_work[leave.token]

    def _guarded(self, leave: Go, work: InWork) -> None:
        """The job boundary: the errors of a clip or of a strategy end its job, and nothing else."""
        try:
            self._segment(leave, work)
        except Stopped:
            LOG.info("window stopped")
        except Elsewhere:
            self._pass_on(leave)
        except EarshotError as error:
            self._fail(leave, error)
        except OSError:
            # The machine's fault, a full disk say: the start does not count, and it is sent again in a while.
            self.jobs.release(leave.lease)
            raise
        except redis.RedisError:
            raise
        except Exception as error:  # the one broad catch of the process: a strategy's bug fails its job only
            LOG.exception("strategy failed", strategy=leave.job.strategy)
            kind = type(error.__cause__ if isinstance(error, StrategyBroke) else error).__name__
            detail = f"The strategy {leave.job.strategy} failed on this clip ({kind})."
            self._fail(leave, Refusal("strategy_failed", detail))

    def _segment(self, leave: Go, work: InWork) -> None:
        job = leave.job
        ready = self._ready(job.strategy)
        key = (job.clip.id, leave.plan, ready.strategy.audio_rates, ready.strategy.needs_pixels)
        blob = f"windows/{job.id}/{leave.plan.index:05d}-{leave.token}.ndjson"
        with self.loaded.batcher.window(), measured(self.loaded.settle) as seconds:
            with stage("decode"):
                window = self.cache.get(key, lambda: self._decode(leave, ready))
            self._write(blob, window, leave, work)
        frames = len(window.timestamps)
        timing = {told: 1000 * seconds.get(name, 0.0) for name, told in TIMING.items()}
        commit = Commit(blob, frames, timing, ready.models, warnings_of(window, ready))
        committed = patiently(lambda: self.jobs.commit_window(leave.lease, commit))
        if not committed.accepted:
            self.storage.delete(blob)
            raise Stopped
        self._count(job.strategy, frames, seconds)
        if committed.finished:
            LOG.info("job succeeded")
        patiently(lambda: send_all(self.broker, committed.send))

    def _count(self, strategy: str, frames: int, seconds: Mapping[str, float]) -> None:
        """The metrics of a committed window: they sum up to what the results say."""
        self.metrics.frames.labels(strategy).inc(frames)
        for name, spent in seconds.items():
            self.metrics.stage_seconds.labels(name, strategy).observe(spent)

    def _ready(self, strategy: str) -> Ready:
        """The strategy, if it is loaded here; Elsewhere, if it is in another worker."""
        if strategy in self.loaded.ready:
            return self.loaded.ready[strategy]
        said = [worker["strategies"].get(strategy, {}) for worker in self.fleet.workers()]
        if any(one.get("ready") for one in said):
            raise Elsewhere
        unloaded = Refusal("weights_missing", f"No worker was told to load {strategy}.")
        why = self.loaded.refusals.get(strategy, unloaded)
        raise Refusal(why.code, why.detail)  # a new one: each raise of the same would add to its traceback

    def _pass_on(self, leave: Go) -> None:
        """Put a window back for a worker that has its strategy; slowly, as it may come here again."""
        time.sleep(PASS_ON_SECONDS)
        send = self.jobs.release(leave.lease)
        if send is not None:
            send_all(self.broker, [send])

    def _decode(self, leave: Go, ready: Ready) -> Window:
        clip = leave.job.clip
        return self.sandbox.read_window(
            media_of(clip, self.storage),
            Summary(**clip.summary),
            leave.plan,
            rates=ready.strategy.audio_rates,
            pixels=ready.strategy.needs_pixels,
            limits=self.limits,
        )

    def _write(self, blob: str, window: Window, leave: Go, work: InWork) -> None:
        """Segment frame by frame into the store; nothing is stored if the job stops meanwhile."""
        ready = self.loaded.ready[leave.job.strategy]
        options = ready.options.validate_python(leave.job.options)
        outputs = Outputs(**leave.job.outputs)
        with self.storage.open_write(blob) as file:
            for position, masks in enumerate(masks_of(ready, window, options)):
                if work.stop.is_set():
                    raise Stopped
                with stage("serialize"):
                    file.write(frame_line(window, position, masks, outputs))
            if work.stop.is_set():
                raise Stopped

    def _fail(self, leave: Go, error: EarshotError) -> None:
        problem = problem_document(error)
        if patiently(lambda: self.jobs.fail(leave.lease, problem)):
            LOG.warning("job failed", code=problem["code"], detail=problem["detail"])


def masks_of(ready: Ready, window: Window, options: Any) -> Iterator[FrameMasks]:  # noqa: ANN401 (each its own)
    """What the strategy yields."""
    try:
        yield from ready.segmenter(window, options)
    except OSError as error:
        raise StrategyBroke from error


def warnings_of(window: Window, ready: Ready) -> tuple[str, ...]:
    """What the user should know of the answer."""
    if window.has_audio or not ready.strategy.audio_rates:
        return ()
    return ("The clip has no sound; it was treated as silent.",)


def patiently(call: Callable[[], T]) -> T:
    """Try again while Redis is away. Every step may be told twice."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except (redis.ConnectionError, redis.TimeoutError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
