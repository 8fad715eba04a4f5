"""The API as a process: tenants, overload, a Redis that goes, an end in order; and the whole way once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import httpx

from tests.api import Api, is_problem, job_of, sent
from tests.cluster import Cluster, free_port, until

ROOT = Path(__file__).resolve().parent.parent


def test_tenants_do_not_see_each_other(tmp_path, own_redis, clip) -> None:
    keys = tuple(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("acme", "zenith"))
    acme, zenith = ({"X-API-Key": name} for name in ("acme", "zenith"))
    data = {"strategy": "full-mask"}
    with Api(tmp_path, own_redis.url, api_keys=keys, max_upload_bytes=100_000) as api:
        refused = api.http.post("/v1/segment/full-mask", files=sent(clip))
        is_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        job = api.http.put("/v1/jobs/mine", files=sent(clip), data=data, headers=acme).json()
        upload = api.http.post("/v1/uploads", files=sent(clip), headers=acme).json()["upload_id"]
        for name in (job["id"], "mine"):
            is_problem(api.http.get(f"/v1/jobs/{name}", headers=zenith), 404, "not_found")
        is_problem(api.http.delete(f"/v1/jobs/{job['id']}", headers=zenith), 404, "not_found")
        stolen = api.http.post("/v1/segment/full-mask", json={"upload_id": upload}, headers=zenith)
        is_problem(stolen, 404, "not_found")
        assert api.http.get("/v1/jobs", headers=zenith).json()["data"] == []
        assert api.http.put("/v1/jobs/mine", files=sent(clip), data=data, headers=zenith).status_code == 201
        too_much = api.http.post("/v1/uploads", files=sent(bytes(200_000)), headers=acme)
        assert is_problem(too_much, 413, "media_too_large")["allowed"] == 100_000
        assert api.http.get("/healthz").status_code == 200


def test_overload_is_refused_fast(tmp_path, own_redis, clip) -> None:
    with Api(tmp_path, own_redis.url, queue_jobs=2) as api:
        api.worker.paused.set()
        for _ in range(2):
            job_of(api, clip)
        time.sleep(0.15)  # what Redis last said is believed for a tenth of a second
        began = time.monotonic()
        for _ in range(10):
            response = api.http.post("/v1/segment/full-mask", files=sent(clip))
            is_problem(response, 503, "queue_full")
            assert int(response.headers["retry-after"]) >= 1
        assert (time.monotonic() - began) / 10 < 0.2


def test_a_lost_redis_is_a_pause(tmp_path, own_redis, clip) -> None:
    with Api(tmp_path, own_redis.url) as api:
        api.worker.paused.set()
        job_of(api, clip)
        own_redis.stop()
        time.sleep(0.15)  # what Redis last said is believed for a tenth of a second
        for _ in range(2):
            began = time.monotonic()
            is_problem(api.http.get("/v1/jobs"), 503, "store_unavailable")
            is_problem(api.http.post("/v1/segment/full-mask", files=sent(clip)), 503, "store_unavailable")
            assert time.monotonic() - began < 2
        assert api.http.get("/healthz").status_code == 200
        assert "Redis" in is_problem(api.http.get("/readyz"), 503, "not_ready")["detail"]
        own_redis.start()
        api.worker.paused.clear()
        assert until(lambda: api.http.get("/readyz").status_code == 200, 10)
        assert until(lambda: not api.http.get("/v1/jobs?status=queued").json()["data"], 10)
        assert api.http.post("/v1/segment/full-mask", files=sent(clip)).status_code == 200


def test_a_draining_process_answers_who_waits(tmp_path, own_redis, clip) -> None:
    with Api(tmp_path, own_redis.url) as api, ThreadPoolExecutor(1) as pool:
        api.worker.paused.set()
        waiting = pool.submit(api.http.post, "/v1/segment/full-mask", files=sent(clip))
        assert until(lambda: api.app.state.desk.notifier.watchers, 10)
        began = time.monotonic()
        api.server.handle_exit(15, None)
        assert waiting.result().status_code == 202
        assert time.monotonic() - began < 2


def test_the_whole_way_with_a_real_worker(clip) -> None:
    with Cluster(registry="models.strategies") as cluster, httpx.Client(base_url=cluster.url) as http:
        response = http.post("/segment/full-mask", files=sent(clip), timeout=30)
        assert [frame["area"] for frame in response.json()["frames"]] == [64 * 48] * 3
        url = f"/v1/jobs/{response.json()['job_id']}/result?format=mp4"
        overlay = http.get(url, timeout=40)
        assert (overlay.status_code, overlay.headers["content-type"]) == (200, "video/mp4")
        with av.open(io.BytesIO(overlay.content)) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
            assert sum(1 for _ in container.decode(video=0)) == 30
        sheet = http.get(url.replace("mp4", "sheet"), timeout=40)
        assert (sheet.status_code, sheet.content[:4]) == (200, b"\x89PNG")


def test_the_process_ends_in_order_on_sigterm(tmp_path, own_redis) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "REDIS_URL": own_redis.url,
        "STORAGE_URL": (tmp_path / "storage").as_uri(),
        "EARSHOT_SCRATCH_DIR": str(tmp_path / "scratch"),
        "EARSHOT_PORT": str(port),
    }
    command = [sys.executable, "-m", "service", "api"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
                assert until(lambda: answers(http), 30)
                assert http.get("/readyz").json()["checks"]["redis"] == "ok"
            process.terminate()
            assert process.wait(10) == 0
            assert process.stderr is not None
            lines = [json.loads(line) for line in process.stderr]
            assert any(line["event"] == f"Finished server process [{process.pid}]" for line in lines)
        finally:
            process.kill()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").is_success
    except httpx.TransportError:
        return False


def test_the_process_starts_without_torch() -> None:
    program = (
        "import asyncio, sys\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "app = create_app(Settings())\n"
        "app.openapi()\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
