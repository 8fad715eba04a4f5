"""The API does what its description says: what the schema lets through is answered as documented."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.app import create_app
from service.redis_server import PrivateRedis
from service.settings import Settings
from tests.clips import make_clip
from tests.test_app import Api, finished, job_of

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)
SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
SCHEMA.config.phases.coverage.enabled = False  # hundreds of cases for each route; the examples below suffice
TAKES_CLIP = {"segment", "upload", "create_job", "put_job"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, seconds=1, size=(32, 32), fps=10)
    return path.read_bytes()


@pytest.fixture(scope="module")
def api(tmp_path_factory, clip) -> Iterator[Api]:
    server = PrivateRedis(tmp_path_factory.mktemp("r"))
    server.start()
    with Api(tmp_path_factory.mktemp("api"), server.url, queue_jobs=10_000, max_wait_seconds=0.5) as api:
        yield api
    server.stop()


@pytest.fixture(scope="module")
def job_id(api, clip) -> str:
    return finished(api, job_of(api, clip)["id"])["id"]


@SCHEMA.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[*HealthCheck],
)
def test_no_answer_is_undocumented(case, api, clip, job_id) -> None:
    """Every second case is led past the door: to a job that exists, a strategy that is ready, a real clip."""
    if len(repr(case.body)) % 2:
        lead(case, clip, job_id)
    if case.operation.definition.raw["operationId"] == "delete_job":
        case.path_parameters["job_id"] = "x" + job_id[1:]  # the others still need it
    case.call_and_validate(base_url=api.url, checks=CHECKS, timeout=20)


def lead(case, clip: bytes, job_id: str) -> None:
    for name, value in (("job_id", job_id), ("strategy", "full-mask")):
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = value
    if (
        case.operation.definition.raw["operationId"] in TAKES_CLIP
        and case.media_type == "multipart/form-data"
    ):
        case.body = {"media": clip, "strategy": "full-mask", "fps": "2"}


def test_every_operation_is_described() -> None:
    document = SCHEMA.raw_schema
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if operation["summary"] and operation["description"] and operation["tags"]
    ]
    assert len(ids) == len(set(ids)) == sum(len(path) for path in document["paths"].values())
    assert {"/v1/segment/{strategy}", "/v1/uploads", "/v1/jobs/{client_id}", "/readyz"} <= {
        *document["paths"]
    }


def test_every_refusal_is_a_problem() -> None:
    for path, operations in SCHEMA.raw_schema["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert [*answer["content"]] == ["application/problem+json"], (path, status)
