"""Embedded mode: one command starts a private Redis, the API and workers, and stops all of them together.

The processes are those of production; only Redis is ours and lives in a folder that goes with us. Nothing
outlives this process: the kernel stops the children even when it is killed with -9.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import redis

from models.recommended import recommended
from service import redis_server
from service.jobs import JobStore
from service.redis_server import PrivateRedis, RedisUnfit
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "service" / "samples" / "garden.mp4"
SILENT_SECONDS = 180.0  # without a sign of life from a process that starts; loading may take longer
LOOK_SECONDS = 0.2
STOP_MARGIN = 5.0  # seconds on top of the worker's own drain
RESTARTS = 5  # of one worker within RESTART_WINDOW, then it is dead for good
RESTART_WINDOW = 60.0
PR_SET_PDEATHSIG = 1

LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class CannotServe(Exception):
    """The message is a sentence that says what to change."""


def die_with_parent() -> None:
    """Runs in a child before exec: the kernel sends SIGKILL when the thread that made it ends."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Child:
    """A process of ours, `python -m service NAME ...`, and when it was started again."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    restarts: list[float] = field(default_factory=list)  # seconds of time.monotonic()
    start_at: float = 0.0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *self.arguments],
            cwd=ROOT,
            env=dict(self.environment),
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we stop the others in order
            preexec_fn=die_with_parent,
        )

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, until: float) -> bool:
        """Whether it ended before that moment of `time.monotonic()`."""
        if self.process is None:
            return True
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def worn_out(self, now: float) -> bool:
        """Counts a death; True when there were too many of late. Else `start_at` says when to try again."""
        self.restarts = [moment for moment in self.restarts if now - moment < RESTART_WINDOW] + [now]
        self.start_at = now + 0.5 * 2.0 ** (len(self.restarts) - 1)
        self.process = None
        return len(self.restarts) > RESTARTS


class Embedded:
    """The service on one machine. `run` returns when it was told to stop, or raises CannotServe."""

    def __init__(self, settings: Settings, workers: int = 1, say: Callable[[str], None] = print) -> None:
        port = usable_port(settings.host, settings.port)
        self.settings = settings.model_copy(update={"port": port})
        self.workers = workers
        self.say = say
        self.address = address_of(settings.host, port)
        self.stopping = threading.Event()
        self.hurry = threading.Event()
        self.children: list[Child] = []
        self.redis: PrivateRedis | None = None

    def run(self) -> None:
        """Starts everything, watches over it, and stops everything, Redis last."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.asked_to_stop)
        folder = Path(tempfile.mkdtemp(prefix="earshot-"))
        try:
            self.start(folder)
            workers = self.until_ready()
            if workers is not None:
                self.say(greeting(self.address, best_strategy(workers), bool(self.settings.api_keys)))
            while not self.stopping.wait(LOOK_SECONDS):
                self.look_after()
        except RedisUnfit as error:
            raise CannotServe(str(error)) from error
        finally:
            self.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def asked_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        """The first signal stops in good order; the second does not wait for work in hand."""
        (self.hurry if self.stopping.is_set() else self.stopping).set()

    def start(self, folder: Path) -> None:
        environment = self.environment(folder)
        self.children = [Child("The API", ("api",), environment)]
        self.children += [Child("A worker", ("worker",), environment) for _ in range(self.workers)]
        for child in self.children:
            child.start()

    def environment(self, folder: Path) -> dict[str, str]:
        """Our own, and where Redis and storage are. What the user has set stays."""
        environment = dict(os.environ)
        environment |= {"EARSHOT_HOST": self.settings.host, "EARSHOT_PORT": str(self.settings.port)}
        if "redis_url" in self.settings.model_fields_set:
            for warning in redis_server.check(self.settings.redis_url):
                self.say(f"Note: {warning}")
            return environment
        self.redis = PrivateRedis(folder, before_exec=die_with_parent)
        self.redis.start()
        # Storage and scratch are in the temporary folder unless the user has said otherwise, and go with it:
        # without the records of its jobs, a stored result is of no use.
        return environment | {"REDIS_URL": self.redis.url, "TMPDIR": str(folder)}

    def until_ready(self) -> Sequence[Mapping[str, Any]] | None:
        """What the workers say of themselves, once the API and one of them are ready; None when we were told
        to stop before. While a worker loads, however long, it says how far it is."""
        heard, said = time.monotonic(), ""
        while not self.stopping.wait(LOOK_SECONDS):
            self.look_after()
            state = readiness(self.address)
            workers: Sequence[Mapping[str, Any]] = state.get("workers", ())
            if state.get("ready"):
                return workers
            if any(worker["state"] == "starting" for worker in workers):
                heard, news = time.monotonic(), state["checks"]["worker"]
                if news not in {said, "ok"}:
                    said = news
                    self.say(news)
            elif time.monotonic() - heard > SILENT_SECONDS:
                raise CannotServe(silence(state))
        return None

    def look_after(self) -> None:
        """Starts a dead worker again, later each time; what cannot be started again ends everything."""
        if self.redis and self.redis.process and self.redis.process.poll() is not None:
            raise CannotServe(f"Redis stopped with exit code {self.redis.process.returncode}.")
        now = time.monotonic()
        for child in self.children:
            if child.process is None and now >= child.start_at:
                child.start()
            elif child.exit_code is not None:
                reason = f"{child.name} stopped with exit code {child.exit_code}"
                if child.arguments == ("api",) or child.worn_out(now):
                    raise CannotServe(f"{reason}, for good; its log above says why.")
                self.say(f"{reason}; starting it again.")

    def stop(self) -> None:
        """Workers and API end first: they need Redis to hand their work back."""
        patience = self.settings.drain_seconds + STOP_MARGIN
        until = time.monotonic() + patience
        if self.stopping.is_set():
            self.say(
                f"Stopping: what is in work may take up to {patience:g} s; Ctrl-C again ends it at once."
            )
        for child in self.children:
            child.signal(signal.SIGTERM)
        for child in self.children:
            while not child.wait(min(until, time.monotonic() + LOOK_SECONDS)):
                if self.hurry.is_set() or time.monotonic() >= until:
                    child.signal(signal.SIGKILL)
        if self.redis:
            lost = unfinished_jobs(self.redis.url, self.settings)
            if lost:
                self.say(
                    f"Unfinished jobs that are lost: {lost}. A Redis of your own (REDIS_URL) would keep them."
                )
            self.redis.stop()


