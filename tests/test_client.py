"""The client: against a real service, and against a line that breaks in every way a line can."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service import client as client_module
from service.client import Client, Progress, backoff
from service.client_errors import (
    BY_CODE,
    Canceled,
    ClientError,
    Expired,
    InvalidRequest,
    MediaRefused,
    NotFound,
    Overloaded,
    Refused,
    ServerUnreachable,
    ServiceFailed,
    WaitTimeout,
    WeightsUnavailable,
    problem_error,
    seconds,
)
from service.errors import KINDS
from tests.cluster import SAMPLE, Cluster

Handler = Callable[[httpx.Request], httpx.Response]


def problem(code: str, **headers: str) -> httpx.Response:
    kind = KINDS[code]
    document = {"status": kind.status, "code": code, "detail": f"{code}.", "retryable": kind.retryable}
    return httpx.Response(kind.status, json=document, headers=headers)


class Line:
    """Answers from a list, one a request, an exception among them raised; remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, patience: float = 60.0) -> Client:
        return Client("http://service", patience=patience, transport=httpx.MockTransport(self))


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses, taken down instead of taken."""
    taken: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", taken.append)
    return taken


ACCEPTED = httpx.Response(202, json={"id": "j1", "status": "queued"})


def test_every_code_of_the_service_has_an_exception() -> None:
    assert set(BY_CODE) == set(KINDS)
    tree = re.findall(r"^    (\w+) ", client_errors_docstring(), re.MULTILINE)
    assert {kind.__name__ for kind in BY_CODE.values()} <= set(tree)


def client_errors_docstring() -> str:
    return __import__("service.client_errors", fromlist=["__doc__"]).__doc__


def test_an_unknown_code_goes_by_its_status() -> None:
    kinds = {
        status: type(problem_error({"status": status, "code": "new"})) for status in (418, 429, 500, 503)
    }
    assert kinds == {418: InvalidRequest, 429: Overloaded, 500: ServiceFailed, 503: Overloaded}


def test_a_retry_sends_the_whole_file_under_the_same_key(naps: list[float]) -> None:
    line = Line(problem("queue_full", **{"Retry-After": "3"}), httpx.ReadError("cut"), ACCEPTED)
    with line.client() as client:
        assert client.submit(SAMPLE, "ac-fpn", fps=2).id == "j1"
    keys = {request.headers["Idempotency-Key"] for request in line.requests}
    assert len(keys) == 1
    assert len(line.requests) == 3
    assert all(SAMPLE.read_bytes() in request.content for request in line.requests)
    assert all(b'{"fps": 2}' in request.content for request in line.requests)
    assert 3 <= naps[0] < 3.5
    assert naps[1] <= 0.5


def test_two_calls_have_two_keys() -> None:
    line = Line(ACCEPTED, ACCEPTED)
    with line.client() as client:
        client.submit(SAMPLE, "ac-fpn")
        client.submit(SAMPLE, "ac-fpn")
    assert len({request.headers["Idempotency-Key"] for request in line.requests}) == 2


def test_what_will_not_change_is_not_tried_again(naps: list[float]) -> None:
    for code, kind in [("weights_missing", WeightsUnavailable), ("internal_error", ServiceFailed)]:
        line = Line(problem(code))
        with line.client() as client, pytest.raises(kind, match=code):
            client.job("j1").refresh()
    assert naps == []


def test_patience_ends(naps: list[float]) -> None:
    line = Line(problem("rate_limited", **{"Retry-After": "61"}))
    with line.client(patience=60) as client, pytest.raises(Overloaded) as caught:
        client.job("j1").refresh()
    assert (caught.value.retry_after, caught.value.status, naps) == (61.0, 429, [])


def test_nobody_there(naps: list[float]) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
        client.strategies()
    assert len(naps) == client_module.CONNECTION_TRIES - 1
    assert sum(naps) < 2


def test_a_service_that_was_there_is_waited_for(naps: list[float]) -> None:
    cut = [httpx.ConnectError("refused")] * 8
    with Line(ACCEPTED, *cut, ACCEPTED).client() as client:
        assert client.job("j1").refresh().refresh().status == "queued"
    assert len(naps) == 8


def test_a_proxy_that_knows_no_problems(naps: list[float]) -> None:
    line = Line(httpx.Response(502, text="<html>Bad Gateway</html>"), ACCEPTED)
    with line.client() as client:
        client.submit(SAMPLE, "ac-fpn")
    assert len(naps) == 1
    for document in (["no"], {"message": "no"}, {"status": "error"}):
        line = Line(httpx.Response(503, json=document), httpx.Response(404, json=document))
        with line.client() as client, pytest.raises(InvalidRequest) as caught:
            client.job("j1").refresh()
        assert caught.value.status == 404
    assert len(naps) == 4


def test_a_large_clip_goes_ahead_once(naps: list[float], tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x" * (client_module.UPLOAD_BYTES + 1))
    uploaded = httpx.Response(201, json={"upload_id": "u1"})
    line = Line(uploaded, problem("queue_full", **{"Retry-After": "1"}), ACCEPTED)
    with line.client() as client:
        client.submit(clip, "ac-fpn")
    assert [request.url.path for request in line.requests] == ["/v1/uploads", "/v1/jobs", "/v1/jobs"]
    assert all(b"upload_id=u1" in request.content for request in line.requests[1:])
    assert all(len(request.content) < 200 for request in line.requests[1:])


def test_parts_have_the_names_of_the_contract() -> None:
    line = Line(ACCEPTED, ACCEPTED, ACCEPTED)
    with line.client() as client:
        client.submit(SAMPLE, "ac-fpn")
        client.submit(SAMPLE, "ac-fpn", audio=SAMPLE)
        client.submit([SAMPLE, SAMPLE], "ac-fpn", audio=SAMPLE)
    found = [re.findall(rb'name="([a-z\[\]]+)"; filename', request.content) for request in line.requests]
    assert found == [[b"media"], [b"video", b"audio"], [b"frames[]", b"frames[]", b"audio"]]


def test_pauses_grow_and_are_spread() -> None:
    for tries in range(1, 12):
        longest = min(0.25 * 2 ** (tries - 1), 10)
        drawn = [backoff(tries, None) for _ in range(50)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
        assert min(backoff(tries, 7.0) for _ in range(50)) >= 7.0


def test_retry_after_may_be_a_date() -> None:
    assert seconds("5") == 5.0
    assert seconds(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert seconds(formatdate(time.time() - 30, usegmt=True)) == 0.0
    assert seconds("soon") is None
    assert seconds(None) is None


def test_the_key_goes_as_a_bearer_token() -> None:
    line = Line(ACCEPTED)
    with Client("http://service", "secret", transport=httpx.MockTransport(line)) as client:
        client.job("j1").refresh()
    assert line.requests[0].headers["Authorization"] == "Bearer secret"


def test_a_job_is_looked_up_when_something_is_asked_of_it() -> None:
    progress = {"stage": "segmenting", "frames_done": 1, "frames_total": 4}
    line = Line(httpx.Response(200, json={"id": "j1", "status": "running", "progress": progress}))
    with line.client() as client:
        job = client.job("j1")
        assert line.requests == []
        assert (job.status, job.progress.frames_done) == ("running", 1)
    assert len(line.requests) == 1


class Cut(httpx.SyncByteStream):
    """A body that breaks off after so many whole lines."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[bytes]:
        yield from (f"{line}\n".encode() for line in self.lines)
        yield b'{"index":'
        raise httpx.RemoteProtocolError("peer closed connection")


