"""The pictures of a job, made on demand by a worker: an overlay as MP4, a contact sheet as PNG.

They are asked for here, and kept with the result.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
import structlog
from dramatiq.brokers.redis import RedisBroker

from models.errors import EarshotError
from models.media import Summary
from service.clips import media_of
from service.decoding import Sandbox, files_of, media_limits
from service.engine import WINDOWS, put
from service.errors import Refusal, problem_document
from service.jobs import JobStore
from service.overlay import OverlayRequest
from service.reconciler import Every
from service.records import JobStatus
from service.settings import Settings
from service.sheet import SheetRequest
from service.steps import CHANGED, PREFIXES
from service.storage import Storage

ACTOR = "render_overlay"
ASKED_SECONDS = 120  # after which a render that nobody began is asked for again
ALIVE_SECONDS = 30  # after which one that was begun, and gives no sign of life, is asked for again
BEAT_SECONDS = 10.0
ASKED, BEGUN = "asked", "begun"
FAILED_SECONDS = 600  # for so long a failure is remembered, and so are the starts that led to it
RENDER_SECONDS = 900.0  # wall clock and CPU time of one render
RENDER_NICENESS = 2  # somebody waits; as far back as a decoder, it all but stops on a busy machine
LOG = structlog.get_logger(__name__)


REQUESTS: Mapping[str, type[OverlayRequest | SheetRequest]] = MappingProxyType(
    {"mp4": OverlayRequest, "sheet": SheetRequest}
)


def render_key(job_id: str, form: str) -> str:
    """Where a render is stored; `form` is the name of a format without a writer (`results.FORMATS`)."""
    return f"renders/{job_id}/{form}"


def note_key(prefix: str, job_id: str, form: str) -> str:
    return f"{PREFIXES[prefix]}{job_id}:{form}"


class Renders:
    """Asks for renders. `client` decodes its responses; a render takes a worker's thread like a window."""

    def __init__(self, client: redis.Redis, storage: Storage, broker: RedisBroker) -> None:
        self.redis: Any = client  # redis-py types every answer as perhaps awaitable
        self.storage, self.broker = storage, broker

    def ask(self, job_id: str, form: str) -> bool:
        """Whether the render is there; if not, it will be, however often this is called."""
        if self.storage.exists(render_key(job_id, form)):
            return True
        if self.redis.set(note_key("RENDER", job_id, form), ASKED, nx=True, ex=ASKED_SECONDS):
            put(self.broker, WINDOWS, ACTOR, job_id, form)
        return False

    def failure(self, job_id: str, form: str) -> dict[str, Any] | None:
        """The problem that a worker met, if it did."""
        text = self.redis.get(note_key("RENDER", job_id, form))
        return json.loads(text) if text and text not in (ASKED, BEGUN) else None


class Renderer:
    """Makes renders, in a worker: the clip is decoded in the sandbox, as always."""

    def __init__(self, settings: Settings, jobs: JobStore, storage: Storage) -> None:
        self.jobs, self.storage, self.scratch = jobs, storage, settings.scratch_dir
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.attempts = settings.max_attempts
        self.sandbox = Sandbox(
            settings.model_copy(update={"decode_seconds": RENDER_SECONDS}), RENDER_NICENESS
        )
        self.limits = media_limits(settings)

    def run(self, job_id: str, form: str) -> None:
        """What a message asks for. What goes wrong with the clip is told to who asked."""
        mark, starts = note_key("RENDER", job_id, form), note_key("RENDER_STARTS", job_id, form)
        if self.jobs.redis.get(mark) == BEGUN:
            return  # somebody is at it; if that one died, it is asked for again when the mark has run out
        try:
            self.count_start(starts)
            with self.alive(mark):
                self.render(job_id, form)
        except EarshotError as error:
            self.jobs.redis.set(mark, json.dumps(problem_document(error)), ex=FAILED_SECONDS)
        except (redis.RedisError, OSError) as error:  # asked for again, when the mark has run out
            LOG.warning("render given up", job_id=job_id, error=str(error))
        else:
            self.jobs.redis.delete(mark, starts)
        self.jobs.redis.publish(CHANGED, f"{job_id} {JobStatus.SUCCEEDED}")

    @contextmanager
    def alive(self, mark: str) -> Iterator[None]:
        """While the block runs, nobody asks for this render again: a film takes minutes."""

        def beat() -> None:
            self.jobs.redis.set(mark, BEGUN, ex=ALIVE_SECONDS)

        beat()
        beats = Every("render", BEAT_SECONDS, beat)
        beats.start()
        try:
            yield
        finally:
            beats.stop()

    def count_start(self, key: str) -> None:
        """A Refusal after too many: whatever it is that kills workers, they are not all to die of it."""
        with self.jobs.redis.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, FAILED_SECONDS)
            starts, _ = pipe.execute()
        if starts > self.attempts:
            detail = f"The picture was begun {self.attempts} times and never finished."
            raise Refusal("worker_lost", detail)

    def render(self, job_id: str, form: str) -> None:
        record = self.jobs.get(job_id)
        if record is None or record.status is not JobStatus.SUCCEEDED:
            return
        if self.storage.exists(render_key(job_id, form)):
            return
        folder = Path(tempfile.mkdtemp(prefix="render-", dir=self.scratch))
        try:
            lines, target = folder / "lines", folder / form
            self.copy_lines(job_id, lines)
            clip = record.job.clip
            media = media_of(clip, self.storage)
            request = REQUESTS[form](media, Summary(**clip.summary), lines, target, self.limits)
            self.sandbox.ask(request, reads=files_of(media), writes=[folder])
            self.storage.put_file(target, render_key(job_id, form))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def copy_lines(self, job_id: str, target: Path) -> None:
        with target.open("wb") as lines:
            for blob in self.jobs.blobs(job_id):
                with self.storage.open_read(blob.key) as stored:
                    shutil.copyfileobj(stored, lines)
