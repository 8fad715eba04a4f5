"""What the API description says beside the code: bodies, refusals, examples. FastAPI builds the rest."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import KINDS, PROBLEM_TYPE
from service.results import FORMATS
from service.schemas import JobDocument, Problem, ResultDocument

DESCRIPTION = """
A clip in, and frame by frame the pixels that make the sound out.

`POST /v1/segment/{strategy}` waits up to 30 s for the answer (`Prefer: wait=N`, 60 at most; `respond-async`);
what takes longer is answered with `202` and the address of the job. Every option of a strategy is a form
field, a query parameter (`thresholds.mask=0.4`) or a member of the JSON in `params`; `GET /v1/strategies`
lists them with their schema. A client that hangs up on a call that waits, and sent no `Idempotency-Key`,
cancels its job: the device does not work for nobody. Errors are problem documents (RFC 9457) with a stable
`code`.
"""
TAGS = [
    {"name": "segment", "description": "Send a clip."},
    {"name": "jobs", "description": "Follow a job, read its result, stop it."},
    {"name": "service", "description": "What there is, and how it does."},
]
BINARY = {"type": "string", "format": "binary"}
PARTS: dict[str, Any] = {
    "media": {**BINARY, "description": "One container with picture and sound."},
    "video": {**BINARY, "description": "The picture, where the sound comes apart."},
    "audio": {**BINARY, "description": "The sound of `video` or `frames[]`."},
    "frames[]": {"type": "array", "items": BINARY, "description": "PNG or JPEG images, in order."},
    "upload_id": {"type": "string", "minLength": 1, "description": "A clip that is here already."},
    "params": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The options as a JSON object.",
        "example": '{"fps": 1.0, "thresholds": {"mask": 0.5}, "outputs": {"mask": "rle"}}',
    },
}
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "What `Last-Event-ID` brings back."},
        "event": {"type": "string", "enum": ["status", "progress"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "`status`, `frames_done`, `frames_total`, and the `window` that was finished.",
        },
    },
}
STRATEGY_PART: dict[str, Any] = {
    "strategy": {
        "type": "string",
        "minLength": 1,
        "description": "One of /v1/strategies, or `auto`.",
        "example": "full-mask",
    }
}
OF_JOB = ("read_job", "read_result", "read_frames", "follow_job", "cancel_job", "delete_job")
LINKS_OF_JOB: dict[str, Any] = {
    name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in OF_JOB
}
LINKS_OF_UPLOAD: dict[str, Any] = {
    "create_job": {
        "operationId": "create_job",
        "requestBody": {"upload_id": "$response.body#/upload_id", "strategy": "full-mask"},
    }
}


def clip_body(*, strategy: bool = False, required: bool = True, options: bool = True) -> dict[str, Any]:
    """The request body of a route that takes a clip; `required` is whether it must name a strategy."""
    parts = {name: part for name, part in PARTS.items() if options or name not in {"upload_id", "params"}}
    properties = {**parts, **(STRATEGY_PART if strategy else {})}
    form = {
        "type": "object",
        "properties": properties,
        "propertyNames": {"minLength": 1},
        "additionalProperties": {"type": "string"} if options else False,
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    if options:
        document = {
            "type": "object",
            "properties": {"upload_id": PARTS["upload_id"], **(STRATEGY_PART if strategy else {})},
            "required": ["upload_id", *(["strategy"] if strategy and required else [])],
            "example": {
                "upload_id": "9b2d...",
                "fps": 1.0,
                **({"strategy": "full-mask"} if strategy else {}),
            },
        }
        content["application/json"] = {"schema": document}
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route; every route may fail, and may have to wait for Redis."""
    return {status: problem_answer(status) for status in sorted({*statuses, 401, 422, 500, 503})}


def problem_answer(status: int) -> dict[str, Any]:
    codes = {code: kind for code, kind in KINDS.items() if kind.status == status}
    titles = "; ".join(f"{kind.title} (`{code}`)" for code, kind in codes.items())
    answer: dict[str, Any] = {
        "description": f"{titles}.",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in {429, 503}:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer


def results() -> dict[int | str, dict[str, Any]]:
    """200 in every form a result has."""
    content: dict[str, Any] = {form.media_type: {"schema": BINARY} for form in FORMATS.values()}
    content["application/json"] = {"schema": {"$ref": "#/components/schemas/ResultDocument"}}
    content["application/vnd.coco+json"] = {"schema": {"type": "object"}}
    content["application/x-ndjson"] = {"schema": {"type": "string"}}
    return {200: {"description": "The result.", "content": content}}


def accepted() -> dict[int | str, dict[str, Any]]:
    """202: the job goes on."""
    schema = {"$ref": "#/components/schemas/JobDocument"}
    location = {
        "description": "The job, or its picture that is being rendered.",
        "schema": {"type": "string"},
    }
    return {
        202: {
            "description": "The job goes on.",
            "headers": {"Location": location},
            "links": LINKS_OF_JOB,
            "content": {"application/json": {"schema": schema}},
        }
    }


def streamed(
    media_type: str,
    description: str,
    schema: dict[str, Any] = {"type": "string"},  # noqa: B006 (never changed)
) -> dict[int | str, dict[str, Any]]:
    """200 with a body of text, or of events."""
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


def describe(app: FastAPI, keys: bool) -> dict[str, Any]:
    """The document of /openapi.json, made once. `keys`: whether callers must have one."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS
        )
        schemas = app.openapi_schema.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, JobDocument, ResultDocument):
            document = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(document.pop("$defs", {}))
            schemas[model.__name__] = document
        app.openapi_schema["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        app.openapi_schema["security"] = [*([] if keys else [{}]), {"bearer": []}, {"key": []}]
        for path, operations in app.openapi_schema["paths"].items():
            if not path.startswith("/v1/"):  # what orchestrators and browsers ask for is open
                for operation in operations.values():
                    operation["security"] = []
    return app.openapi_schema
