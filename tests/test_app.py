"""The API over real HTTP, with a real Redis and sandbox; only the worker is a small one (handwork.py)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import av
import httpx
import pytest
import uvicorn

from service.app import Server, create_app
from service.redis_server import PrivateRedis
from service.schemas import Problem
from service.settings import Settings
from tests.clips import make_clip
from tests.cluster import Cluster, free_port, until
from tests.handwork import HandWorker

ROOT = Path(__file__).resolve().parent.parent


class Api:
    """The API in a thread of this process, and its hand worker."""

    def __init__(self, folder: Path, redis_url: str, **settings: object) -> None:
        self.settings = Settings(
            redis_url=redis_url,
            storage_url=(folder / "storage").as_uri(),
            scratch_dir=folder / "scratch",
            port=free_port(),
            **settings,
        )
        self.app = create_app(self.settings)
        config = uvicorn.Config(self.app, port=self.settings.port, log_config=None, access_log=False)
        self.server = Server(self.app, config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.http = httpx.Client(base_url=self.url, timeout=20)
        self.worker: HandWorker | None = None

    def __enter__(self) -> Self:
        self.thread.start()
        assert until(lambda: self.server.started, 20)
        self.worker = HandWorker(self.settings)
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.worker is not None
        self.worker.stop()
        self.http.close()
        self.server.should_exit = True
        self.thread.join()


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


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_one_curl_line_gives_masks(api, clip, prefix) -> None:
    response = api.http.post(f"{prefix}/segment/full-mask", files=sent(clip), data={"fps": "2"})
    assert response.status_code == 200, response.text
    document = response.json()
    assert [frame["timestamp"] for frame in document["frames"]] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert document["media"]["width"] == 64
    assert response.headers["preference-applied"] == "wait=30"


def test_options_come_as_json_fields_or_query(api, clip) -> None:
    for data, query in (
        ({"params": '{"max_frames": 1, "outputs": {"instances": false}}'}, ""),
        ({"max_frames": "1", "outputs.instances": "false"}, ""),
        ({}, "?max_frames=1&outputs.instances=false"),
    ):
        response = api.http.post(f"/v1/segment/full-mask{query}", files=sent(clip), data=data)
        [frame] = response.json()["frames"]
        assert "instances" not in frame


def test_an_upload_serves_many_requests(api, clip) -> None:
    uploaded = api.http.post("/v1/uploads", files=sent(clip))
    assert uploaded.status_code == 201, uploaded.text
    document = uploaded.json()
    assert document["sha256"] == hashlib.sha256(clip).hexdigest()
    assert (document["width"], document["height"], document["has_audio"]) == (64, 48, True)
    upload_id = document["upload_id"]
    for request in ({"json": {"upload_id": upload_id, "fps": 1}}, {"data": {"upload_id": upload_id}}):
        response = api.http.post("/v1/segment/full-mask", **request)
        assert len(response.json()["frames"]) == 3


def test_every_form_of_a_result(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    url = job["urls"]["result"]
    assert len(api.http.get(url).json()["frames"]) == 3
    assert len(api.http.get(f"{url}?format=ndjson").text.splitlines()) == 3
    archive = zipfile.ZipFile(io.BytesIO(api.http.get(url, headers={"Accept": "application/zip"}).content))
    assert archive.namelist()[0] == "masks/000000.png"
    coco = api.http.get(url, headers={"Accept": "application/vnd.coco+json"})
    assert len(coco.json()["images"]) == 3
    is_problem(api.http.get(url, headers={"Accept": "image/png"}), 406, "not_acceptable")
    is_problem(api.http.get(url, headers={"Accept": "text/html"}), 406, "not_acceptable")
    one = api.http.post("/v1/segment/full-mask?format=png&max_frames=1", files=sent(clip))
    assert one.content.startswith(b"\x89PNG")


@pytest.mark.usefixtures("paused")
def test_what_takes_longer_is_answered_with_the_job(api, clip) -> None:
    began = time.monotonic()
    response = api.http.post("/v1/segment/full-mask", files=sent(clip), headers={"Prefer": "wait=1"})
    assert response.status_code == 202 and 0.9 < time.monotonic() - began < 5
    assert response.headers["preference-applied"] == "wait=1"
    job = api.http.get(response.headers["location"]).json()
    assert (job["status"], job["queue_position"]) == ("queued", 1)
    assert job["progress"] == {"stage": "waiting", "frames_done": 0, "frames_total": 3}
    is_problem(api.http.get(job["urls"]["result"]), 409, "job_not_finished")
    canceled = api.http.post(job["urls"]["cancel"])
    assert canceled.json()["status"] == "canceled"
    assert api.http.post(job["urls"]["cancel"]).json()["status"] == "canceled"
    is_problem(api.http.get(job["urls"]["result"]), 409, "job_canceled")


@pytest.mark.usefixtures("paused")
def test_a_client_that_hangs_up_cancels_its_job(api, clip) -> None:
    before = {job["id"] for job in api.http.get("/v1/jobs").json()["data"]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{api.url}/v1/segment/full-mask", files=sent(clip), timeout=0.7)

    def canceled():
        found = [job for job in api.http.get("/v1/jobs").json()["data"] if job["id"] not in before]
        return [job for job in found if job["status"] == "canceled"]

    assert until(canceled, 3)


def test_events_replay_and_end_with_the_job(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    text = api.http.get(job["urls"]["events"]).text
    ids = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
    statuses = [json.loads(line[6:])["status"] for line in text.splitlines() if line.startswith("data: ")]
    assert statuses[0] == "queued" and statuses[-1] == "succeeded"
    rest = api.http.get(job["urls"]["events"], headers={"Last-Event-ID": ids[0]}).text
    assert ids[0] not in rest and ids[1] in rest


@pytest.mark.usefixtures("paused")
def test_events_come_as_they_happen(api, clip) -> None:
    job = job_of(api, clip)
    with api.http.stream("GET", job["urls"]["events"]) as stream:
        lines = stream.iter_lines()
        assert any("queued" in line for line in lines)
        api.worker.paused.clear()
        assert any("succeeded" in line for line in lines)


def test_frames_come_from_where_one_likes(api, clip) -> None:
    job = finished(api, job_of(api, clip, fps="8")["id"])
    assert job["progress"]["frames_total"] == 24  # two windows
    for first in (0, 3, 16, 20, 24, 99):
        lines = api.http.get(f"{job['urls']['frames']}?from={first}").text.splitlines()
        assert [json.loads(line)["timestamp"] for line in lines] == [k / 8 for k in range(first, 24)]


def test_a_put_twice_is_one_job(api, clip) -> None:
    data = {"strategy": "full-mask"}
    first, second = (api.http.put("/v1/jobs/my-job", files=sent(clip), data=data) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert api.http.get("/v1/jobs/my-job").json()["id"] == first.json()["id"]
    other = api.http.put("/v1/jobs/my-job", files=sent(clip), data={**data, "fps": "2"})
    is_problem(other, 422, "idempotency_mismatch")


def test_equal_posts_at_once_with_one_key_are_one_job(api, clip) -> None:
    def post(_):
        headers = {"Idempotency-Key": "at-once"}
        return api.http.post("/v1/segment/full-mask", files=sent(clip), headers=headers)

    with ThreadPoolExecutor(20) as pool:
        responses = [*pool.map(post, range(20))]
    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["job_id"] for response in responses}) == 1


def test_a_deleted_job_is_gone(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    assert api.http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    for url in (f"/v1/jobs/{job['id']}", job["urls"]["result"], job["urls"]["events"], job["urls"]["frames"]):
        is_problem(api.http.get(url), 404, "not_found")
    is_problem(api.http.delete(f"/v1/jobs/{job['id']}"), 404, "not_found")


def test_an_expired_job_is_said_to_have_been_there(api, clip) -> None:
    put = api.http.put("/v1/jobs/mine-too", files=sent(clip), data={"strategy": "full-mask"}).json()
    finished(api, put["id"])
    api.worker.jobs.bury(put["id"])
    for name in (put["id"], "mine-too"):
        for part in ("", "/result", "/frames", "/events"):
            is_problem(api.http.get(f"/v1/jobs/{name}{part}"), 410, "expired")
    is_problem(api.http.get("/v1/jobs/never"), 404, "not_found")


def test_jobs_are_listed_in_pages(api, clip) -> None:
    ids = [job_of(api, clip, metadata='{"ref": "abc"}')["id"] for _ in range(3)]
    first = api.http.get("/v1/jobs?limit=2").json()
    second = api.http.get(f"/v1/jobs?limit=1&cursor={first['next_cursor']}").json()
    assert [job["id"] for job in (*first["data"], *second["data"])] == ids[::-1]
    assert first["data"][0]["metadata"] == {"ref": "abc"}
    assert api.http.get("/v1/jobs?strategy=ac-fpn").json()["data"] == []
    is_problem(api.http.get("/v1/jobs?cursor=nothing"), 422, "invalid_option")
    is_problem(api.http.get("/v1/jobs?limit=1000"), 422, "invalid_option")


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"tresholds.mask": "0.5"}, "/tresholds"),
        ({"params": '{"thresholds": {"mask": 0.5}}'}, "/thresholds"),
        ({"fps": "0"}, "/fps"),
        ({"fps": "nan"}, "/fps"),
        ({"fps": "often"}, "/fps"),
        ({"outputs.mask": "gif"}, "/outputs/mask"),
        ({"outputs.colour": "red"}, "/outputs/colour"),
        ({"deadline": "soon"}, "/deadline"),
        ({"metadata": '{"x": "' + "y" * 5000 + '"}'}, "/metadata"),
        ({"strategy": "full-mask"}, "/strategy"),
    ],
)
def test_a_wrong_option_is_pointed_at(api, clip, data, pointer) -> None:
    response = api.http.post("/v1/segment/full-mask", files=sent(clip), data=data)
    document = is_problem(response, 422, "invalid_option")
    assert document["errors"][0]["pointer"] == pointer


def test_options_of_another_strategy_are_checked_too(api, clip) -> None:
    data = {"strategy": "ac-fpn", "thresholds.mask": "2"}
    document = is_problem(api.http.post("/v1/jobs", files=sent(clip), data=data), 503, "weights_missing")
    assert "weights fetch" in document["detail"]


@pytest.mark.parametrize(
    ("content", "statuses"),
    [(b"", {422}), (b"\x00" * 3000, {415, 422}), (b"#EXTM3U\n/etc/passwd\n", {415, 422})],
    ids=["empty", "zeros", "playlist"],
)
def test_what_is_no_clip_is_refused_at_once(api, content, statuses) -> None:
    response = api.http.post("/v1/segment/full-mask", files=sent(content))
    assert response.status_code in statuses, response.text
    Problem.model_validate(response.json())
    assert str(api.settings.scratch_dir) not in response.text


@pytest.mark.parametrize(
    "parts", [(), ("media", "audio"), ("media", "video"), ("audio",), ("video", "frames[]")]
)
def test_wrong_parts_are_refused(api, clip, parts) -> None:
    files = [(name, ("x", clip)) for name in parts]
    is_problem(api.http.post("/v1/segment/full-mask", files=files or None), 422, "invalid_option")


def test_unknown_things_are_not_found(api, clip) -> None:
    is_problem(api.http.get("/v1/nothing"), 404, "not_found")
    is_problem(api.http.get("/v1/jobs/none"), 404, "not_found")
    is_problem(api.http.post("/v1/segment/magic", files=sent(clip)), 404, "not_found")
    is_problem(api.http.post("/v1/segment/full-mask", json={"upload_id": "x"}), 404, "not_found")
    is_problem(api.http.patch("/v1/jobs"), 405, "method_not_allowed")
    broken = {"content": b"{", "headers": {"content-type": "application/json"}}
    is_problem(api.http.post("/v1/segment/full-mask", **broken), 400, "malformed_request")


def test_a_failed_job_answers_with_its_problem(api, clip) -> None:
    problem = {"type": "urn:x", "title": "Too small", "status": 507, "detail": "Send less.",
               "code": "out_of_device_memory", "retryable": False, "errors": []}  # fmt: skip
    api.worker.problem = problem
    try:
        response = api.http.post("/v1/segment/full-mask", files=sent(clip))
    finally:
        api.worker.problem = None
    is_problem(response, 507, "out_of_device_memory")


def test_half_a_surrogate_pair_comes_back(api, clip) -> None:
    job = job_of(api, clip, metadata='{"x": "\\ud800"}')
    assert api.http.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_strategies_say_what_they_take_and_whether_they_are_ready(api) -> None:
    found = {one["name"]: one for one in api.http.get("/v1/strategies").json()["data"]}
    assert found["full-mask"]["ready"] is True
    assert found["ac-fpn"]["ready"] is False and "weights fetch" in found["ac-fpn"]["reason"]
    assert {"fps", "thresholds", "preset"} <= found["ac-fpn"]["params"]["properties"].keys()
    assert found["ac-fpn"]["presets"]["paper"]["audio_scale"] == "paper"
    assert found["ac-fpn"]["limits"]["upload_bytes"] == api.settings.max_upload_bytes
    models = api.http.get("/v1/models").json()["data"]
    assert any(model["id"] == "sam-tiny" and model["loaded"] for model in models)


def test_health_metrics_and_the_way_in(api) -> None:
    assert api.http.get("/healthz").json() == {"status": "ok"}
    assert api.http.get("/readyz").json()["ready"] is True
    text = api.http.get("/metrics").text
    assert 'avs_http_requests_total{method="GET",route="/readyz",status="200"}' in text
    assert "avs_queue_depth " in text
    assert api.http.get("/").json()["docs"] == "/docs"
    assert api.http.get("/docs").status_code == 200


def test_nothing_is_left_on_the_scratch_disk(api) -> None:
    assert until(lambda: not [*api.settings.scratch_dir.glob("upload-*")], 2) is not None


def test_request_ids_are_kept_when_sane(api) -> None:
    for offered, kept in (("abc-1", True), ("x" * 65, False), ("a b", False)):
        answer = api.http.get("/healthz", headers={"X-Request-ID": offered}).headers["x-request-id"]
        assert (answer == offered) is kept


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
