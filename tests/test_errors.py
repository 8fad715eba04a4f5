"""Every refusal is a problem with a code of the table, and says nothing that should stay inside."""

from __future__ import annotations

import re

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from models import errors as model_errors
from models.errors import EarshotError, MediaTooLarge
from service import records
from service.errors import KINDS, FieldError, Refusal, headers_of, problem_document, too_large
from service.schemas import Problem

OFFLINE = {model_errors.DatasetInvalid, model_errors.TrainingDiverged}  # no request meets them
CLASSES = [
    found
    for module in (model_errors, records)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, EarshotError) and found not in {EarshotError, *OFFLINE}
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_has_its_line_in_the_table(kind) -> None:
    assert KINDS[kind.code].status == kind.status


@pytest.mark.parametrize("code", KINDS)
def test_every_code_makes_a_valid_problem(code) -> None:
    document = problem_document(Refusal(code, "A sentence."))
    Problem.model_validate({**document, "instance": "/", "request_id": "x"})
    assert re.fullmatch(r"[a-z_]+", code)
    assert ("Retry-After" in headers_of(document)) == (document["status"] in {429, 503})


def test_a_limit_names_itself_and_both_values() -> None:
    for error in (too_large("upload", 100, 250, "bytes"), MediaTooLarge("upload", 100, 250, "bytes")):
        document = problem_document(error)
        assert document["status"] == 413
        assert (document["limit"], document["allowed"], document["actual"]) == ("upload", 100, 250)
        assert "100" in document["detail"] and "250" in document["detail"]


def test_an_unknown_exception_says_nothing_of_itself() -> None:
    document = problem_document(RuntimeError("/etc/secret is 42"))
    assert document["status"] == 500
    assert "secret" not in str(document)


def test_a_full_disk_is_a_pause_that_names_no_path() -> None:
    document = problem_document(OSError(28, "No space left on device", "/srv/earshot/uploads/x"))
    assert (document["status"], document["code"]) == (503, "storage_unavailable")
    assert "/srv" not in str(document)


def test_redis_away_is_a_pause_not_a_failure() -> None:
    document = problem_document(RedisConnectionError("Error 111 connecting to /run/redis.sock"))
    assert (document["status"], document["retryable"]) == (503, True)
    assert "redis.sock" not in str(document)


def test_fields_are_pointed_at() -> None:
    refusal = Refusal("invalid_option", "No.", errors=(FieldError("/thresholds/mask", "Too large."),))
    assert problem_document(refusal)["errors"] == [{"pointer": "/thresholds/mask", "message": "Too large."}]
