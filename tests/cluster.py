"""A whole service for tests: real Redis, API and workers as processes, at addresses of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httpx
import psutil
import redis

from service.client import Client
from service.embedded import die_with_parent
from service.redis_server import PrivateRedis, wait_for

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "service" / "samples" / "bell.mp4"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], object], seconds: float, every: float = 0.02) -> float | None:
    """Seconds until `condition()` is true; None if it never was."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(every)
    return None


class Cluster:
    """`with Cluster(workers=2, max_attempts=5) as cluster:`; keyword arguments are fields of Settings."""

    def __init__(self, workers: int = 1, **settings: object) -> None:
        self.count = workers
        self.folder = Path(tempfile.mkdtemp(prefix="earshot-test-"))
        # The kernel kills a child when the thread that made it ends: this one makes them all, and lasts.
        self.maker = ThreadPoolExecutor(1)
        self.redis_server = PrivateRedis(self.folder, before_exec=die_with_parent)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # One client for all calls: each that httpx makes by itself reads every certificate of the machine.
        self.http = httpx.Client(
            base_url=self.url, timeout=90, limits=httpx.Limits(max_connections=128, keepalive_expiry=2)
        )
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.started = 0
        chosen: dict[str, object] = {
            "port": self.port,
            "scratch_dir": self.folder / "scratch",
            "weights_dir": self.folder / "weights",
            "registry": "tests.fault_strategies",
            "torch_threads": 1,
            **settings,
        }
        self.environment = {
            **os.environ,
            "REDIS_URL": self.redis_server.url,
            "STORAGE_URL": (self.folder / "storage").as_uri(),
            **{f"EARSHOT_{name.upper()}": str(value) for name, value in chosen.items()},
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the service says that it is ready."""
        self.start_redis()
        self.start_api()
        for _ in range(self.count):
            self.add_worker()
        up = until(lambda: self.ready() or self.fallen(), START_SECONDS, every=0.05)
        if up is None or self.fallen():
            raise RuntimeError(f"The cluster did not come up.\n{self.log()}")

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = self.http.get("/readyz", timeout=5)
            return answer.is_success and len(self.alive()) >= self.count
        return False

    def fallen(self) -> bool:
        """Whether a process ended that should run."""
        return any(one.poll() is not None for one in [*self.workers, self.api] if one is not None)

    def alive(self) -> list[str]:
        """The workers that Redis has seen lately."""
        with self.redis() as client:
            return cast("list[str]", client.zrange("avs:workers", 0, -1))

    def start_redis(self) -> None:
        self.maker.submit(self.redis_server.start).result()

    def start_api(self) -> None:
        self.api = self.process("api")

    def add_worker(self) -> subprocess.Popen[bytes]:
        self.workers.append(self.process("worker"))
        return self.workers[-1]

    def process(self, command: str, **environment: str) -> subprocess.Popen[bytes]:
        """One more, with variables of its own; not watched."""
        return self.maker.submit(self._process, command, environment).result()

    def _process(self, command: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        self.started += 1
        with (self.folder / f"{self.started:03d}-{command}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "service", command],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def stop(self) -> None:
        """Everything in order, by force where it must be; nothing is left behind."""
        processes = [process for process in [*self.workers, self.api] if process is not None]
        families = [family(process.pid) for process in processes]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)  # a stopped process would not hear the next one
                process.terminate()
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for member in {one for found in families for one in found}:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.redis_server.stop()
        self.http.close()
        self.maker.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, patience: float = 60.0) -> Client:
        return Client(self.url, patience=patience)

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.redis_server.url, decode_responses=True) as client:
            yield client

    def restart_redis(self, down: float) -> None:
        """Redis is away for `down` seconds and comes back with what its append-only file holds."""
        self.redis_server.stop()
        time.sleep(down)
        self.start_redis()
        wait_for(self.redis_server.url, 10)

    def log(self) -> str:
        """The end of what each process wrote."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def family(pid: int) -> list[psutil.Process]:
    """The descendants of a process: the decoders of a worker."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    running = []
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                running.append(one)
    return running
