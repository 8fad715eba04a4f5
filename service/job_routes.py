"""Routes of a job's life: read it, follow it, have its result, stop it, forget it."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from service.answers import event_stream, job_document, job_response, result_response, stored_lines
from service.desk import caller_of, desk_of, known_query, preference_applied, wait_of
from service.openapi import BINARY, EVENT, accepted, problems, results, streamed
from service.problems import AsciiJSONResponse
from service.records import JobStatus
from service.results import in_chunks, negotiated
from service.routes import FormatName, Prefer
from service.schemas import JobDocument, JobPage

router = APIRouter(tags=["jobs"], dependencies=[Depends(known_query)])

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", pattern=r"^[0-9]{1,15}(-[0-9]{1,15})?$", max_length=31)
]

Range = Annotated[str | None, Header(description="A part of a video, so that a player can seek.")]


@router.get(
    "/jobs",
    summary="Your jobs, newest first",
    operation_id="list_jobs",
    responses=problems(),
    response_model=JobPage,
)
async def list_jobs(
    request: Request,
    status: JobStatus | None = None,
    strategy: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}\.[0-9]{6}$")] = None,
) -> Response:
    """`next_cursor` leads to the next page, also when the job it was made at is gone."""
    desk = desk_of(request)
    tenant = caller_of(request).tenant
    records, following = await desk.store(desk.jobs.page, tenant, status, strategy, limit, cursor)
    return AsciiJSONResponse({"data": [job_document(one) for one in records], "next_cursor": following})


@router.get(
    "/jobs/{job_id}",
    summary="A job",
    operation_id="read_job",
    responses=problems(404, 410),
    response_model=JobDocument,
)
async def read_job(request: Request, job_id: str) -> Response:
    """Status, progress, place in the queue, addresses."""
    desk = desk_of(request)
    return await job_response(desk, await desk.job(job_id, caller_of(request)))


@router.get(
    "/jobs/{job_id}/result",
    summary="The result of a job",
    operation_id="read_result",
    responses={
        **results(),
        **accepted(),
        206: {"description": "A part of the video.", "content": {"video/mp4": {"schema": BINARY}}},
        **problems(404, 406, 409, 410, 413, 415, 507),
    },
    response_class=Response,
)
async def read_result(
    request: Request,
    job_id: str,
    format: FormatName = None,  # noqa: A002 (the name of the parameter in the address)
    range: Range = None,  # noqa: A002, ARG001 (read from the request; here for the description)
    prefer: Prefer = None,  # noqa: ARG001 (likewise)
) -> Response:
    """As `Accept` or `?format=` says. `video/mp4` and the contact sheet are made on demand: 202 till then."""
    desk = desk_of(request)
    form = negotiated(request.headers.get("accept", ""), format)
    record = await desk.job(job_id, caller_of(request))
    seconds = wait_of(request, desk.settings) if form.write is None else 0.0
    headers = preference_applied(seconds) if form.write is None else {}
    return await result_response(desk, request, record, form, time.monotonic() + seconds, headers)


@router.get(
    "/jobs/{job_id}/frames",
    summary="The frames finished so far",
    operation_id="read_frames",
    responses={**streamed("application/x-ndjson", "A frame a line, in order."), **problems(404, 410)},
    response_class=Response,
)
async def read_frames(
    request: Request,
    job_id: str,
    first: Annotated[int, Query(alias="from", ge=0, le=10**9, description="How many to leave out.")] = 0,
) -> Response:
    """NDJSON, in order and without gaps: what is finished out of order comes later."""
    desk = desk_of(request)
    record = await desk.job(job_id, caller_of(request))
    lines = in_chunks(stored_lines(desk, record.id, first))
    return StreamingResponse(iterate_in_threadpool(lines), media_type="application/x-ndjson")


@router.get(
    "/jobs/{job_id}/events",
    summary="What happens to a job, as it happens",
    operation_id="follow_job",
    responses={
        **streamed("text/event-stream", "Server-sent events.", EVENT),
        204: {"description": "The job has ended and `Last-Event-ID` was its last: do not come back."},
        **problems(404, 410),
    },
    response_class=Response,
)
async def follow_job(request: Request, job_id: str, last_event_id: LastEventId = None) -> Response:
    """Begins with all events, or after `Last-Event-ID`; ends when the job does. A comment every 15 s."""
    desk = desk_of(request)
    record = await desk.job(job_id, caller_of(request))
    if (
        last_event_id
        and record.status.final
        and not await desk.store(desk.jobs.events, record.id, last_event_id)
    ):
        return Response(status_code=204)  # what tells a browser's EventSource to connect no more
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    stream = event_stream(desk, record.id, last_event_id or "0")
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Stop a job",
    operation_id="cancel_job",
    responses=problems(404, 410),
    response_model=JobDocument,
)
async def cancel_job(request: Request, job_id: str) -> Response:
    """A running window is not interrupted; a finished job stays what it is."""
    desk = desk_of(request)
    record = await desk.job(job_id, caller_of(request))
    canceled = await desk.store(desk.jobs.cancel, record.id)
    return await job_response(desk, canceled or record)


@router.delete(
    "/jobs/{job_id}",
    summary="Forget a job",
    operation_id="delete_job",
    status_code=204,
    responses=problems(404, 410),
    response_class=Response,
)
async def delete_job(request: Request, job_id: str) -> Response:
    """Its clip, its masks and its record go; a running job is canceled first."""
    desk = desk_of(request)
    record = await desk.job(job_id, caller_of(request))
    await desk.store(desk.jobs.delete, record.id)
    return Response(status_code=204)
