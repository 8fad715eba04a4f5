"""What the service says about itself: Prometheus metrics (`avs_*`, seconds) and structured JSON logs.

One `Metrics` a process, made by whoever starts the process and handed on through constructors. Every event is
counted once, by the process whose doing it was: `avs_jobs` summed over API and workers is the truth.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from structlog.typing import EventDict, Processor

HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
QUEUE_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
BATCH_FRAMES = (1, 2, 4, 8, 12, 16)
STAGES = ("decode", "audio_encode", "image_encode", "detect", "mask_decode", "serialize")


class Metrics:
    """Every metric of both processes; a process leaves alone those that are not its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.http(self.registry)
        self.queue(self.registry)
        self.work(self.registry)

    def http(self, registry: CollectorRegistry) -> None:
        """What the API counts."""
        labels = ("method", "route", "status")
        self.requests = Counter("avs_http_requests", "Requests answered.", labels, registry=registry)
        self.request_seconds = Histogram(
            "avs_http_request_seconds",
            "From the first byte of the request to the last of the answer.",
            ("method", "route"),
            buckets=HTTP_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "avs_http_requests_in_flight", "Requests being answered.", registry=registry
        )
        self.rejected = Counter("avs_rejected", "Requests refused, by code.", ("reason",), registry=registry)

    def queue(self, registry: CollectorRegistry) -> None:
        """What becomes of jobs."""
        labels = ("status", "strategy")
        self.jobs = Counter("avs_jobs", "Jobs that reached a status.", labels, registry=registry)
        self.queue_depth = Gauge("avs_queue_depth", "Jobs that wait to begin.", registry=registry)
        self.queue_oldest_seconds = Gauge(
            "avs_queue_oldest_seconds", "Age of the job that has waited longest.", registry=registry
        )
        self.queue_seconds = Histogram(
            "avs_queue_seconds",
            "From a job's creation to its first window.",
            ("strategy",),
            buckets=QUEUE_SECONDS,
            registry=registry,
        )
        self.retries = Counter("avs_retries", "Windows started again.", ("strategy",), registry=registry)
        self.dead_letters = Counter(
            "avs_dead_letters", "Jobs given up after the last attempt.", ("strategy",), registry=registry
        )

    def work(self, registry: CollectorRegistry) -> None:
        """What a worker does."""
        self.stage_seconds = Histogram(
            "avs_stage_seconds",
            f"Time of a stage of one window: {', '.join(STAGES)}.",
            ("stage", "strategy"),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.batch_frames = Histogram(
            "avs_batch_frames",
            "Frames of a merged network call.",
            ("model",),
            buckets=BATCH_FRAMES,
            registry=registry,
        )
        self.frames = Counter("avs_frames", "Frames segmented.", ("strategy",), registry=registry)
        self.embedding_cache = Lookups()
        registry.register(self.embedding_cache)
        self.device_memory_bytes = Gauge(
            "avs_device_memory_bytes", "Memory held on the device.", ("device",), registry=registry
        )
        self.worker_restarts = Counter(
            "avs_worker_restarts",
            "Workers that went silent without an orderly end, and that a supervisor has to start again.",
            registry=registry,
        )
        self.model_load_seconds = Gauge(
            "avs_model_load_seconds", "Time to load a network.", ("model",), registry=registry
        )

    def reached(self, status: str, strategy: str) -> None:
        """A step of this process brought a job to a status."""
        self.jobs.labels(status, strategy).inc()

    def expose(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class Lookups(Collector):
    """`avs_embedding_cache`: the caches count by themselves, `read` tells hits and misses of each model."""

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, tuple[int, int]]] = dict

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "avs_embedding_cache", "Look-ups of an embedding.", labels=("model", "result")
        )
        for model, (hits, misses) in self.read().items():
            family.add_metric((model, "hit"), hits)
            family.add_metric((model, "miss"), misses)
        yield family


def configure_logging(level: str = "INFO") -> None:
    """One JSON object a line on stderr, for our own log and for every library's."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                name_first,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def name_first(_logger: Any, _method: str, event: EventDict) -> EventDict:  # noqa: ANN401
    """Time, level and event at the head of the line, where the eye looks."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**head, **event}
