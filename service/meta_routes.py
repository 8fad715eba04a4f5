"""Routes about the service itself: strategies, models, health, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, Response

from models.recommended import ORDER, recommended
from models.strategies import Strategy
from service.desk import caller_of, desk_of, known_query
from service.errors import Refusal
from service.health import unready
from service.openapi import problem_answer, problems, streamed
from service.options import adapter_of, params_schema
from service.problems import AsciiJSONResponse, problem_response
from service.schemas import Health, ModelPage, Readiness, StrategyPage
from service.settings import Settings

DOCS = Path(__file__).parent / "docs.html"

router = APIRouter(tags=["service"], dependencies=[Depends(known_query)])
bare = APIRouter(tags=["service"])  # not under /v1: what orchestrators and browsers ask for


@router.get(
    "/strategies",
    summary="The strategies and their options",
    operation_id="list_strategies",
    response_model=StrategyPage,
    responses=problems(),
)
async def list_strategies(request: Request) -> Response:
    """Each with the JSON schema of its `params`, its presets, the limits, and whether it can run."""
    caller_of(request)
    desk = desk_of(request)
    workers = (await desk.health.state()).workers
    limits = limits_of(desk.settings)
    data = [
        {**strategy_document(name, strategy, unready(workers, name)), "limits": limits}
        for name, strategy in desk.registry.items()
    ]
    order = [{"name": name, "reason": why} for name, why in ORDER.items() if name in desk.registry]
    ready = [name for name in desk.registry if unready(workers, name) is None]
    return AsciiJSONResponse(
        {"data": data, "auto": {"strategy": recommended(desk.registry, ready), "order": order}}
    )


def strategy_document(name: str, strategy: Strategy, refusal: Refusal | None) -> dict[str, Any]:
    adapter = adapter_of(strategy)
    presets = {key: adapter.dump_python(one, mode="json") for key, one in strategy.presets.items()}
    return {
        "name": name,
        "summary": strategy.summary,
        "params": params_schema(strategy),
        "presets": presets,
        "weights": [*strategy.networks],
        "ready": refusal is None,
        "reason": refusal and refusal.detail,
    }


def limits_of(settings: Settings) -> dict[str, Any]:
    """What a clip may measure, with units in the names."""
    return {
        "upload_bytes": settings.max_upload_bytes,
        "interactive_seconds": settings.interactive_seconds,
        "job_seconds": settings.job_seconds,
        "pixels": settings.max_pixels,
        "frames": settings.max_frames,
        "tracks": settings.max_tracks,
        "queue_jobs": settings.queue_jobs,
        "wait_seconds": settings.max_wait_seconds,
        "result_seconds": settings.result_ttl,
        "upload_seconds": settings.upload_ttl,
    }


@router.get(
    "/models",
    summary="The networks that the workers hold",
    operation_id="list_models",
    response_model=ModelPage,
    responses=problems(),
)
async def list_models(request: Request) -> Response:
    """One entry for each network and device; `loaded` is false where a strategy's network is nowhere."""
    caller_of(request)
    desk = desk_of(request)
    held = held_models((await desk.health.state()).workers)
    named = {network for strategy in desk.registry.values() for network in strategy.networks}
    missing = [{"id": name, "loaded": False} for name in sorted(named - {one["network"] for one in held})]
    return AsciiJSONResponse({"data": [*held, *missing]})


def held_models(workers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Equal networks on equal devices of several workers are one entry, with the number of workers."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for worker in workers:
        for network, model in worker["models"].items():
            key = (network, model["sha256"], model["device"], model["dtype"])
            entry = found.setdefault(key, {"network": network, **model, "loaded": True, "workers": 0})
            entry["workers"] += 1
    return [*found.values()]


@bare.get("/healthz", summary="Whether the process lives", operation_id="healthz", response_model=Health)
async def healthz() -> Response:
    """Asks nothing of anybody."""
    return AsciiJSONResponse({"status": "ok"})


@bare.get(
    "/readyz",
    summary="Whether the service can take work",
    operation_id="readyz",
    response_model=Readiness,
    responses={503: problem_answer(503)},
)
async def readyz(request: Request) -> Response:
    """Redis answers, storage can be written, a worker is ready; a refusal says which of them is missing."""
    checks, workers = await desk_of(request).health.checks()
    document = {"ready": all(one == "ok" for one in checks.values()), "checks": checks, "workers": workers}
    if document["ready"]:
        return AsciiJSONResponse(document)
    missing = " ".join(one for one in checks.values() if one != "ok")
    return problem_response(request, Refusal("not_ready", missing, extra=document))


@bare.get(
    "/metrics",
    summary="Prometheus metrics",
    operation_id="metrics",
    responses=streamed("text/plain", "Text format."),
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """Of this process; each worker has its own."""
    desk = desk_of(request)
    await desk.health.refresh()
    text = await run_sync(desk.metrics.expose, limiter=desk.health.threads)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@bare.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The API in a browser, from /openapi.json alone."""
    return FileResponse(DOCS)
