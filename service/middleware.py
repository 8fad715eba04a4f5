"""Around every request: an id, a line in the log, the metrics, a problem where an exception got through. What
the page loads first is compressed."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem_response
from service.telemetry import Metrics

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PACKED = ("/playground/", "/samples/", "/v1/strategies")  # and "/" itself
QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds; only the metrics count them
CLIENT_GONE = 499  # what proxies write where nobody was left to answer

log = structlog.get_logger("access")


class RequestScope:
    """ASGI middleware, the outermost of ours. The id of a request is its own `X-Request-ID`, or a new one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, scope = scope["method"], as_get(scope)
        answer = Answer(send, request_id_of(scope), headers_only=method == "HEAD")
        scope.setdefault("state", {})["request_id"] = answer.request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        with self.metrics.requests_in_flight.track_inprogress():
            await self.answered(scope, receive, answer)
        self.count(method, scope, answer)

    async def answered(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Run the application. The one broad catch of this process: no exception stays unexplained."""
        try:
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            if not answer.ended:
                answer.status = CLIENT_GONE
        except Exception as error:
            log.exception("request failed")
            if not answer.started:
                await problem_response(Request(scope), error)(scope, receive, answer)

    def count(self, method: str, scope: Scope, answer: Answer) -> None:
        """Routes, not paths, label the metrics: few values, whatever clients ask for."""
        seconds = time.perf_counter() - answer.began
        route = getattr(scope.get("route"), "path", "unknown")
        self.metrics.requests.labels(method, route, str(answer.status)).inc()
        self.metrics.request_seconds.labels(method, route).observe(seconds)
        if scope["path"] not in QUIET:
            log.info(
                "request",
                method=method,
                path=scope["path"],
                status=answer.status,
                ms=round(seconds * 1000, 1),
            )


class Packed(GZipMiddleware):
    """Compresses the texts that every visit of the page loads. Results are left alone: masks are run lengths
    or PNG already, and a stream of frames is not to wait for a full block."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == "/" or path.startswith(PACKED):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Answer:
    """`send`, which adds the request's id and remembers the status; `headers_only` leaves out the body."""

    def __init__(self, send: Send, request_id: str, headers_only: bool = False) -> None:
        self.send, self.request_id, self.headers_only = send, request_id, headers_only
        self.status = CLIENT_GONE
        self.started = self.ended = False
        self.began = time.perf_counter()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        elif self.headers_only:
            if self.ended:
                raise ClientDisconnect  # a stream that would go on for nobody
            self.ended, message = True, {"type": "http.response.body"}
        with suppress(OSError):  # the client is gone; its request ends all the same
            await self.send(message)


def as_get(scope: Scope) -> Scope:
    """A HEAD is answered like the GET it asks about (RFC 9110); this server leaves out the body."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def request_id_of(scope: Scope) -> str:
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if ID.fullmatch(offered) else uuid4().hex


def bind(**names: Any) -> None:  # noqa: ANN401
    """Add to every further log line of this request."""
    structlog.contextvars.bind_contextvars(**names)
