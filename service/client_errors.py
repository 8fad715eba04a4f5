"""What the client raises: one tree, by the code of the service's problem document.

ClientError                what happened                         what to do
  ServerUnreachable        nobody answers at this address        start the service, or correct the URL
  WaitTimeout              the job goes on, our patience ended   call `wait` again
  Refused                  the service said no: `problem` is its document, `code` the name of its reason
    InvalidRequest         an option or the request is wrong     change what `errors` points at
    MediaRefused           too large, unknown or broken clip     send another, or less of it
    Unauthorized           no valid API key                      pass `api_key=`
    NotFound               no such job, upload or strategy       look at the id or the name
    Conflict               the job has not finished              look at `job.refresh().status`
    Canceled               somebody canceled the job             submit again
    Expired                deadline passed, or result too old    submit again
    Overloaded             429 or 503, even after the retries    come back after `retry_after` seconds
    WeightsUnavailable     weights missing or unusable           run the command in the message on the server
    OutOfDeviceMemory      the clip does not fit on the device   send smaller frames
    ServiceFailed          a fault of the service                report `request_id`
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

RETRIED = {429, 502, 503, 504}


class ClientError(Exception):
    """Base of all."""


class ServerUnreachable(ClientError):
    pass


class WaitTimeout(ClientError):
    pass


class Refused(ClientError):
    """A problem document (RFC 9457) of the service."""

    def __init__(self, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.problem = problem
        self.status = int(problem.get("status", 500))
        self.code = str(problem.get("code", "unknown"))
        self.errors: Sequence[Mapping[str, str]] = problem.get("errors") or ()
        self.request_id = problem.get("request_id")
        self.retry_after = retry_after
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {self.status}")

    @property
    def worth_another_try(self) -> bool:
        return self.status in RETRIED and bool(self.problem.get("retryable"))


class InvalidRequest(Refused):
    pass


class MediaRefused(Refused):
    pass


class Unauthorized(Refused):
    pass


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


class Canceled(Refused):
    pass


class Expired(Refused):
    pass


class Overloaded(Refused):
    pass


class WeightsUnavailable(Refused):
    pass


class OutOfDeviceMemory(Refused):
    pass


class ServiceFailed(Refused):
    pass


BY_CODE: Mapping[str, type[Refused]] = {
    "malformed_request": InvalidRequest,
    "method_not_allowed": InvalidRequest,
    "not_acceptable": InvalidRequest,
    "unsupported_content_type": InvalidRequest,
    "invalid_option": InvalidRequest,
    "idempotency_mismatch": InvalidRequest,
    "media_too_large": MediaRefused,
    "unsupported_media": MediaRefused,
    "undecodable_media": MediaRefused,
    "unauthorized": Unauthorized,
    "not_found": NotFound,
    "job_not_finished": Conflict,
    "job_canceled": Canceled,
    "expired": Expired,
    "deadline_passed": Expired,
    "rate_limited": Overloaded,
    "quota_exceeded": Overloaded,
    "queue_full": Overloaded,
    "draining": Overloaded,
    "store_unavailable": Overloaded,
    "storage_unavailable": Overloaded,
    "not_ready": Overloaded,
    "weights_missing": WeightsUnavailable,
    "weights_invalid": WeightsUnavailable,
    "out_of_device_memory": OutOfDeviceMemory,
    "internal_error": ServiceFailed,
    "strategy_failed": ServiceFailed,
    "worker_lost": ServiceFailed,
}


def refusal(response: httpx.Response) -> Refused:
    """The problem in an answer; a proxy in between may answer with something else."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("status"), int):
        problem = {
            "status": response.status_code,
            "title": f"HTTP {response.status_code}",
            "retryable": response.status_code in RETRIED,
        }
    return problem_error(problem, seconds(response.headers.get("Retry-After")))


def problem_error(problem: Mapping[str, Any], retry_after: float | None = None) -> Refused:
    """The exception of a problem: by its code, or by its status where the code is unknown here."""
    status = int(problem.get("status", 500))
    by_status = Overloaded if status in RETRIED else InvalidRequest if status < 500 else ServiceFailed
    return BY_CODE.get(str(problem.get("code")), by_status)(problem, retry_after)


def seconds(header: str | None) -> float | None:
    """`Retry-After` is a number of seconds or a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
