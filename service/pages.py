"""The playground at `/`: static files beside the API, and the samples that it offers.

The page is a client like any other and calls the public API only. Its policy lets in nothing from elsewhere
and no inline script or style. The files carry validators, not versions: a browser asks each time and is
answered 304, so that a new release is seen at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter, Request
from fastapi.staticfiles import StaticFiles
from starlette.responses import FileResponse, Response
from starlette.types import Scope

from service.problems import AsciiJSONResponse
from service.schemas import Welcome

HERE = Path(__file__).parent
PLAYGROUND, SAMPLES = HERE / "playground", HERE / "samples"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
)
SHOWN = frozenset({".css", ".html", ".jpg", ".js", ".json", ".m4a", ".mp4", ".svg", ".wav"})

router = APIRouter(tags=["service"])


class Files(StaticFiles):
    """A folder of the page, without what is no part of it, such as the programs that drew the samples."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if Path(path).suffix in SHOWN else ("", None)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


@router.get(
    "/",
    summary="The playground, or where to go from here",
    operation_id="welcome",
    response_model=Welcome,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def welcome(request: Request) -> Response:
    """A page for browsers (`Accept: text/html`); addresses for programs."""
    if "text/html" in request.headers.get("accept", ""):
        return FileResponse(PLAYGROUND / "index.html", headers={**HEADERS, "Vary": "Accept"})
    addresses = {"docs": "/docs", "openapi": "/openapi.json", "strategies": "/v1/strategies"}
    return AsciiJSONResponse({"name": "Earshot", **addresses}, headers={"Vary": "Accept"})
