"""The API for tests, in a thread of their process: real HTTP, Redis and sandbox, and a worker beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn

from service.app import Server, create_app
from service.schemas import Problem
from service.settings import Settings
from tests.cluster import free_port, until
from tests.handwork import HandWorker


class Api:
    """The API in a thread of this process, and its worker: a small one, or what `make_worker` makes."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        make_worker: Callable[[Settings], Any] = HandWorker,
        **settings: object,
    ) -> None:
        self.make_worker = make_worker
        usual = {"storage_url": (folder / "storage").as_uri(), "scratch_dir": folder / "scratch"}
        self.settings = Settings(redis_url=redis_url, port=free_port(), **(usual | settings))
        self.app = create_app(self.settings)
        config = uvicorn.Config(self.app, port=self.settings.port, log_config=None, access_log=False)
        self.server = Server(self.app, config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.http = httpx.Client(base_url=self.url, timeout=20)
        self.worker: Any = None

    def __enter__(self) -> Self:
        self.thread.start()
        assert until(lambda: self.server.started, 20)
        self.worker = self.make_worker(self.settings)
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.http.close()
        self.server.should_exit = True
        self.thread.join()


def sent(clip: bytes) -> dict[str, object]:
    return {"media": ("clip.mp4", clip)}


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Checks that a refusal is a whole problem document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    Problem.model_validate(document)
    assert (document["status"], document["code"]) == (status, code)
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def job_of(api: Api, clip: bytes, **fields: str) -> dict[str, object]:
    response = api.http.post("/v1/jobs", files=sent(clip), data={"strategy": "full-mask", **fields})
    assert response.status_code == 202, response.text
    return response.json()


def finished(api: Api, job_id: str) -> dict[str, object]:
    def look():
        return api.http.get(f"/v1/jobs/{job_id}").json()["finished_at"]

    assert until(look, 10)
    return api.http.get(f"/v1/jobs/{job_id}").json()
