"""A worker of a few lines for tests of the API: real jobs in a real Redis, masks without a network."""

from __future__ import annotations

import contextlib
import threading
import time
from uuid import uuid4

import numpy as np
import redis

from models.media import Window
from models.packed_masks import PackedMask
from models.strategies import FrameMasks, Instance
from service.fleet import Fleet
from service.jobs import JobStore
from service.masks import Outputs, frame_line
from service.records import Commit, Go
from service.settings import Settings
from service.steps import PREFIXES
from service.storage import Storage

MISSING = "The weights of ac-fpn are not installed; run `python -m service weights fetch ac-fpn`."


class HandWorker(threading.Thread):
    """Takes windows straight from the record. `paused` holds it back; `seconds` is what a frame takes."""

    def __init__(self, settings: Settings, seconds: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.redis = redis.Redis.from_url(settings.redis_url, decode_responses=True)
        self.jobs, self.fleet = JobStore(self.redis, settings), Fleet(self.redis)
        self.storage = Storage(settings.storage_url, settings.scratch_dir)
        self.seconds = seconds
        self.paused = threading.Event()
        self.stopping = threading.Event()
        self.problem: dict[str, object] | None = None

    def run(self) -> None:
        while not self.stopping.is_set():
            with contextlib.suppress(redis.RedisError):
                self.publish()
                if not self.paused.is_set():
                    self.work()
            time.sleep(0.005)

    def stop(self) -> None:
        self.stopping.set()
        self.join()
        self.redis.close()

    def publish(self) -> None:
        ready = {"ready": True, "reason": None}
        self.fleet.publish(
            {
                "id": "hand",
                "state": "ready",
                "device": "cpu",
                "threads": 1,
                "started_at": 0.0,
                "strategies": {
                    "full-mask": ready,
                    "ac-fpn": {"ready": False, "reason": MISSING, "code": "weights_missing"},
                },
                "models": {
                    "sam": {
                        "id": "sam-tiny",
                        "sha256": "0" * 64,
                        "licence": "MIT",
                        "device": "cpu",
                        "dtype": "f",
                    }
                },
            }
        )

    def work(self) -> None:
        for job_id in self.redis.zrange(PREFIXES["ACTIVE"], 0, -1):
            for window in self.redis.zrange(PREFIXES["FLIGHT"] + job_id, 0, -1):
                go = self.jobs.begin_window(job_id, int(window), uuid4().hex)
                if isinstance(go, Go) and self.problem is not None:
                    self.jobs.fail(go.lease, self.problem)
                elif isinstance(go, Go):
                    self.segment(go)

    def segment(self, go: Go) -> None:
        key = f"windows/{go.job.id}/{go.plan.index}-{go.token}"
        with self.storage.open_write(key) as file:
            for line in lines_of(go):
                time.sleep(self.seconds)
                file.write(line)
        self.jobs.commit_window(go.lease, Commit(key, len(go.plan.times), {"decode_ms": 1.0}))


def lines_of(go: Go) -> list[bytes]:
    """A square in the upper left corner, a little larger with each frame, and one instance as large."""
    height, width = go.job.clip.summary["height"], go.job.clip.summary["width"]
    fps = go.job.clip.summary["fps"]
    window = Window(
        index=go.plan.index,
        size=(height, width),
        timestamps=go.plan.times,
        indices=tuple(round(moment * fps) for moment in go.plan.times),
        audio_windows=tuple((moment, moment + 1) for moment in go.plan.times),
        frames=None,
        audio={},
        has_audio=True,
    )
    return [
        frame_line(window, position, square(height, width, int(moment) + 1), Outputs(**go.job.outputs))
        for position, moment in enumerate(go.plan.times)
    ]


def square(height: int, width: int, side: int) -> FrameMasks:
    mask = np.zeros((height, width), bool)
    mask[:side, :side] = True
    found = Instance(
        label="dog", score=0.5, audio_score=None, bbox=(0, 0, side, side), mask=PackedMask.of(mask)
    )
    return FrameMasks(mask=mask, instances=(found,))