def usable_port(host: str, port: int) -> int:
    """The port, which must be free; a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise CannotServe(
                    f"Port {port} of {host} cannot be used ({error.strerror}); choose another, as in "
                    f"`PORT={port + 1} make serve` or `python -m service serve --port {port + 1}`."
                ) from error
            raise CannotServe(
                f"{host} is no address of this machine ({error.strerror}); name one with --host, "
                "127.0.0.1 or 0.0.0.0 say."
            ) from error
        free: int = probe.getsockname()[1]
        return free


def address_of(host: str, port: int) -> str:
    """Where to reach what listens there; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def readiness(address: str) -> Mapping[str, Any]:
    """What /readyz says, ready or not; empty while nobody answers. It asks for no key."""
    try:
        document: Mapping[str, Any] = httpx.get(f"{address}/readyz", timeout=5.0).json()
    except (httpx.TransportError, ValueError):
        return {}
    return document


def silence(state: Mapping[str, Any]) -> str:
    """Why we wait no longer; `state` is what /readyz said last."""
    wrong = [check for check in state.get("checks", {}).values() if check != "ok"]
    why = " ".join(wrong) or "The API does not answer, though its process runs."
    return f"{why} So it was for {SILENT_SECONDS:g} s."


def unfinished_jobs(url: str, settings: Settings) -> int:
    """How many there are in this Redis; 0 where it does not answer any more."""
    try:
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return int(JobStore(client, settings).stats()["active"])
    except redis.RedisError:
        return 0


def best_strategy(workers: Sequence[Mapping[str, Any]]) -> str:
    """What `auto` would be; `full-mask` needs no weights and always is ready."""
    ready = {name for worker in workers for name, one in worker["strategies"].items() if one["ready"]}
    return recommended(ready, ready) or "full-mask"


def greeting(address: str, strategy: str, keys: bool = False) -> str:
    """What to do first; with keys on, KEY stands for one that the user has."""
    sample = shlex.quote(os.path.relpath(SAMPLE))
    key = '-H "Authorization: Bearer KEY" ' if keys else ""
    return (
        f"\nEarshot listens at {address}   (pages: {address}/ and {address}/docs)\n"
        f"Try it{', with your key for KEY' if keys else ''}:\n\n"
        f"  curl {key}-F media=@{sample} {address}/segment/{strategy}\n\nCtrl-C stops everything."
    )