def test_a_stream_that_breaks_off_goes_on_where_it_was(naps: list[float], tmp_path: Path) -> None:
    mask = {"format": "coco_rle", "size": [1, 1], "counts": "1"}
    frame = {"timestamp": 0, "audio_window": [0, 1], "sounding": False, "area": 0, "mask": mask}
    lines = [json.dumps({"index": index, **frame}) for index in range(3)]
    done = httpx.Response(200, json={"id": "j1", "status": "succeeded"})
    rest = httpx.Response(200, text="\n".join(lines[2:]))
    line = Line(done, httpx.Response(200, stream=Cut(*lines[:2])), done, rest)
    with line.client() as client:
        assert [frame.index for frame in client.job("j1").frames()] == [0, 1, 2]
    assert [request.url.query for request in line.requests[1::2]] == [b"from=0", b"from=2"]
    with Line(done, httpx.Response(200, stream=Cut())).client() as client, pytest.raises(ServerUnreachable):
        list(client.job("j1").frames())
    with Line(httpx.Response(200, stream=Cut())).client() as client, pytest.raises(ServerUnreachable):
        client.job("j1").save_masks(tmp_path)


def test_progress_is_told_once(naps: list[float]) -> None:
    def answer(status: str, done: int) -> httpx.Response:
        progress = {"stage": "segmenting", "frames_done": done, "frames_total": 2}
        return httpx.Response(200, json={"id": "j1", "status": status, "progress": progress})

    steps = [("queued", 0), ("running", 0), ("running", 1), ("succeeded", 2)]
    seen: list[Progress] = []
    with Line(*(answer(*step) for step in steps for _ in range(3))).client() as client:
        client.job("j1").wait(seen.append)
    assert [(progress.status, progress.frames_done) for progress in seen] == steps


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"status": "failed", "error": {"code": "undecodable_media", "status": 422}}, MediaRefused),
        ({"status": "failed", "error": {"code": "worker_lost", "status": 500}}, ServiceFailed),
        ({"status": "canceled"}, Canceled),
        ({"status": "expired"}, Expired),
    ],
)
def test_a_job_that_ended_badly_raises_its_reason(record: dict, kind: type[Refused]) -> None:
    line = Line(httpx.Response(200, json={"id": "j1", **record}))
    with line.client() as client, pytest.raises(kind):
        client.job("j1").wait()


