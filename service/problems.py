"""Problem documents as answers: every exception of a request ends here, Starlette's and FastAPI's own too."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from models.errors import EarshotError
from service.errors import PROBLEM_TYPE, FieldError, Refusal, headers_of, problem_document
from service.options import message, pointer

METHODS = ("GET", "POST", "PUT", "DELETE")
STARLETTE_CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}
DETAILS = {
    "not_found": "There is nothing at this address; /docs lists what there is.",
    "method_not_allowed": "This address does not take this method; /docs lists those it takes.",
    "malformed_request": "The request cannot be read.",
}
NO_SLASH = "There is nothing at this address; addresses here do not end with a slash."


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII: whatever a client sent, half a surrogate pair too, can be written back."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401
        return json.dumps(content, separators=(",", ":")).encode()


class ProblemResponse(AsciiJSONResponse):
    """A problem document; `code` is its code."""

    media_type = PROBLEM_TYPE

    def __init__(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.code: str = document["code"]
        super().__init__(document, status_code=document["status"], headers=dict(headers))


def problem_response(request: Request, error: BaseException) -> ProblemResponse:
    """The answer to an exception."""
    document = problem_document(error)
    headers = headers_of(document, getattr(error, "retry_after", None))
    return stored_problem_response(request, document, headers)


def stored_problem_response(
    request: Request, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """A problem that is known already (a failed job's), as the answer to this request."""
    mine = {"instance": request.scope["path"], "request_id": request.scope["state"]["request_id"]}
    headers = headers_of(document) if headers is None else headers
    return ProblemResponse({**document, **mine}, headers)


async def answer_refusal(request: Request, error: Exception) -> Response:
    """EarshotError and RedisError."""
    response = problem_response(request, error)
    count_rejection(request, response)
    return response


async def answer_validation(request: Request, error: Exception) -> Response:
    """FastAPI's findings in the path, the query and the headers."""
    assert isinstance(error, RequestValidationError)
    fields = tuple(
        FieldError(pointer(one["loc"]), message(one["type"], one["msg"], ())) for one in error.errors()
    )
    detail = " ".join(f"{one.pointer}: {one.message}" for one in fields[:3])
    return await answer_refusal(request, Refusal("invalid_option", detail, errors=fields))


async def answer_http(request: Request, error: Exception) -> Response:
    """Starlette's own: no such address, no such method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    code = STARLETTE_CODES.get(error.status_code, "malformed_request")
    slash = code == "not_found" and request.scope["path"].endswith("/")
    response = problem_response(request, Refusal(code, NO_SLASH if slash else DETAILS[code]))
    if code == "method_not_allowed":
        response.headers["Allow"] = ", ".join(methods_of(request))
    return response


def methods_of(request: Request) -> list[str]:
    """What this address takes: all of it, where Starlette would name the methods of one route."""
    routes = request.app.routes
    taken = [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return [*taken, "HEAD"] if "GET" in taken else taken


def count_rejection(request: Request, response: ProblemResponse) -> None:
    request.app.state.metrics.rejected.labels(response.code).inc()


HANDLERS: Mapping[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    EarshotError: answer_refusal,
    RedisError: answer_refusal,
    RequestValidationError: answer_validation,
    HTTPException: answer_http,
}
