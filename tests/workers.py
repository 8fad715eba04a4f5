"""Worker processes on a Redis and a storage of their own, without an API: what the tests kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from models.media import Media, WindowPlan, probe
from service.clips import Clip, ClipStore
from service.embedded import die_with_parent
from service.engine import connect, make_broker, send_all
from service.fleet import Fleet
from service.jobs import JobStore
from service.records import Job, JobRecord
from service.redis_server import PrivateRedis
from service.settings import Settings
from service.storage import Storage
from tests.fault_strategies import FAULTS, STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "service/samples/bell.mp4"
WINDOW_FRAMES = 16
HASTY = {"heartbeat_seconds": 1, "redelivery_seconds": 3, "lease_seconds": 6, "reconcile_seconds": 1}


class Workers:
    """`with Workers(2, worker_threads=1) as workers:`; keyword arguments are fields of Settings."""

    def __init__(self, count: int = 1, **settings: Any) -> None:
        self.count = count
        self.folder = Path(tempfile.mkdtemp(prefix="earshot-"))
        self.server = PrivateRedis(self.folder, before_exec=die_with_parent)
        values = {
            "storage_url": f"file://{self.folder}/storage",
            "scratch_dir": self.folder / "scratch",
            "registry": "tests.fault_strategies",
            "strategies": ",".join(["full-mask", *FAULTS]),
            "worker_threads": 4,
            **settings,
        }
        self.settings = Settings(redis_url=self.server.url, **values)
        names = {f"EARSHOT_{name.upper()}": str(value) for name, value in values.items()}
        self.environment = {**os.environ, **names, "REDIS_URL": self.server.url}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.reviving = threading.Event()
        self.summary = asdict(probe(Media(video=SAMPLE)))

    def __enter__(self) -> Self:
        self.server.start()
        self.client = connect(self.settings)
        self.jobs, self.clips, self.fleet = (
            JobStore(self.client, self.settings),
            ClipStore(self.client),
            Fleet(self.client),
        )
        self.storage = Storage(self.settings.storage_url, self.settings.scratch_dir)
        self.broker = make_broker(self.settings)
        try:
            for _ in range(self.count):
                self.add()
            self.until_ready(self.count)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reviving.set()
        if error is not None:
            print((self.folder / "log").read_text()[-8000:])  # noqa: T201 (pytest shows it with the failure)
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self.broker.client.close()
        self.client.close()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "worker"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.processes.append(process)
        return process

    def until_ready(self, count: int) -> None:
        def ready() -> bool:
            return sum(one["state"] == "ready" for one in self.fleet.workers()) >= count

        assert until(ready, 60), (self.folder / "log").read_text()[-5000:]

    def revive(self) -> None:
        """Start a worker for each that dies, as a supervisor does, until the end of the block."""

        def watch() -> None:
            while not self.reviving.wait(0.1):
                for process in [one for one in self.processes if one.poll() is not None]:
                    self.processes.remove(process)
                    self.add()

        threading.Thread(target=watch, daemon=True).start()

    def submit(self, strategy: str, frames: int = 16, **fields: Any) -> str:
        """The id of a job over the sample clip, its first windows sent."""
        clip = Clip(
            uuid4().hex,
            "anna",
            video=f"uploads/{uuid4().hex}/media",
            summary=self.summary,
            expires_at=time.time() + 600,
        )
        assert clip.video is not None
        with self.storage.open_write(clip.video) as file:
            file.write(SAMPLE.read_bytes())
        self.clips.put(clip)
        times = [4.9 * number / frames for number in range(frames)]
        plans = [
            WindowPlan(index, tuple(times[first : first + WINDOW_FRAMES]), first)
            for index, first in enumerate(range(0, frames, WINDOW_FRAMES))
        ]
        options = asdict(STRATEGIES[strategy].presets["best"])
        job = Job(uuid4().hex, "anna", strategy, clip, options=options, **fields)
        record, _ = self.jobs.create(job, plans)
        send_all(self.broker, self.jobs.next_windows(record.id))
        return record.id

    def record(self, job: str) -> JobRecord:
        record = self.jobs.get(job)
        assert record is not None
        return record

    def wait(self, *jobs: str, seconds: float = 60) -> list[JobRecord]:
        """The records once all have ended."""
        assert until(lambda: all(self.record(job).status.final for job in jobs), seconds), [
            self.record(job) for job in jobs
        ]
        return [self.record(job) for job in jobs]

    def result(self, job: str) -> bytes:
        """All lines of a job's result, in order."""
        return b"".join(self.storage.read(blob.key) for blob in self.jobs.blobs(job))

    def files(self, kind: str = "windows") -> list[Path]:
        return [path for path in (self.folder / "storage" / kind).rglob("*") if path.is_file()]


def until(condition: Callable[[], object], seconds: float, every: float = 0.02) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every)
    return False
