"""Who calls, and how often: API keys (stored hashed, compared in constant time), rate limits in Redis."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from service.errors import Refusal

RATE = "avs:rate:"  # + the key's id -> the time, in microseconds, at which its bucket is empty again
BURST_SECONDS = 10.0  # a caller may be so far ahead of its rate

# A leaky bucket in one number: the moment at which everything taken so far has leaked away.
TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local empty = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if empty + interval - now > burst then return empty + interval - now - burst end
redis.call('SET', KEYS[1], string.format('%.0f', empty + interval), 'PX', math.ceil(burst / 1000))
return 0
"""


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
        offered = hashlib.sha256(offered_key(headers).encode()).hexdigest()
        found = [
            (tenant, kept) for tenant, kept in self.entries if hmac.compare_digest(kept.lower(), offered)
        ]
        if not found:
            raise Refusal("unauthorized", "Send your key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        tenant, digest = found[0]
        return Caller(tenant=tenant, key_id=digest[:16])


def offered_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


class RateLimit:
    """So many requests a minute for each key, evenly, with a little room for bursts."""

    def __init__(self, redis: Redis, per_minute: int) -> None:
        self.per_minute = per_minute
        self.script = redis.register_script(TAKE)

    def take(self, caller: Caller) -> None:
        """Count one request, or refuse it and say when to come back."""
        if not self.per_minute:
            return
        interval = 60_000_000 / self.per_minute
        burst = max(interval, BURST_SECONDS * 1_000_000)
        late = cast(int, self.script(keys=[RATE + caller.key_id], args=[interval, burst]))
        if late:
            wait = math.ceil(late / 1_000_000)
            detail = f"This key may send {self.per_minute} requests a minute; try again in {wait} s."
            raise Refusal("rate_limited", detail, retry_after=wait)
