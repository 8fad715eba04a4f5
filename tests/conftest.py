"""A real Redis for the tests that need one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.engine import connect
from service.redis_server import PrivateRedis
from service.settings import Settings


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
