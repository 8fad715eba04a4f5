"""What a caller may be refused, over HTTP, at a service of small limits: the problem names the limit and the
value, and the service goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.api import Api, is_problem, job_of, sent
from tests.clips import Picture, clip_bytes
from tests.faults.inputs import crowded_mp4

SIZE = (64, 48)
LIMITS = {
    "max_upload_bytes": 150_000,
    "job_seconds": 4,
    "max_pixels": 96 * 64,
    "max_frames": 8,
    "max_tracks": 4,
    "queue_jobs": 4,
    "queue_share": 0.5,
}
Request = Mapping[str, Any]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_server: Any) -> Iterator[Api]:
    with Api(tmp_path_factory.mktemp("strict"), redis_server.url, **LIMITS) as api:
        yield api


@pytest.fixture
def resting(strict: Api) -> Iterator[None]:
    """No window is begun meanwhile; then every job is done."""
    assert strict.worker is not None
    strict.worker.paused.set()
    yield
    strict.worker.paused.clear()
    for job in strict.http.get("/v1/jobs").json()["data"]:
        strict.http.post(job["urls"]["cancel"])


def of_clip(seconds: float = 1.0, size: tuple[int, int] = SIZE, **data: str) -> Request:
    return {"files": sent(clip_bytes(seconds=seconds, size=size, fps=10)), "data": data}


TOO_MUCH: Mapping[str, tuple[Callable[[], Request], str, float, float, str]] = {
    "bytes": (lambda: {"files": sent(bytes(151_000))}, "upload", 150_000, 151_000, "bytes"),
    "bytes, as promised": (lambda: {"files": sent(bytes(900_000))}, "upload", 150_000, 900_000, "bytes"),
    "seconds": (lambda: of_clip(seconds=5.0), "duration", 4, 5.0, "seconds"),
    "pixels": (lambda: of_clip(size=(128, 64)), "frame size", 96 * 64, 128 * 64, "pixels"),
    "frames": (lambda: of_clip(fps="10"), "number of sampled frames", 8, 10, "frames"),
    "tracks": (lambda: {"files": sent(crowded_mp4(10))}, "number of tracks", 4, 10, "tracks"),
    "files": (lambda: {"files": [("frames[]", ("a.png", b"x"))] * 10}, "number of files", 9, 10, "files"),
    "fields": (
        lambda: of_clip(metadata='{"a": "' + "b" * 300_000 + '"}'),
        "size of the fields",
        256 * 1024,
        300_000,
        "bytes",
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_named_with_its_limit(strict: Api, name: str) -> None:
    make, limit, allowed, actual, unit = TOO_MUCH[name]
    document = is_problem(strict.http.post("/v1/segment/full-mask", **make()), 413, "media_too_large")
    assert (document["limit"], document["allowed"], document["unit"]) == (limit, allowed, unit)
    assert document["actual"] == pytest.approx(actual, rel=0.02)
    assert f"the limit is {allowed:,} {unit}.".replace(",", " ") in str(document["detail"])


@pytest.mark.parametrize(
    ("content", "status", "code", "sentence"),
    [
        pytest.param(b"", 422, "undecodable_media", "Send the whole file", id="empty"),
        pytest.param(bytes(3000), 415, "unsupported_media", "none of the kinds", id="zeros"),
        pytest.param(
            b"<html>" + b"x" * 3000, 415, "unsupported_media", "whatever its name says", id="a page"
        ),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(99), 415, "unsupported_media", "`frames[]`", id="an image"),
        pytest.param(b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n", 415, "unsupported_media", "", id="a playlist"),
        pytest.param(clip_bytes(seconds=1, size=SIZE)[:900], 422, "undecodable_media", "", id="cut short"),
        pytest.param(
            clip_bytes(seconds=1, size=SIZE, video=False),
            422,
            "undecodable_media",
            "`frames[]`",
            id="sound alone",
        ),
        pytest.param(
            clip_bytes(
                seconds=1, size=SIZE, video=Picture(codec="rawvideo"), audio=False, container="matroska"
            ),
            200,
            "",
            "",
            id="no compression",
        ),
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(
    strict: Api, content: bytes, status: int, code: str, sentence: str
) -> None:
    response = strict.http.post("/v1/segment/full-mask", files=sent(content))
    if code:
        assert sentence in str(is_problem(response, status, code)["detail"])
    else:
        assert response.status_code == status


def test_a_body_of_another_kind(strict: Api) -> None:
    headers = {"Content-Type": "video/mp4"}
    refused = strict.http.post("/v1/segment/full-mask", content=b"clip", headers=headers)
    assert "multipart/form-data" in str(is_problem(refused, 415, "unsupported_content_type")["detail"])


@pytest.mark.usefixtures("resting")
def test_a_share_of_the_queue_is_used_up(strict: Api, clip: bytes) -> None:
    for _ in range(2):
        job_of(strict, clip)
    refused = strict.http.post("/v1/jobs", files=sent(clip), data={"strategy": "full-mask"})
    assert "2" in str(is_problem(refused, 429, "quota_exceeded")["detail"])
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.usefixtures("resting")
def test_a_deadline_that_passes_in_the_queue(strict: Api, clip: bytes) -> None:
    job = job_of(strict, clip, deadline="100ms")
    time.sleep(0.2)
    assert strict.worker is not None
    strict.worker.jobs.expire()
    assert strict.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "expired"
    refused = strict.http.get(f"/v1/jobs/{job['id']}/result")
    is_problem(refused, 410, "deadline_passed")


def test_a_process_that_drains_takes_no_work(strict: Api, clip: bytes) -> None:
    health = strict.app.state.desk.health
    health.draining = True
    try:
        refused = strict.http.post("/v1/segment/full-mask", files=sent(clip))
        is_problem(refused, 503, "draining")
        assert refused.headers["Retry-After"] == "1"
        is_problem(strict.http.get("/readyz"), 503, "not_ready")
    finally:
        health.draining = False


def test_a_rate_is_kept(tmp_path: Any, own_redis: Any, clip: bytes) -> None:
    with Api(tmp_path, own_redis.url, requests_per_minute=1) as api:
        assert api.http.post("/v1/segment/full-mask", files=sent(clip)).status_code == 200
        refused = api.http.post("/v1/segment/full-mask", files=sent(clip))
        assert "1 requests a minute" in str(is_problem(refused, 429, "rate_limited")["detail"])
        assert 50 <= int(refused.headers["Retry-After"]) <= 60
        assert api.http.get("/v1/jobs").status_code == 200


def test_after_all_that_a_clip_is_answered(strict: Api, clip: bytes) -> None:
    assert strict.http.post("/v1/segment/full-mask", files=sent(clip)).status_code == 200
