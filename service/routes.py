"""Routes that bring work: segment a clip, keep an upload, make a job."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from models.recommended import AUTO
from service.answers import job_response, moment, result_response
from service.auth import Caller
from service.desk import Desk, desk_of, known_query, preference_applied, unless_gone, wait_of
from service.errors import Refusal, invalid
from service.intake import order_of
from service.openapi import LINKS_OF_JOB, LINKS_OF_UPLOAD, accepted, clip_body, problems, results
from service.problems import AsciiJSONResponse
from service.records import JobRecord
from service.results import FORMATS, Format, negotiated
from service.schemas import JobDocument, Upload
from service.uploads import Form, UploadLimits, received_form

router = APIRouter()

OWN_QUERY = {"format"}  # a query parameter that is no option of a strategy
REFUSALS = (400, 404, 409, 410, 413, 415, 429, 507)

FormatName = Annotated[
    str | None,
    Query(
        description="The form of the result, where `Accept` cannot be set.",
        examples=["json"],
        json_schema_extra={"enum": [*FORMATS, None]},
    ),
]
Prefer = Annotated[str | None, Header(description="`wait=10` or `respond-async`.", examples=["wait=10"])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key and request within 24 hours give the same job.",
    ),
]
OwnName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", description="A name that you choose.")
]


@router.post(
    "/segment/{strategy}",
    tags=["segment"],
    summary="Segment a clip, and wait for the masks",
    operation_id="segment",
    responses={**results(), **accepted(), **problems(*REFUSALS, 406)},
    openapi_extra=clip_body(),
    response_class=Response,
)
async def segment(
    request: Request,
    strategy: str,
    format: FormatName = None,  # noqa: A002 (the name of the parameter in the address)
    prefer: Prefer = None,  # noqa: ARG001 (read from the request; here for the description)
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answers with the result when it is there in time, else with the job."""
    return await segmented(request, strategy, format, idempotency_key)


