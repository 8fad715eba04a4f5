"""Uploads: where the parts of a clip are in storage, whose they are, and until when; the record is in Redis.

An upload lives until it has expired and no job needs it any more. One that came with its job (`owned`) goes
with that job.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from models.media import Media
from service.errors import Refusal
from service.steps import BELT_SECONDS, PREFIXES, Steps
from service.storage import Storage


@dataclass(frozen=True)
class Clip:
    """`video`, `audio` and `frames` are storage keys; `summary` is `models.media.Summary` as JSON.

    One container with both tracks is `video` alone.
    """

    id: str
    tenant: str
    video: str | None = None
    audio: str | None = None
    frames: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    size: int = 0
    owned: bool = False
    expires_at: float = 0.0

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Clip:
        return cls(**{**values, "frames": tuple(values["frames"])})


def media_of(clip: Clip, storage: Storage) -> Media:
    """Paths of the clip's parts on this machine, fetched where the store is elsewhere. A Refusal if they are
    gone: a result may outlive its clip."""
    try:
        paths = {key: storage.local_copy(key) for key in (clip.video, clip.audio, *clip.frames) if key}
    except FileNotFoundError:
        paths = {}
    if not paths or not all(path.exists() for path in paths.values()):
        raise Refusal("expired", "The clip of this job has expired; send it again.")
    return Media(
        video=paths[clip.video] if clip.video else None,
        audio=paths[clip.audio] if clip.audio else None,
        frames=tuple(paths[key] for key in clip.frames),
    )


class ClipStore:
    """The uploads. `client` decodes its responses."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis: Any = client  # redis-py types every answer as perhaps awaitable
        self._run = Steps(client)

    def put(self, clip: Clip) -> None:
        """Remember an upload whose parts are in storage, until `expires_at`."""
        belt = max(1, math.ceil(clip.expires_at - time.time())) + BELT_SECONDS
        with self.redis.pipeline() as pipe:
            pipe.set(PREFIXES["CLIP"] + clip.id, clip.encode(), ex=belt)
            pipe.zadd(PREFIXES["CLIPS"], {clip.id: clip.expires_at})
            pipe.execute()

    def get(self, clip_id: str, tenant: str) -> Clip | None:
        """The upload, or None if there is none, it has expired, or it is another tenant's."""
        text = self.redis.get(PREFIXES["CLIP"] + clip_id)
        clip = Clip.of(json.loads(text)) if text else None
        return clip if clip and clip.tenant == tenant and clip.expires_at > time.time() else None

    def drop(self, clip_id: str) -> bool:
        """Forget an upload now, unless a job needs it; its files become garbage."""
        return bool(self._run("drop_clips", clip_id))

    def expire(self) -> list[str]:
        """Forget every upload that is due and that no job needs; their ids."""
        return list(self._run("drop_clips"))
