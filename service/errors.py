"""Every refusal of the service: one table, and the RFC 9457 problem that answers it.

An exception becomes a problem in one place, `problem_document`. The detail says what the caller should do;
`retryable` says whether the same request may succeed later. Unknown exceptions say nothing of themselves: no
traceback and no path leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from redis.exceptions import RedisError

from models.errors import EarshotError, MediaTooLarge, written

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """One line of the table."""

    status: int
    title: str
    retryable: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed_request": Kind(400, "The request cannot be read"),
        "unauthorized": Kind(401, "A valid API key is needed"),
        "not_found": Kind(404, "There is nothing here"),
        "method_not_allowed": Kind(405, "This address does not take this method"),
        "not_acceptable": Kind(406, "The result has no such form"),
        "job_not_finished": Kind(409, "The job has not finished", retryable=True),
        "job_canceled": Kind(409, "The job was canceled"),
        "expired": Kind(410, "It was here, and has expired"),
        "deadline_passed": Kind(410, "The deadline passed before the job began"),
        "media_too_large": Kind(413, "The media exceeds a limit"),
        "unsupported_media": Kind(415, "The container or codec is not supported"),
        "unsupported_content_type": Kind(415, "The body has a content type that is not supported"),
        "invalid_option": Kind(422, "An option has a wrong value"),
        "undecodable_media": Kind(422, "The media cannot be decoded"),
        "idempotency_mismatch": Kind(422, "The idempotency key was used with another request"),
        "rate_limited": Kind(429, "Too many requests", retryable=True),
        "quota_exceeded": Kind(429, "The caller's share of the queue is used up", retryable=True),
        "internal_error": Kind(500, "The service failed", retryable=True),
        "strategy_failed": Kind(500, "The strategy failed on this clip"),
        "worker_lost": Kind(500, "Every worker that took the job was lost"),
        "queue_full": Kind(503, "The queue is full", retryable=True),
        "draining": Kind(503, "The service is shutting down", retryable=True),
        "store_unavailable": Kind(503, "The job store cannot be reached", retryable=True),
        "storage_unavailable": Kind(503, "The storage cannot be used", retryable=True),
        "weights_missing": Kind(503, "The weights of the strategy are not installed"),
        "weights_invalid": Kind(503, "The weights of the strategy cannot be used"),
        "not_ready": Kind(503, "The service is not ready", retryable=True),
        "out_of_device_memory": Kind(507, "The clip does not fit in the memory of the device"),
    }
)
NAME_CHARACTERS = 64  # of a name that a client made up, when it is told of it
RETRY_AFTER = 5  # seconds, where nothing better is known


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field; `pointer` is a JSON pointer into the request."""

    pointer: str
    message: str


class Refusal(EarshotError):
    """A request the service answers with a problem: `code` is a key of `KINDS`, `detail` a sentence."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = KINDS[code].status
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        self.extra = extra


def problem_document(error: BaseException) -> dict[str, Any]:
    """The problem of an exception, without what only the request knows (`instance`, `request_id`)."""
    code, detail = code_and_detail(error)
    kind = KINDS[code]
    return {
        "type": f"urn:earshot:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "retryable": kind.retryable,
        "errors": [vars(field) for field in getattr(error, "errors", ())],
        **limits_of(error),
    }


def code_and_detail(error: BaseException) -> tuple[str, str]:
    """The code of an exception, and the sentence that may leave the process."""
    if isinstance(error, EarshotError) and error.code in KINDS:
        return error.code, str(error)
    if isinstance(error, RedisError):
        return "store_unavailable", "The job store does not answer just now; try again in a few seconds."
    if isinstance(error, OSError):
        return "storage_unavailable", "A file of the service cannot be read or written just now; try again."
    return "internal_error", "An unexpected error was logged under this request's id."


def limits_of(error: BaseException) -> dict[str, Any]:
    """The limit and the actual value, where a limit was passed."""
    if isinstance(error, MediaTooLarge):
        return {"limit": error.limit, "allowed": error.allowed, "actual": error.actual, "unit": error.unit}
    return dict(getattr(error, "extra", {}))


def headers_of(document: Mapping[str, Any], retry_after: float | None = None) -> dict[str, str]:
    """The headers that go with a problem: when to come back, and how to authenticate."""
    if document["status"] in {429, 503}:
        return {"Retry-After": str(max(1, round(retry_after or RETRY_AFTER)))}
    if document["status"] == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {}


def too_large(limit: str, allowed: float, actual: float, unit: str) -> Refusal:
    """413: names the limit and both values."""
    return Refusal(
        "media_too_large",
        f"The {limit} is {written(actual)} {unit}; the limit is {written(allowed)} {unit}.",
        extra={"limit": limit, "allowed": allowed, "actual": actual, "unit": unit},
    )


def invalid(pointer: str, message: str) -> Refusal:
    """422 for one field of the request."""
    return Refusal("invalid_option", f"{pointer}: {message}", errors=(FieldError(pointer, message),))