@router.post(
    "/segment",
    tags=["segment"],
    summary="Segment a clip by the strategy we recommend",
    operation_id="segment_auto",
    responses={**results(), **accepted(), **problems(*REFUSALS, 406)},
    openapi_extra=clip_body(strategy=True, required=False),
    response_class=Response,
)
async def segment_auto(
    request: Request,
    format: FormatName = None,  # noqa: A002 (the name of the parameter in the address)
    prefer: Prefer = None,  # noqa: ARG001 (read from the request; here for the description)
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """`auto`, unless the field `strategy` names one: the first strategy of the table under `auto` in
    /v1/strategies that takes the options given and is ready. The result names it."""
    return await segmented(request, None, format, idempotency_key)


async def segmented(
    request: Request, strategy: str | None, format_name: str | None, idempotency_key: str | None
) -> Response:
    """The result when it is there in time, else the job."""
    desk = desk_of(request)
    form = negotiated(request.headers.get("accept", ""), format_name)
    caller = await desk.admitted(request)
    if strategy not in {None, AUTO}:
        desk.intake.strategy(strategy)  # 404 before the body is read
    record, created = await ordered(
        desk, request, caller, strategy=strategy, otherwise=AUTO, idempotency_key=idempotency_key
    )
    await refuse_form(desk, record, form, created)
    seconds = wait_of(request, desk.settings) if record.job.interactive else 0.0
    until = time.monotonic() + seconds
    waited = await unless_gone(request, desk.wait(record, seconds))
    if waited is None:
        if created and idempotency_key is None:  # nobody else waits for it
            await desk.store(desk.jobs.cancel, record.id)
        raise ClientDisconnect
    applied = preference_applied(seconds)
    if not waited.status.final:
        return await job_response(desk, waited, 202, {**applied, "Retry-After": "1"})
    return await result_response(desk, request, waited, form, until, applied)


async def refuse_form(desk: Desk, record: JobRecord, form: Format, created: bool) -> None:
    """406 before the work, not after it, where the form cannot hold the result. Of a job that nobody was told
    of nothing stays: the same Idempotency-Key with another `Accept` makes it anew."""
    if form.name == "png" and record.progress.frames_total != 1:
        if created:
            await desk.store(desk.jobs.delete, record.id)
        raise Refusal(
            "not_acceptable",
            f"image/png holds one frame and this result would have {record.progress.frames_total}; "
            "set `max_frames=1`, or ask for application/zip (`?format=zip`).",
        )


async def ordered(
    desk: Desk,
    request: Request,
    caller: Caller,
    *,
    strategy: str | None = None,
    otherwise: str | None = None,
    idempotency_key: str | None = None,
    name: str = "",
) -> tuple[JobRecord, bool]:
    """Read the body and make its job."""
    query = [pair for pair in request.query_params.multi_items() if pair[0] not in OWN_QUERY]
    async with received_form(request, desk.settings.scratch_dir, upload_limits(desk)) as form:
        order = order_of(
            form,
            query,
            strategy,
            otherwise,
            tenant=caller.tenant,
            idempotency_key=idempotency_key,
            name=name,
            request_id=request.state.request_id,
        )
        return await desk.accept(order)


def upload_limits(desk: Desk) -> UploadLimits:
    return UploadLimits(bytes_=desk.settings.max_upload_bytes, files=desk.settings.max_frames + 1)


@router.post(
    "/uploads",
    tags=["segment"],
    summary="Keep a clip for several requests",
    operation_id="upload",
    status_code=201,
    responses={201: {"model": Upload, "links": LINKS_OF_UPLOAD}, **problems(400, 413, 415, 429)},
    openapi_extra=clip_body(options=False),
    dependencies=[Depends(known_query)],
)
async def upload(request: Request) -> Response:
    """Checks the clip at once, and keeps it for an hour."""
    desk = desk_of(request)
    caller = await desk.admitted(request)
    async with received_form(request, desk.settings.scratch_dir, upload_limits(desk)) as form:
        refuse_fields(form)
        clip = await desk.take_in(desk.intake.upload, form.files, caller.tenant)
    summary = {name: clip.summary[name] for name in ("duration", "width", "height", "fps", "has_audio")}
    document = {"upload_id": clip.id, "sha256": clip.sha256, "size": clip.size, **summary}
    return AsciiJSONResponse({**document, "expires_at": moment(clip.expires_at)}, 201)


def refuse_fields(form: Form) -> None:
    """An upload takes no options."""
    if form.fields:
        raise invalid(
            f"/{form.fields[0][0]}", "An upload takes no options; give them with the request that uses it."
        )


@router.post(
    "/jobs",
    tags=["jobs"],
    summary="Make a job and do not wait",
    operation_id="create_job",
    status_code=202,
    responses={202: {"model": JobDocument, "links": LINKS_OF_JOB}, **problems(*REFUSALS)},
    openapi_extra=clip_body(strategy=True),
)
async def create_job(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    """Names its strategy in the field `strategy`."""
    desk = desk_of(request)
    caller = await desk.admitted(request)
    record, _ = await ordered(desk, request, caller, idempotency_key=idempotency_key)
    return await job_response(desk, record, 202)


@router.put(
    "/jobs/{job_id}",
    tags=["jobs"],
    summary="Make a job under a name of your own",
    operation_id="put_job",
    status_code=201,
    responses={
        200: {"model": JobDocument, "description": "The job was there already."},
        201: {"model": JobDocument, "links": LINKS_OF_JOB},
        **problems(*REFUSALS),
    },
    openapi_extra=clip_body(strategy=True),
)
async def put_job(request: Request, job_id: OwnName) -> Response:
    """Sent again, it finds the job it made; it can be read under this name too."""
    desk = desk_of(request)
    caller = await desk.admitted(request)
    record, created = await ordered(
        desk,
        request,
        caller,
        idempotency_key=f"\0{job_id}",  # no header can hold this one
        name=job_id,
    )
    return await job_response(desk, record, 201 if created else 200)
