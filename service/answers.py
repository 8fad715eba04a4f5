"""A job as an answer: its document, its result in the form the client wants, its events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

from redis.exceptions import RedisError
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.desk import Desk
from service.errors import Refusal
from service.notifier import changed
from service.problems import AsciiJSONResponse, stored_problem_response
from service.ranges import part_of
from service.records import Blob, Event, JobRecord, JobStatus
from service.renders import render_key
from service.results import Format, Result, in_chunks

COMMENT_SECONDS = 15.0
ENDED: Mapping[JobStatus, tuple[str, str]] = {
    JobStatus.CANCELED: ("job_canceled", "The job was canceled; it has no result."),
    JobStatus.EXPIRED: ("deadline_passed", "The deadline passed before the job began; it was never run."),
}
SWEPT = ("expired", "The result has expired and was deleted.")
NAMES = {"mp4": "overlay", "sheet": "contact sheet"}  # of what is rendered
RENDER_LOOK_SECONDS = 0.25
BLOCK_BYTES = 256 * 1024


def job_document(record: JobRecord, detail: str | None = None) -> dict[str, Any]:
    """What the API tells of a job."""
    done = record.progress
    address = f"/v1/jobs/{record.id}"
    return {
        "id": record.id,
        "status": record.status,
        "strategy": record.job.strategy,
        "requested": record.job.requested or record.job.strategy,
        "created_at": moment(record.created_at),
        "started_at": moment(record.started_at),
        "finished_at": moment(record.finished_at),
        "queue_position": record.queue_position,
        "progress": {"stage": done.stage, "frames_done": done.frames_done, "frames_total": done.frames_total},
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "deadline": moment(record.job.deadline),
        "result_expires_at": moment(record.result_expires_at),
        "urls": {
            "status": address,
            **{name: f"{address}/{name}" for name in ("result", "frames", "events", "cancel")},
        },
        "error": record.error,
        "detail": detail,
        "metadata": record.job.metadata,
    }


def moment(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339, in UTC."""
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )


async def job_response(
    desk: Desk, record: JobRecord, status: int = 200, headers: Mapping[str, str] | None = None
) -> AsciiJSONResponse:
    """The job; one that waits while no worker is ready says why."""
    detail = await desk.health.delay() if record.status is JobStatus.QUEUED else None
    return AsciiJSONResponse(job_document(record, detail), status, {**job_headers(record), **(headers or {})})


def job_headers(record: JobRecord) -> dict[str, str]:
    return {"Location": f"/v1/jobs/{record.id}", "X-Job-ID": record.id}


async def result_response(
    desk: Desk, request: Request, record: JobRecord, form: Format, until: float, headers: Mapping[str, str]
) -> Response:
    """The result of a job, or why there is none; one that is still to be made is waited for `until` then
    (time.monotonic())."""
    if record.status is JobStatus.FAILED:
        assert record.error is not None
        return stored_problem_response(request, record.error)
    if record.status in ENDED:
        raise Refusal(*ENDED[record.status])
    if not record.status.final:
        raise Refusal(
            "job_not_finished", f"The job is {record.status}; its result comes when it has succeeded."
        )
    headers = {
        **headers,
        "X-Job-ID": record.id,
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{record.id}.{form.suffix}"',
    }
    if form.write is None:
        return await rendered_response(desk, request, record, form, until, headers)
    windows = record.progress.windows_total
    pieces = in_chunks(form.write(Result(record, lambda: stored_lines(desk, record.id, windows=windows))))
    return await body_response(desk, pieces, form, headers)


async def body_response(
    desk: Desk, pieces: Iterator[bytes], form: Format, headers: Mapping[str, str]
) -> Response:
    """A short body whole, a long one streamed: what goes wrong at its beginning is still a problem."""
    start = await desk.store(lambda: [*islice(pieces, 2)])
    if len(start) < 2:
        return Response(b"".join(start), 200, dict(headers), form.media_type)
    rest = iterate_in_threadpool(chain(start, pieces))
    return StreamingResponse(rest, 200, dict(headers), form.media_type)


