"""Embedded mode: one command up, one signal down, and nothing left behind, however it ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from service import embedded, redis_server
from service.embedded import CannotServe, Child, Embedded, address_of, greeting, usable_port
from service.redis_server import PrivateRedis, RedisUnfit
from service.settings import Settings
from tests.cluster import ROOT, alive, family, free_port, until


class Serving:
    """`python -m service serve` as a user starts it, with a temporary folder of its own to look into."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / "output.txt"
        inherited = {name: value for name, value in os.environ.items() if "REDIS" not in name}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--port", str(self.port), *words],
                cwd=ROOT,
                env={**inherited, "TMPDIR": str(folder), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def until_up(self) -> list[psutil.Process]:
        """Waits for the greeting; returns every process below."""
        came = until(lambda: "Ctrl-C" in self.text() or self.process.poll() is not None, 60)
        assert came is not None, self.text()
        assert self.process.poll() is None, self.text()
        return family(self.process.pid)

    def leftovers(self) -> list[str]:
        """Whatever is in the temporary folder besides what the test put there."""
        return [path.name for path in self.folder.iterdir() if path != self.output]


def worker_of(processes: list[psutil.Process]) -> psutil.Process | None:
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if one.cmdline()[-2:] == ["service", "worker"]:
                return one
    return None


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket, which a folder of pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="es-") as name:
        yield Path(name)


@pytest.fixture
def serving(folder: Path) -> Iterator[Serving]:
    one = Serving(folder)
    yield one
    below = family(one.process.pid)
    one.process.kill()
    one.process.wait()
    for process in alive(below):
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_line_works_and_a_signal_stops_everything(
    serving: Serving, number: signal.Signals
) -> None:
    processes = serving.until_up()
    assert len(processes) >= 3
    line = next(line for line in serving.text().splitlines() if line.strip().startswith("curl"))
    clip = shlex.split(line)[2].removeprefix("media=@")
    with (ROOT / clip).open("rb") as file:
        answer = httpx.post(shlex.split(line)[-1], files={"media": file}, timeout=60)
    assert answer.status_code == 200
    assert len(answer.json()["frames"]) == 5
    serving.process.send_signal(number)
    assert serving.process.wait(30) == 0, serving.text()
    assert alive(processes) == []
    assert serving.leftovers() == []
    assert "Traceback" not in serving.text()
    assert "Stopping: what is in work may take up to 35 s; Ctrl-C again ends it at once." in serving.text()


def test_with_keys_on_the_printed_line_says_where_the_key_goes(folder: Path) -> None:
    hashed = hashlib.sha256(b"open sesame").hexdigest()
    one = Serving(folder, EARSHOT_API_KEYS=f"acme:{hashed}")
    try:
        one.until_up()
        line = next(line for line in one.text().splitlines() if line.strip().startswith("curl"))
        words = shlex.split(line.replace("KEY", "open sesame"))
        name, _, value = words[words.index("-H") + 1].partition(": ")
        clip = words[words.index("-F") + 1].removeprefix("media=@")
        with (ROOT / clip).open("rb") as file:
            answer = httpx.post(words[-1], headers={name: value}, files={"media": file}, timeout=60)
        assert answer.status_code == 200
    finally:
        one.process.terminate()
        assert one.process.wait(40) == 0, one.text()


def test_a_second_signal_ends_work_at_once_and_says_what_is_lost(folder: Path) -> None:
    one = Serving(folder, EARSHOT_REGISTRY="tests.fault_strategies")
    processes = one.until_up()
    with (ROOT / "service/samples/bell.mp4").open("rb") as file:
        data = {"strategy": "sleep", "seconds": "60"}
        assert httpx.post(f"{one.url}/v1/jobs", data=data, files={"media": file}).status_code == 202
    assert until(lambda: httpx.get(f"{one.url}/v1/jobs").json()["data"][0]["status"] == "running", 20)
    processes += [each for each in family(one.process.pid) if each not in processes]
    one.process.send_signal(signal.SIGINT)
    assert until(lambda: "Ctrl-C again" in one.text(), 5)
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(15) == 0, one.text()
    assert "Unfinished jobs that are lost: 1. A Redis of your own" in one.text()
    assert until(lambda: not alive(processes), 2) is not None, alive(processes)
    assert one.leftovers() == []


class Starting(Embedded):
    """Without processes: /readyz says what a test wants, again and again the last of it."""

    def __init__(self, *states: Mapping[str, Any]) -> None:
        self.lines: list[str] = []
        super().__init__(Settings(port=0), say=self.lines.append)
        self.states = [*states]

    def readiness(self, _address: str) -> Mapping[str, Any]:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


def loads(what: str) -> Mapping[str, Any]:
    """What /readyz says while a worker loads."""
    checks = {"process": "ok", "redis": "ok", "worker": what}
    return {"ready": False, "checks": checks, "workers": [{"state": "starting", "strategies": {}}]}


