"""Overlays on demand: made once, and not for ever when something in them kills workers."""

from __future__ import annotations

import time
from dataclasses import asdict
from uuid import uuid4

import numpy as np
import pytest
import redis

from models.media import Media, WindowPlan, probe
from service.clips import Clip, ClipStore
from service.engine import INTERACTIVE, WINDOWS, make_broker
from service.jobs import JobStore
from service.masks import to_rle
from service.records import Commit, Job, Lease
from service.renders import ASKED_SECONDS, Renderer, Renders, render_key
from service.settings import Settings
from service.steps import PREFIXES
from service.storage import Storage
from tests.workers import SAMPLE


class Killed(BaseException):
    """What a process that dies would look like from inside."""


class Deadly(Renderer):
    def render(self, job_id: str, form: str) -> None:
        raise Killed


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_url, settings.scratch_dir)


@pytest.fixture
def jobs(client: redis.Redis, settings: Settings) -> JobStore:
    return JobStore(client, settings)


@pytest.fixture
def renders(client: redis.Redis, settings: Settings, storage: Storage) -> Renders:
    return Renders(client, storage, make_broker(settings))


def notes(job: str) -> list[str]:
    """The keys under which Redis remembers the overlay of a job."""
    return [f"{PREFIXES[name]}{job}:mp4" for name in ("RENDER", "RENDER_STARTS")]


def done(jobs: JobStore, storage: Storage) -> str:
    """A job over the sample clip whose one frame is masked."""
    summary = probe(Media(video=SAMPLE))
    clip = Clip(uuid4().hex, "anna", video=f"uploads/{uuid4().hex}/media", summary=asdict(summary))
    assert clip.video is not None
    with storage.open_write(clip.video) as file:
        file.write(SAMPLE.read_bytes())
    ClipStore(jobs.redis).put(clip)
    job = Job(uuid4().hex, "anna", "full-mask", clip)
    jobs.create(job, [WindowPlan(0, (0.0,))])
    jobs.begin_window(job.id, 0, "t")
    blob = f"windows/{job.id}/0-t"
    rle = to_rle(np.ones((summary.height, summary.width), bool))
    with storage.open_write(blob) as file:
        file.write(
            b'{"index":0,"timestamp":0.0,"mask":{"format":"coco_rle","size":[%d,%d],"counts":"%s"}}\n'
            % (*rle["size"], rle["counts"].encode())
        )
    jobs.commit_window(Lease(job.id, 0, "t"), Commit(blob, 1))
    return job.id


def test_an_overlay_is_made_once_and_leaves_no_note(
    jobs: JobStore, storage: Storage, renders: Renders, settings: Settings
) -> None:
    job = done(jobs, storage)
    assert not renders.ask(job, "mp4")
    Renderer(settings, jobs, storage).run(job, "mp4")
    assert renders.ask(job, "mp4")
    assert storage.exists(render_key(job, "mp4"))
    assert not jobs.redis.exists(*notes(job))


def test_an_overlay_that_kills_workers_is_given_up(
    jobs: JobStore, storage: Storage, renders: Renders, settings: Settings
) -> None:
    job = done(jobs, storage)
    renders.ask(job, "mp4")
    deadly = Deadly(settings, jobs, storage)
    for _ in range(settings.max_attempts):
        with pytest.raises(Killed):
            deadly.run(job, "mp4")
        jobs.redis.delete(notes(job)[0])  # its sign of life runs out
    deadly.run(job, "mp4")
    failure = renders.failure(job, "mp4")
    assert failure is not None
    assert failure["code"] == "worker_lost"
    assert not renders.ask(job, "mp4"), "and nobody is asked again while the failure is remembered"
    assert jobs.redis.ttl(notes(job)[0]) > ASKED_SECONDS


def test_an_overlay_in_the_making_is_not_begun_again(
    jobs: JobStore, storage: Storage, renders: Renders, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks meanwhile asks for nothing, and a message too many does nothing: a film takes minutes."""
    monkeypatch.setattr("service.renders.ALIVE_SECONDS", 1)
    monkeypatch.setattr("service.renders.BEAT_SECONDS", 0.1)
    job = done(jobs, storage)
    begun: list[str] = []

    class Slow(Renderer):
        def render(self, job_id: str, form: str) -> None:
            begun.append(job_id)
            time.sleep(1.5)
            Slow(settings, jobs, storage).run(job_id, form)
            assert not renders.ask(job_id, form)
            super().render(job_id, form)

    renders.ask(job, "mp4")
    jobs.redis.expire(notes(job)[0], 1)
    Slow(settings, jobs, storage).run(job, "mp4")
    assert begun == [job]
    assert renders.ask(job, "mp4")
    assert sum(jobs.redis.hlen(f"avs:mq:{queue}.msgs") for queue in (INTERACTIVE, WINDOWS)) == 1


def test_a_clip_that_is_gone_has_no_overlay(
    jobs: JobStore, storage: Storage, renders: Renders, settings: Settings
) -> None:
    job = done(jobs, storage)
    record = jobs.get(job)
    assert record is not None
    assert record.job.clip.video is not None
    storage.delete(record.job.clip.video)
    Renderer(settings, jobs, storage).run(job, "mp4")
    failure = renders.failure(job, "mp4")
    assert failure is not None
    assert failure["code"] == "expired"
