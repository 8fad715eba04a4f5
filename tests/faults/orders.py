"""What the promises have in common: jobs on a service under test, and what became of them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import httpx

from service.client import Client, Job
from service.client_errors import ClientError
from service.steps import PREFIXES
from tests.cluster import SAMPLE, Cluster, until

# Faults are noticed sooner than in production, so that a run ends; the bounds stay those of the promise.
BRISK = {"lease_seconds": 6, "heartbeat_seconds": 1, "redelivery_seconds": 5, "reconcile_seconds": 1}


@contextlib.contextmanager
def journal() -> Iterator[Path]:
    """A file to which the strategies write what they begin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.touch()
        yield path


def starts(path: Path) -> Counter[int]:
    """How often each window was begun."""
    return Counter(int(line.split()[0]) for line in path.read_text().splitlines())


def upload(client: Client, clip: Path = SAMPLE) -> str:
    return str(client.send("POST", "/v1/uploads", files=[("media", clip)]).json()["upload_id"])


def order(
    client: Client, upload_id: str, strategy: str, headers: dict[str, str] | None = None, **options
) -> Job:
    """A job on a clip that is there already."""
    body = {"upload_id": upload_id, "strategy": strategy, **options}
    return Job(client, client.send("POST", "/v1/jobs", json=body, headers=headers or {}).json())


def lines(job: Job) -> bytes:
    """The result as it is stored: nothing in it depends on when or where it was computed."""
    accept = {"Accept": "application/x-ndjson"}
    return job.client.send("GET", f"{job.url}/result", headers=accept).content


def running(job: Job, frames: int = 1, seconds: float = 60) -> None:
    """Returns when so many frames are done."""
    if until(lambda: job.refresh().progress.frames_done >= frames, seconds) is None:
        raise TimeoutError(f"Job {job.id} has {job.progress} after {seconds:g} s.")


def unfinished(cluster: Cluster) -> int:
    """Jobs that are queued or running."""
    with cluster.redis() as client:
        return cast(int, client.zcard(PREFIXES["ACTIVE"]))


def ready(cluster: Cluster) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return cluster.http.get("/readyz", timeout=5).is_success
    return False


def outcome(job: Job) -> str:
    """The final status."""
    with contextlib.suppress(ClientError):
        job.wait(timeout=120)
    return job.status


def found(folder: Path) -> list[Path]:
    """All files below a folder from which others vanish meanwhile."""
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]