def test_a_slow_start_is_told_step_by_step_and_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = {"ready": True, "workers": [{"strategies": {"ac-fpn": {"ready": True}}}]}
    one = Starting({}, *[loads("A worker is loading ac-fpn.")] * 5, loads("A worker is starting."), ready)
    monkeypatch.setattr(embedded, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(embedded, "readiness", one.readiness)
    assert embedded.best_strategy(one.until_ready() or ()) == "ac-fpn"
    assert one.lines == ["A worker is loading ac-fpn.", "A worker is starting."]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({}, "The API does not answer, though its process runs"),
        ({"checks": {"redis": "ok", "worker": "No worker runs."}, "workers": []}, "No worker runs"),
    ],
)
def test_silence_is_given_up_and_named(
    state: Mapping[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Starting(state)
    monkeypatch.setattr(embedded, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(embedded, "readiness", one.readiness)
    with pytest.raises(CannotServe, match=f"{sentence}.* So it was for 0.05 s"):
        one.until_ready()


def test_killed_with_9_it_takes_everything_with_it(serving: Serving) -> None:
    processes = serving.until_up()
    serving.process.kill()
    assert until(lambda: not alive(processes), 10) is not None, alive(processes)


def test_a_dead_worker_is_started_again(serving: Serving) -> None:
    worker = worker_of(serving.until_up())
    assert worker is not None
    worker.kill()
    assert until(lambda: "A worker stopped with exit code -9; starting it again." in serving.text(), 5)
    assert until(lambda: worker_of(family(serving.process.pid)) is not None, 10)
    assert until(lambda: is_ready(serving.url), 30)
    assert worker_of(family(serving.process.pid)) != worker


def test_a_dead_api_ends_everything_with_a_sentence(serving: Serving) -> None:
    processes = serving.until_up()
    next(one for one in processes if one.cmdline()[-2:] == ["service", "api"]).kill()
    assert serving.process.wait(30) == 1
    assert "The API stopped with exit code -9, for good" in serving.text()
    assert "Traceback" not in serving.text()
    assert alive(processes) == []
    assert serving.leftovers() == []


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").is_success
    return False


def test_a_busy_port_is_a_sentence(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "service", "serve", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in ended.stderr
    assert f"PORT={port + 1} make serve" in ended.stderr


def test_an_address_that_is_not_here_is_a_sentence() -> None:
    with pytest.raises(CannotServe, match=r"192\.0\.2\.1 is no address of this machine .* --host"):
        usable_port("192.0.2.1", 0)


def test_port_0_is_a_free_one_and_ipv6_stands_in_brackets() -> None:
    port = usable_port("127.0.0.1", 0)
    assert port > 0
    assert address_of("127.0.0.1", port) == f"http://127.0.0.1:{port}"
    assert address_of("::1", 8000) == "http://[::1]:8000"


def test_a_users_redis_is_used_and_left_alone(folder: Path) -> None:
    server = PrivateRedis(folder)
    server.start()
    one = Serving(folder, REDIS_URL=server.url)
    try:
        processes = one.until_up()
        assert not any("redis-server" in process.name() for process in processes)
        one.process.terminate()
        assert one.process.wait(30) == 0
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        one.process.kill()
        one.process.wait()
        server.stop()


def test_a_users_redis_that_forgets_is_refused(folder: Path) -> None:
    server = PrivateRedis(folder)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendonly", "no")
            assert redis_server.check(server.url)[0].startswith("Redis keeps no append-only file")
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(RedisUnfit, match="drops jobs when memory is short"):
            redis_server.check(server.url)
        one = Serving(folder, REDIS_URL=server.url)
        assert one.process.wait(30) == 1
        assert "noeviction" in one.text()
        assert "Traceback" not in one.text()
    finally:
        server.stop()


def test_redis_comes_back_with_what_it_knew(folder: Path) -> None:
    server = PrivateRedis(folder)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        assert client.config_get("port")["port"] == "0"
    server.stop()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") == b"b"
    server.stop()
    server.stop()


def test_without_a_server_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "candidates", lambda: iter(()))
    with pytest.raises(RedisUnfit, match="apt install redis-server"):
        redis_server.find_server()


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=5.0.7 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert redis_server.version_of(old) == (5, 0, 7)
    assert next(redis_server.candidates()) == old
    assert redis_server.find_server() != old


def test_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(RedisUnfit, match="TMPDIR"):
        PrivateRedis(tmp_path / ("deep" * 30))


def test_a_child_that_dies_again_and_again_is_given_up() -> None:
    child = Child("A worker", ("worker",), {})
    delays = []
    for _ in range(5):
        assert not child.worn_out(now=100.0)
        delays.append(child.start_at - 100.0)
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert child.worn_out(now=101.0)
    assert not child.worn_out(now=1000.0)


def test_the_greeting_names_a_strategy() -> None:
    assert "curl -F media=@" in greeting("http://127.0.0.1:8000", "ac-fpn")
    assert "http://127.0.0.1:8000/segment/ac-fpn" in greeting("http://127.0.0.1:8000", "ac-fpn")
