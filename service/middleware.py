"""Around every request: an id, a line in the log, the metrics, a problem where an exception got through."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem_response
from service.telemetry import Metrics

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
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
        answer = Answer(send, request_id_of(scope))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        with self.metrics.requests_in_flight.track_inprogress():
            await self.answered(scope, receive, answer)
        self.count(scope, answer)

    async def answered(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Run the application. The one broad catch of this process: no exception stays unexplained."""
        try:
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            answer.status = CLIENT_GONE
        except Exception as error:
            log.exception("request failed")
            if not answer.started:
                await problem_response(Request(scope), error)(scope, receive, answer)

    def count(self, scope: Scope, answer: Answer) -> None:
        """Routes, not paths, label the metrics: few values, whatever clients ask for."""
        seconds = time.perf_counter() - answer.began
        route = getattr(scope.get("route"), "path", "unknown")
        self.metrics.requests.labels(scope["method"], route, str(answer.status)).inc()
        self.metrics.request_seconds.labels(scope["method"], route).observe(seconds)
        if scope["path"] not in QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                ms=round(seconds * 1000, 1),
            )


class Answer:
    """`send`, which adds the request's id and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status = CLIENT_GONE
        self.started = False
        self.began = time.perf_counter()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        with suppress(OSError):  # the client is gone; its request ends all the same
            await self.send(message)


def request_id_of(scope: Scope) -> str:
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if ID.fullmatch(offered) else uuid4().hex


def bind(**names: Any) -> None:  # noqa: ANN401
    """Add to every further log line of this request."""
    structlog.contextvars.bind_contextvars(**names)
