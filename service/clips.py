"""Uploads in Redis: where the parts of a clip are in storage, whose they are, and until when.

An upload lives until it has expired and no job needs it any more. One that came with its job (`owned`) goes
with that job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


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
    created_at: float = 0.0
    expires_at: float = 0.0

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Clip:
        return cls(**{**values, "frames": tuple(values["frames"])})