# Against a real service.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


def test_segment(client: Client) -> None:
    result = client.segment(SAMPLE, "full-mask")
    assert [frame.timestamp for frame in result.frames] == [0, 1, 2, 3, 4]
    assert all(frame.mask.pixels().all() for frame in result.frames)
    assert result.frames[0].mask.pixels().shape == (240, 320)
    assert result.document["strategy"] == "full-mask"


def test_progress_is_told(client: Client) -> None:
    seen: list[Progress] = []
    result = client.segment(SAMPLE, "full-mask", on_progress=seen.append, fps=25)
    assert len(result.frames) == 125
    assert (seen[-1].status, seen[-1].frames_done, seen[-1].frames_total) == ("succeeded", 125, 125)
    assert [progress.frames_done for progress in seen] == sorted(progress.frames_done for progress in seen)


def test_frames_come_in_order_and_agree_with_the_result(client: Client) -> None:
    job = client.submit(SAMPLE, "full-mask", fps=10)
    frames = list(job.frames())
    assert frames == list(job.result().frames)
    assert [frame.timestamp for frame in frames] == pytest.approx(np.arange(50) / 10, abs=0.04)


def test_masks_are_saved(client: Client, tmp_path: Path) -> None:
    result = client.segment(SAMPLE, "full-mask")
    written = result.save_masks(tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == [
        "manifest.json",
        *(f"masks/{index:06d}.png" for index in (0, 25, 50, 75, 100)),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "masks"]
    for frame in result.frames:
        with Image.open(tmp_path / f"out/masks/{frame.index:06d}.png") as image:
            assert np.array_equal(np.asarray(image), frame.mask.pixels() * np.uint8(255))
    assert json.loads((tmp_path / "out/manifest.json").read_text())


def test_an_overlay_that_is_still_made_is_waited_for(tmp_path: Path) -> None:
    line = Line(ACCEPTED, httpx.Response(200, content=b"video"))
    with line.client() as client:
        assert client.job("j1").overlay(tmp_path / "o.mp4").read_bytes() == b"video"
    assert [request.headers["Prefer"] for request in line.requests] == ["wait=25", "wait=25"]
    line = Line(ACCEPTED)
    with line.client() as client, pytest.raises(WaitTimeout, match="video/mp4"):
        client.job("j1").overlay(tmp_path / "o.mp4", timeout=0)


def test_the_overlay_is_a_video(client: Client, tmp_path: Path) -> None:
    path = client.segment(SAMPLE, "full-mask").overlay(tmp_path / "overlay.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [file.name for file in tmp_path.iterdir()] == ["overlay.mp4"]


def test_refusals_are_exceptions(client: Client, tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"noise" * 1000)
    with pytest.raises(MediaRefused):
        client.segment(noise, "full-mask")
    with pytest.raises(InvalidRequest) as caught:
        client.segment(SAMPLE, "full-mask", colour="red")
    assert caught.value.errors[0]["pointer"] == "/colour"
    with pytest.raises(NotFound):
        client.segment(SAMPLE, "telepathy")
    with pytest.raises(NotFound):
        client.job("0" * 32).refresh()


def test_cancel_and_delete(client: Client) -> None:
    job = client.submit(SAMPLE, "slow", fps=25)
    with pytest.raises(WaitTimeout, match="goes on"):
        job.wait(timeout=0.2)
    assert job.cancel().status == "canceled"
    with pytest.raises(Canceled):
        job.wait()
    job.delete()
    with pytest.raises(ClientError):
        job.refresh()


def test_threads_share_a_client(client: Client) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(client.segment(SAMPLE, "full-mask").frames)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [5, 5, 5, 5]
