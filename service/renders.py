"""The overlay of a job as MP4, made on demand by a worker: asked for here, kept with the result."""

from __future__ import annotations

import json
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from service.engine import BELL, WINDOWS
from service.storage import Storage

RENDER = "avs:render:"  # string: `asked`, or the problem document of a render that failed
ACTOR = "render_overlay"
ASKED_SECONDS = 120  # after which a render that nobody finished is asked for again
FAILED_SECONDS = 600


def overlay_key(job_id: str) -> str:
    return f"renders/{job_id}/overlay.mp4"


class Renders:
    """Asks for overlays. `client` decodes its responses; a render takes a worker's thread like a window."""

    def __init__(self, client: redis.Redis, storage: Storage, broker: RedisBroker) -> None:
        self.redis: Any = client  # redis-py types every answer as perhaps awaitable
        self.storage, self.broker = storage, broker

    def ask(self, job_id: str) -> bool:
        """Whether the overlay is there; if not, it will be, however often this is called."""
        if self.storage.exists(overlay_key(job_id)):
            return True
        if self.redis.set(RENDER + job_id, "asked", nx=True, ex=ASKED_SECONDS):
            message: dramatiq.Message[None] = dramatiq.Message(
                queue_name=WINDOWS, actor_name=ACTOR, args=(job_id,), kwargs={}, options={}
            )
            self.broker.enqueue(message)
            self.broker.client.publish(BELL, WINDOWS)
        return False

    def failure(self, job_id: str) -> dict[str, Any] | None:
        """The problem that a worker met, if it did."""
        text = self.redis.get(RENDER + job_id)
        return json.loads(text) if text and text != "asked" else None