def stored_lines(desk: Desk, job_id: str, first_frame: int = 0, windows: int = 0) -> Iterator[bytes]:
    """The committed frames from `first_frame` on, in order, as far as no window is missing.

    Where there are fewer `windows` the job was deleted since its record was read: half a result looks whole.
    """
    seen = 0
    blobs = desk.jobs.blobs(job_id)
    if len(blobs) < windows:
        raise Refusal(*SWEPT)
    for blob in unbroken(blobs):
        if seen + blob.frames > first_frame:
            with opened(desk, blob) as file:
                yield from islice(file, max(0, first_frame - seen), None)
        seen += blob.frames


def opened(desk: Desk, blob: Blob) -> Any:  # noqa: ANN401 (fsspec's files have no type)
    try:
        return desk.storage.open_read(blob.key)
    except FileNotFoundError:
        raise Refusal(*SWEPT) from None


def unbroken(blobs: list[Blob]) -> Iterator[Blob]:
    """The windows 0, 1, 2 ... up to the first that is still to come."""
    return (blob for number, blob in enumerate(blobs) if blob.window == number)


async def rendered_response(
    desk: Desk, request: Request, record: JobRecord, form: Format, until: float, headers: Mapping[str, str]
) -> Response:
    """The MP4 or the sheet, or the part of it that is asked for, when a worker has made it; else, when the
    wait is over, 202: ask again."""
    with desk.notifier.watch(record.id) as event:
        while not await desk.store(desk.renders.ask, record.id, form.name):
            failure = await desk.store(desk.renders.failure, record.id, form.name)
            if failure is not None:
                return stored_problem_response(request, failure)
            if time.monotonic() >= until or desk.notifier.draining:
                return render_pending(desk, record, form, headers)
            await changed(event, until, RENDER_LOOK_SECONDS)
    key = render_key(record.id, form.name)
    size = await desk.store(desk.storage.size, key)
    asked = part_of(request.headers.get("range", ""), size) if request.method == "GET" else None
    part = range(size) if asked is None else asked
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(len(part))}
    if asked is not None:
        headers = {**headers, "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"}
    blocks = iterate_in_threadpool(stored_blocks(desk, key, part))
    return StreamingResponse(blocks, 200 if asked is None else 206, headers, form.media_type)


def render_pending(
    desk: Desk, record: JobRecord, form: Format, headers: Mapping[str, str]
) -> AsciiJSONResponse:
    """202: the job is done, its picture is not; what was asked for is where it was asked for."""
    address = f"/v1/jobs/{record.id}/result?format={form.name}"
    detail = (
        f"The {NAMES[form.name]} is being rendered; GET {address} again, "
        f"with `Prefer: wait={desk.settings.max_wait_seconds:.0f}` to wait for it."
    )
    applied = {name: value for name, value in headers.items() if name == "Preference-Applied"}
    return AsciiJSONResponse(
        job_document(record, detail),
        202,
        {**job_headers(record), **applied, "Location": address, "Retry-After": "2"},
    )


def stored_blocks(desk: Desk, key: str, part: range) -> Iterator[bytes]:
    with desk.storage.open_read(key) as file:
        file.seek(part.start)
        for position in range(part.start, part.stop, BLOCK_BYTES):
            yield file.read(min(BLOCK_BYTES, part.stop - position))


async def event_stream(desk: Desk, job_id: str, after: str) -> AsyncIterator[str]:
    """Server-sent events: what was missed, then what happens, to the end of the job or of this process."""
    yield "retry: 1000\n\n"
    with desk.notifier.watch(job_id) as event:
        while not desk.notifier.draining:
            try:
                record = await desk.store(desk.jobs.get, job_id)
                events = await desk.store(desk.jobs.events, job_id, after)
            except RedisError:
                return  # the client comes back by itself, with the id of the last event it saw
            for one in events:
                after = one.id
                yield event_text(one)
            if record is None or record.status.final:  # it was read before the events: none can follow
                return
            if not await changed(event, time.monotonic() + COMMENT_SECONDS, COMMENT_SECONDS):
                yield ": the job goes on\n\n"


def event_text(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
