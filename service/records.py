"""What a job is: the words that the API, the store and the worker share. Plain data, no Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from models.errors import EarshotError
from models.media import WindowPlan
from service.clips import Clip


class JobStatus(StrEnum):
    """Where a job is; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class QueueFull(EarshotError):
    """The service holds as many unfinished jobs as it may."""

    status = 503
    code = "queue_full"


class QuotaExceeded(EarshotError):
    """This tenant holds its share of unfinished jobs."""

    status = 429
    code = "quota_exceeded"


class IdempotencyMismatch(EarshotError):
    """The same Idempotency-Key came with another body."""

    status = 422
    code = "idempotency_mismatch"


class ClipGone(EarshotError):
    """The upload expired or was deleted before the job was made."""

    status = 410
    code = "expired"


@dataclass(frozen=True)
class Job:
    """What never changes of a job.

    `options` is the strategy's own JSON; `requested` is what the client named: `strategy`, or `auto`.
    `clip` is the upload (its `summary` is a `models.media.Summary` as JSON); `deadline` is in epoch seconds.
    `name` is what the client calls the job, unique while it lives; the id is never used again.
    """

    id: str
    tenant: str
    strategy: str
    clip: Clip
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    interactive: bool = False
    deadline: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    warnings: tuple[str, ...] = ()
    requested: str = ""
    name: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes) -> Job:
        values = json.loads(text)
        clip = Clip.of(values.pop("clip"))
        return cls(clip=clip, **{**values, "warnings": tuple(values["warnings"])})


@dataclass(frozen=True)
class Idempotency:
    """A client's key and the digest of everything it sent with it."""

    key: str
    body: str


@dataclass(frozen=True)
class Progress:
    """`stage` is `waiting`, `segmenting`, `done`, or the end that was not success: `failed`, `canceled`,
    `expired`."""

    stage: str
    frames_done: int
    frames_total: int
    windows_done: int
    windows_total: int


@dataclass(frozen=True)
class JobRecord:
    """A job and how far it is. Times are seconds since the epoch; `queue_position` 1 is the next to begin.

    `timing` sums milliseconds over windows by stage (`decode_ms`, ...) and holds `queue_ms`; `error` is a
    problem document; `models` says which weights answered.
    """

    job: Job
    status: JobStatus
    progress: Progress
    created_at: float
    started_at: float | None
    finished_at: float | None
    result_expires_at: float | None
    queue_position: int | None
    attempt: int
    max_attempts: int
    error: Mapping[str, Any] | None
    timing: Mapping[str, float]
    models: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.job.id


@dataclass(frozen=True)
class Blob:
    """A committed window: its storage key (NDJSON, one frame a line) and its number of frames."""

    window: int
    key: str
    frames: int


@dataclass(frozen=True)
class Event:
    """One entry of a job's stream; `id` is what `Last-Event-ID` brings back."""

    id: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Go:
    """Leave to run one window of a job, as the start number `starts`, under `token`."""

    job: Job
    plan: WindowPlan
    starts: int
    token: str
    waited: float | None = None  # seconds in the queue, where this window is the first of its job

    @property
    def lease(self) -> Lease:
        return Lease(self.job.id, self.plan.index, self.token)


@dataclass(frozen=True)
class Skip:
    """Nothing to do for this message: gone, done, stopped, running elsewhere, worn out or `suspect`."""

    reason: str
    strategy: str | None = None  # of a job that this message was the last straw for


@dataclass(frozen=True)
class Lease:
    """A window in work."""

    job: str
    window: int
    token: str


@dataclass(frozen=True)
class Send:
    """A message to put on the queue."""

    job: str
    window: int
    interactive: bool


@dataclass(frozen=True)
class Commit:
    """What a finished window brings: its blob and what the record sums up."""

    blob: str
    frames: int
    timing: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Committed:
    """`accepted` False: somebody else was first, or the job ended; delete the blob. `send` follows up."""

    accepted: bool
    finished: bool = False
    send: tuple[Send, ...] = ()
