"""The workers alive, each with what it says of itself: how the torch-free API knows what is loaded and ready.

A worker's statement is a JSON object:
    id, state ("starting", "ready", "draining"), device, threads, started_at (epoch seconds), beat_at,
    strategies {name: {"ready": bool, "reason": a sentence or null, "code": of the refusal, where not ready}},
    loading [name of a strategy still to come, the one in hand first],
    models {name: {"id", "sha256", "licence", "device", "dtype", "load_seconds"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from service.steps import PREFIXES

ALIVE_SECONDS = 15  # three heartbeats of the default; prelude.lua counts threads by the same


class Fleet:
    """`client` decodes its responses."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis: Any = client  # redis-py types every answer as perhaps awaitable

    def publish(self, statement: Mapping[str, Any]) -> int:
        """A worker's sign of life; forgotten ALIVE_SECONDS later unless it comes again.

        How many others have gone silent since anybody last looked: each is told to one worker, once.
        """
        worker = statement["id"]
        seconds, microseconds = (
            self.redis.time()
        )  # one clock for all, or a worker whose own is late seems dead
        now = seconds + microseconds / 1e6
        threads = statement["threads"] if statement["state"] == "ready" else 0
        with self.redis.pipeline() as pipe:
            pipe.zremrangebyscore(PREFIXES["WORKERS"], "-inf", now - ALIVE_SECONDS)
            pipe.zadd(PREFIXES["WORKERS"], {worker: now})
            pipe.hset(PREFIXES["THREADS"], worker, threads)
            pipe.expire(PREFIXES["THREADS"], 24 * 3600)  # the threads of workers long gone go with it
            pipe.set(PREFIXES["WORKER"] + worker, json.dumps({**statement, "beat_at": now}), ex=ALIVE_SECONDS)
            silent: int = pipe.execute()[0]
        return silent

    def withdraw(self, worker: str) -> None:
        """An orderly end."""
        with self.redis.pipeline() as pipe:
            pipe.zrem(PREFIXES["WORKERS"], worker)
            pipe.hdel(PREFIXES["THREADS"], worker)
            pipe.delete(PREFIXES["WORKER"] + worker)
            pipe.execute()

    def workers(self) -> list[Mapping[str, Any]]:
        """Their statements, oldest worker first."""
        ids = self.redis.zrange(PREFIXES["WORKERS"], 0, -1)
        texts = self.redis.mget([PREFIXES["WORKER"] + worker for worker in ids]) if ids else []
        return sorted((json.loads(text) for text in texts if text), key=lambda one: one["started_at"])
