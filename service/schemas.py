"""The documents of the API, as OpenAPI shows them. Only shapes: the words of a refusal are in `errors.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.records import JobStatus


class Document(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class PointedError(Document):
    pointer: str
    """A JSON pointer to the field."""
    message: str


class Problem(Document):
    """RFC 9457. `code` is stable; `detail` is for people."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:earshot:problem:invalid_option",
                    "title": "An option has a wrong value",
                    "status": 422,
                    "detail": "/thresholds/mask: Input should be less than or equal to 1.",
                    "instance": "/v1/segment/ac-fpn",
                    "code": "invalid_option",
                    "retryable": False,
                    "request_id": "5f0c3c0e4b1c4d0e8f0a6f7c7b0a1d2e",
                    "errors": [
                        {
                            "pointer": "/thresholds/mask",
                            "message": "Input should be less than or equal to 1.",
                        }
                    ],
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retryable: bool
    """The same request may succeed later."""
    request_id: str
    errors: list[PointedError] = []


class Upload(Document):
    """A clip that is here; name it as `upload_id` in as many requests as you like until it expires."""

    upload_id: str
    sha256: str
    size: int
    duration: float
    width: int
    height: int
    fps: float | None
    has_audio: bool
    expires_at: str


class ProgressDocument(Document):
    stage: str
    frames_done: int
    frames_total: int


class Urls(Document):
    status: str
    result: str
    frames: str
    events: str
    cancel: str


class JobDocument(Document):
    id: str
    status: JobStatus
    strategy: str
    """The one that answers."""
    requested: str
    """The one that was asked for: the same, or `auto`."""
    created_at: str
    started_at: str | None
    finished_at: str | None
    queue_position: int | None
    progress: ProgressDocument
    attempt: int
    max_attempts: int
    deadline: str | None
    result_expires_at: str | None
    urls: Urls
    error: dict[str, Any] | None
    """A problem, when the job failed."""
    detail: str | None
    """Why there is nothing more yet, and what to do, where that is not plain."""
    metadata: dict[str, Any]


class JobPage(Document):
    data: list[JobDocument]
    next_cursor: str | None


class MaskDocument(Document):
    """`counts` for `coco_rle` (pycocotools reads it), base64 `data` for `png`."""

    format: Literal["coco_rle", "png"]
    size: list[int]
    counts: str | None = None
    data: str | None = None


class InstanceDocument(Document):
    id: int
    label: str
    score: float
    audio_score: float | None
    bbox: list[float]
    """x1, y1, x2, y2 in pixels of the frame, origin top left."""
    mask: MaskDocument


class FrameDocument(Document):
    index: int
    timestamp: float
    audio_window: list[float]
    sounding: bool
    mask: MaskDocument
    area: int
    reason: str | None = None
    """Why the mask is empty, when it is."""
    instances: list[InstanceDocument] | None = None
    heatmap: MaskDocument | None = None


class MediaDocument(Document):
    width: int
    height: int
    fps: float | None
    duration: float
    rotation: int


class ResultDocument(Document):
    job_id: str
    strategy: str
    """The one that answered."""
    requested: str
    """The one that was asked for: the same, or `auto`."""
    models: dict[str, dict[str, Any]]
    media: MediaDocument
    frames: list[FrameDocument]
    timing: dict[str, float]
    """Milliseconds in the queue and, summed over the windows, in each stage; 0 where a strategy has none."""
    warnings: list[str]


class StrategyDocument(Document):
    name: str
    summary: str
    params: dict[str, Any]
    """JSON schema of `params`."""
    presets: dict[str, dict[str, Any]]
    limits: dict[str, Any]
    weights: list[str]
    ready: bool
    reason: str | None
    """Why it is not ready."""


class RecommendedDocument(Document):
    name: str
    reason: str
    """Why it stands where it does."""


class AutoDocument(Document):
    """`auto`, and a request that names no strategy: options decide first, then this order."""

    strategy: str | None
    """What would answer a request without options now; null where nothing is ready."""
    order: list[RecommendedDocument]


class StrategyPage(Document):
    data: list[StrategyDocument]
    auto: AutoDocument


class ModelDocument(Document):
    model_config = ConfigDict(extra="allow")

    id: str
    sha256: str | None = None
    licence: str | None = None
    device: str | None = None
    dtype: str | None = None
    loaded: bool = False


class ModelPage(Document):
    data: list[ModelDocument]


class Health(Document):
    status: Literal["ok"]


class Readiness(Document):
    ready: bool
    checks: dict[str, str] = Field(examples=[{"redis": "ok", "storage": "ok", "worker": "ok"}])
    workers: list[dict[str, Any]] = []


class Welcome(Document):
    name: str
    docs: str
    openapi: str
    strategies: str
