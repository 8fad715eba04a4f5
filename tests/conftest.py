"""A real Redis for the tests that need one, the API in front of it, and a browser in front of that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from service.clips import ClipStore
from service.engine import connect
from service.jobs import JobStore
from service.redis_server import PrivateRedis
from service.settings import Settings
from tests import browser
from tests.api import Api
from tests.browser.visit import Visit
from tests.clips import make_clip


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One server for the session, on a socket in a folder of its own (a socket's path must be short)."""
    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        server = PrivateRedis(Path(folder))
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a service that lives in the test's folder, on an empty Redis."""
    return Settings(
        redis_url=redis_url, storage_url=f"file://{tmp_path}/storage", scratch_dir=tmp_path / "scratch"
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(client: redis.Redis, settings: Settings) -> JobStore:
    return JobStore(client, settings)


@pytest.fixture
def clips(client: redis.Redis) -> ClipStore:
    return ClipStore(client)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory) -> Iterator[PrivateRedis]:
    server = PrivateRedis(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path) -> Iterator[PrivateRedis]:
    """For a test with an API of its own: two workers on one Redis would do each other's work."""
    folder = tmp_path / "r"
    folder.mkdir()
    server = PrivateRedis(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def api(tmp_path_factory, redis_server) -> Iterator[Api]:
    with Api(tmp_path_factory.mktemp("api"), redis_server.url) as api:
        yield api


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, seconds=3, size=(64, 48), fps=10)
    return path.read_bytes()


@pytest.fixture
def paused(api) -> Iterator[None]:
    api.worker.paused.set()
    yield
    api.worker.paused.clear()


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # only where a browser is wanted

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(cluster, chromium) -> Iterator[Callable[..., Visit]]:
    """Opens the page of the module's cluster, in a fresh profile; at the end its console must be clean."""
    contexts, visits = [], []

    def opened(width: int = 1280, height: int = 860, **more) -> Visit:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **more))
        visits.append(Visit(contexts[-1], cluster.url))
        return visits[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [error for one in visits for error in one.errors] == []
