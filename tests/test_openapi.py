"""The API does what its description says, against a real service: what the schema lets through and what it
forbids are both answered as documented.

The default run tries every case that schemathesis derives from the schema (examples, coverage), a few random
ones, and a few chains of calls along the links (make a job, read it, cancel it, delete it).
`python -m pytest -m slow tests/test_openapi.py` goes deep: a hundred random cases a route, dozens of chains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ensure_resource_availability,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from service.app import create_app
from service.settings import Settings
from tests.clips import make_clip
from tests.cluster import Cluster, until

KEY = "a key of a tester"
KEYS = f"tester:{hashlib.sha256(KEY.encode()).hexdigest()}"
# All that schemathesis has but one: that every request which fits the schema is accepted. No schema can say
# that bytes are a clip, or that a job of this id exists.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
    use_after_free,
    ensure_resource_availability,
)
SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(api_keys=(KEYS,))).openapi())
SCHEMA.config.generation.update(
    modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    with_security_parameters=False,  # the key below is the right one; that others are refused is a check
)
SHORT, DEEP = 5, 100  # random cases for each route, besides those of the schema
CHAINS, STEPS = 5, 12  # chains in a round, calls in a chain
BEGINNINGS = {"/v1/jobs", "/v1/uploads"}  # of chains
COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [*HealthCheck],
    "verbosity": Verbosity.quiet,
}


class Service:
    """A service with a finished job, and what leads a request past its door."""

    def __init__(self, cluster: Cluster, clip: bytes) -> None:
        self.url, self.http, self.clip = cluster.url, cluster.http, clip
        self.http.headers["X-API-Key"] = KEY
        self.job_id = self.new_job()
        assert until(lambda: self.http.get(f"/v1/jobs/{self.job_id}").json()["finished_at"], 60)

    def new_job(self) -> str:
        made = self.http.post("/v1/jobs", files={"media": self.clip}, data={"strategy": "full-mask"})
        job_id: str = made.json()["id"]
        return job_id

    def lead(self, case: Case) -> dict[str, Any]:
        """To a job that exists, a strategy that is ready, a real clip: the body to send instead, if another.
        What breaks the schema stays as it is."""
        path = case.meta.components.get(ParameterLocation.PATH)
        if path is not None and path.mode.is_negative:
            return {}
        if "job_id" in case.path_parameters and case.method != "PUT":
            deletes = case.operation.definition.raw["operationId"] == "delete_job"
            case.path_parameters["job_id"] = self.new_job() if deletes else self.job_id
        if "strategy" in case.path_parameters:
            case.path_parameters["strategy"] = "full-mask"
        if case.meta.generation.mode.is_positive and case.media_type == "multipart/form-data":
            options = {} if case.path.endswith("uploads") else {"fps": "2"}
            strategy = {"strategy": "full-mask"} if "/jobs" in case.path else {}
            return {"files": {"media": self.clip}, "data": {**strategy, **options}}
        return {}


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, seconds=1, size=(32, 32), fps=10)
    limits = {"queue_jobs": 100_000, "max_wait_seconds": 0.5, "api_keys": KEYS}
    with Cluster(registry="models.strategies", **limits) as cluster:
        yield Service(cluster, path.read_bytes())


def check(case: Case, service: Service) -> None:
    """Every second case is led past the door."""
    instead = service.lead(case) if len(repr(case.body)) % 2 else {}
    case.call_and_validate(
        base_url=service.url, checks=CHECKS, headers={"X-API-Key": KEY}, timeout=20, **instead
    )


@SCHEMA.parametrize()
@settings(max_examples=SHORT, **COMMON)
def test_no_answer_is_undocumented(case, service) -> None:
    check(case, service)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=DEEP, **COMMON)
def test_no_answer_is_undocumented_however_long_one_tries(case, service) -> None:
    check(case, service)


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="a few"), pytest.param(12, id="many", marks=pytest.mark.slow)]
)
def test_no_chain_of_calls_ends_in_an_undocumented_answer(service, rounds) -> None:
    """Chains begin with a real clip; what follows keeps the ids that it was given.

    Hypothesis gives a round up when equal calls are answered otherwise than before, as a live service may do:
    a job has ended meanwhile. So failures are counted here, and there are many short rounds.
    """
    calls: list[str] = []
    failures: list[BaseException] = []

    class Chain(SCHEMA.as_state_machine()):
        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            instead = service.lead(case) if case.path in BEGINNINGS else {}
            return {"base_url": service.url, "headers": {"X-API-Key": KEY}, "timeout": 20, **instead}

        def validate_response(self, response, case, additional_checks=None, **kwargs) -> None:
            calls.append(case.path)
            try:
                case.validate_response(response, checks=CHECKS, transport_kwargs=kwargs)
            except BaseException as failure:
                failures.append(failure)
                raise

    chains = settings(max_examples=CHAINS, stateful_step_count=STEPS, phases=[Phase.generate], **COMMON)
    for number in range(rounds):
        with suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(seed(number)(Chain), settings=chains)
    assert failures == []
    assert len(calls) > rounds * CHAINS


def test_every_operation_is_described() -> None:
    document = SCHEMA.raw_schema
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if operation["summary"] and operation["description"] and operation["tags"]
    ]
    assert len(ids) == len(set(ids)) == sum(len(path) for path in document["paths"].values())
    assert {"/v1/segment/{strategy}", "/v1/uploads", "/v1/jobs/{job_id}", "/readyz"} <= {*document["paths"]}


def test_every_refusal_is_a_problem() -> None:
    for path, operations in SCHEMA.raw_schema["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert [*answer["content"]] == ["application/problem+json"], (path, status)
