"""The overlay of a job as MP4, made on demand by a worker: asked for here, kept with the result."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dramatiq
import redis
import structlog
from dramatiq.brokers.redis import RedisBroker

from models.containers import Limits
from models.errors import EarshotError
from models.media import Summary
from service.clips import media_of
from service.decoding import Sandbox, files_of
from service.engine import WINDOWS
from service.errors import Refusal, problem_document
from service.jobs import JobStore
from service.overlay import OverlayRequest
from service.records import JobStatus
from service.settings import Settings
from service.steps import BELL, CHANGED, PREFIXES
from service.storage import Storage

ACTOR = "render_overlay"
ASKED_SECONDS = 120  # after which a render that nobody finished is asked for again
FAILED_SECONDS = 600  # for so long a failure is remembered, and so are the starts that led to it
RENDER_SECONDS = 900.0  # wall clock and CPU time of one render
LOG = structlog.get_logger(__name__)


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
        if self.redis.set(PREFIXES["RENDER"] + job_id, "asked", nx=True, ex=ASKED_SECONDS):
            message: dramatiq.Message[None] = dramatiq.Message(
                queue_name=WINDOWS, actor_name=ACTOR, args=(job_id,), kwargs={}, options={}
            )
            self.broker.enqueue(message)
            self.broker.client.publish(BELL, WINDOWS)
        return False

    def failure(self, job_id: str) -> dict[str, Any] | None:
        """The problem that a worker met, if it did."""
        text = self.redis.get(PREFIXES["RENDER"] + job_id)
        return json.loads(text) if text and text != "asked" else None


class Renderer:
    """Makes overlays, in a worker: the clip is decoded in the sandbox, as always."""

    def __init__(self, settings: Settings, jobs: JobStore, storage: Storage) -> None:
        self.jobs, self.storage, self.scratch = jobs, storage, settings.scratch_dir
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.attempts = settings.max_attempts
        self.sandbox = Sandbox(settings.model_copy(update={"decode_seconds": RENDER_SECONDS}))
        self.limits = Limits(
            bytes_=settings.max_upload_bytes,
            pixels=settings.max_pixels,
            duration=settings.job_seconds,
            frames=settings.max_frames,
            tracks=settings.max_tracks,
        )

    def run(self, job_id: str) -> None:
        """What a message asks for. What goes wrong with the clip is told to who asked."""
        failed = PREFIXES["RENDER"] + job_id
        try:
            self.count_start(job_id)
            self.render(job_id)
        except EarshotError as error:
            self.jobs.redis.set(failed, json.dumps(problem_document(error)), ex=FAILED_SECONDS)
        except (redis.RedisError, OSError) as error:  # asked for again, when ASKED_SECONDS are over
            LOG.warning("render given up", job_id=job_id, error=str(error))
        else:
            self.jobs.redis.delete(failed, PREFIXES["RENDER_STARTS"] + job_id)
        self.jobs.redis.publish(CHANGED, f"{job_id} {JobStatus.SUCCEEDED}")

    def count_start(self, job_id: str) -> None:
        """A Refusal after too many: whatever it is that kills workers, they are not all to die of it."""
        with self.jobs.redis.pipeline() as pipe:
            pipe.incr(PREFIXES["RENDER_STARTS"] + job_id)
            pipe.expire(PREFIXES["RENDER_STARTS"] + job_id, FAILED_SECONDS)
            starts, _ = pipe.execute()
        if starts > self.attempts:
            detail = f"The overlay was begun {self.attempts} times and never finished."
            raise Refusal("worker_lost", detail)

    def render(self, job_id: str) -> None:
        record = self.jobs.get(job_id)
        if record is None or record.status is not JobStatus.SUCCEEDED:
            return
        if self.storage.exists(overlay_key(job_id)):
            return
        folder = Path(tempfile.mkdtemp(prefix="render-", dir=self.scratch))
        try:
            lines, target = folder / "lines", folder / "overlay.mp4"
            self.copy_lines(job_id, lines)
            clip = record.job.clip
            media = media_of(clip, self.storage)
            request = OverlayRequest(media, Summary(**clip.summary), lines, target, self.limits)
            self.sandbox.ask(request, reads=files_of(media), writes=[folder])
            self.storage.put_file(target, overlay_key(job_id))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def copy_lines(self, job_id: str, target: Path) -> None:
        with target.open("wb") as lines:
            for blob in self.jobs.blobs(job_id):
                with self.storage.open_read(blob.key) as stored:
                    shutil.copyfileobj(stored, lines)
