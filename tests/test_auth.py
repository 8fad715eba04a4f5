"""Keys open the service in both headers, a wrong one never; a rate is kept for each key."""

from __future__ import annotations

import hashlib

import pytest

from service.auth import EVERYONE, Caller, Keys, RateLimit
from service.errors import Refusal

KEY = "correct horse battery staple"
ENTRIES = (f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}", f"other:{hashlib.sha256(b'x').hexdigest()}")


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}])
def test_a_key_opens_the_service_in_either_header(headers) -> None:
    caller = Keys(ENTRIES).caller(headers)
    assert caller.tenant == "acme"
    assert KEY not in caller.key_id


@pytest.mark.parametrize("headers", [{}, {"authorization": f"Basic {KEY}"}, {"x-api-key": KEY + " "}])
def test_anything_else_is_refused(headers) -> None:
    with pytest.raises(Refusal) as refused:
        Keys(ENTRIES).caller(headers)
    assert refused.value.status == 401
    assert refused.value.detail.startswith(
        "This key is not known" if "x-api-key" in headers else "No key came"
    )


def test_without_keys_everyone_may_call() -> None:
    assert Keys(()).caller({}) == EVERYONE


def test_the_stored_hash_is_no_key() -> None:
    with pytest.raises(Refusal):
        Keys(ENTRIES).caller({"x-api-key": ENTRIES[0].split(":")[1]})


def test_a_rate_is_kept_for_each_key_alone(client) -> None:
    limit = RateLimit(client, per_minute=60)
    first, second = Caller("acme", "one"), Caller("acme", "two")
    for _ in range(10):  # ten seconds' worth may come at once
        limit.take(first)
    with pytest.raises(Refusal) as refused:
        limit.take(first)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    limit.take(second)


def test_a_slow_rate_still_lets_one_request_through(client) -> None:
    limit = RateLimit(client, per_minute=1)
    limit.take(Caller("acme", "slow"))
    with pytest.raises(Refusal) as refused:
        limit.take(Caller("acme", "slow"))
    assert 55 <= refused.value.retry_after <= 60
