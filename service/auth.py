"""Who calls, and how often: API keys (stored hashed, compared in constant time), rate limits in Redis."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis import Redis

from service.errors import Refusal
from service.steps import Steps

BURST_SECONDS = 10.0  # a caller may be so far ahead of its rate


@dataclass(frozen=True)
class Caller:
    """A tenant, and the id of the key it used (never the key)."""

    tenant: str
    key_id: str


EVERYONE = Caller(tenant="public", key_id="public")


class Keys:
    """The keys that open the service; with none, everyone may call."""

    def __init__(self, entries: Sequence[str]) -> None:
        """`entries` are `tenant:sha256hex`."""
        self.entries = [
            (tenant, digest) for tenant, _, digest in (entry.rpartition(":") for entry in entries)
        ]

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Every stored key is compared, so that the time says nothing of which one came near."""
        if not self.entries:
            return EVERYONE
        key = offered_key(headers)
        offered = hashlib.sha256(key.encode()).hexdigest()
        found = [
            (tenant, kept) for tenant, kept in self.entries if hmac.compare_digest(kept.lower(), offered)
        ]
        if not found:
            what = "This key is not known" if key else "No key came"
            raise Refusal(
                "unauthorized", f"{what}: send yours as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            )
        tenant, digest = found[0]
        return Caller(tenant=tenant, key_id=digest[:16])


def offered_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


class RateLimit:
    """So many requests a minute for each key, evenly, with a little room for bursts."""

    def __init__(self, client: Redis, per_minute: int) -> None:
        """`client` decodes its responses."""
        self.per_minute = per_minute
        self._run = Steps(client)

    def take(self, caller: Caller) -> None:
        """Count one request, or refuse it and say when to come back."""
        if not self.per_minute:
            return
        interval = 60 / self.per_minute
        early = float(self._run("take", caller.key_id, interval, max(interval, BURST_SECONDS)))
        if early:
            wait = math.ceil(early)
            detail = f"This key may send {self.per_minute} requests a minute; try again in {wait} s."
            raise Refusal("rate_limited", detail, retry_after=wait)
