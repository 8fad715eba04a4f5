"""The routes of a job's life: results in every form, events, frames, pages, what is gone."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from service.clips import ClipStore
from service.reconciler import Sweeper
from service.renders import render_key
from tests.api import finished, is_problem, job_of, sent


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


def test_a_result_that_is_swept_while_it_is_read_is_gone(api, clip, monkeypatch) -> None:
    job = finished(api, job_of(api, clip)["id"])
    monkeypatch.setattr(api.app.state.desk.jobs, "blobs", lambda job_id: [])
    for form in ("json", "ndjson", "zip", "coco"):
        is_problem(api.http.get(job["urls"]["result"], params={"format": form}), 410, "expired")


def test_a_name_of_ones_own_can_be_used_again(api, clip) -> None:
    def put() -> dict[str, object]:
        answer = api.http.put("/v1/jobs/again", files=sent(clip), data={"strategy": "full-mask"})
        assert answer.status_code == 201
        return finished(api, answer.json()["id"])

    before = put()
    assert api.http.delete("/v1/jobs/again").status_code == 204
    is_problem(api.http.get("/v1/jobs/again"), 404, "not_found")
    after = put()
    worker = api.worker
    Sweeper(worker.jobs, ClipStore(worker.redis), worker.storage)()  # it removes the files of the first
    assert api.http.get(after["urls"]["result"]).json()["job_id"] == after["id"] != before["id"]
    assert api.http.get("/v1/jobs/again").json()["id"] == after["id"]
    assert worker.jobs.delete(after["id"])
    assert not [key for key in worker.redis.scan_iter("*") if "again" in key and "idempotency" not in key]


def test_jobs_are_listed_in_pages(api, clip) -> None:
    ids = [job_of(api, clip, metadata='{"ref": "abc"}')["id"] for _ in range(3)]
    first = api.http.get("/v1/jobs?limit=2").json()
    second = api.http.get(f"/v1/jobs?limit=1&cursor={first['next_cursor']}").json()
    assert [job["id"] for job in (*first["data"], *second["data"])] == ids[::-1]
    assert first["data"][0]["metadata"] == {"ref": "abc"}
    assert api.http.get("/v1/jobs?strategy=ac-fpn").json()["data"] == []
    is_problem(api.http.get("/v1/jobs?cursor=nothing"), 422, "invalid_option")
    is_problem(api.http.get("/v1/jobs?limit=1000"), 422, "invalid_option")


def test_half_a_surrogate_pair_comes_back(api, clip) -> None:
    job = job_of(api, clip, metadata='{"x": "\\ud800"}')
    assert api.http.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_an_event_source_that_saw_the_end_is_told_not_to_come_back(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    lines = api.http.get(job["urls"]["events"]).text.splitlines()
    last = [line[4:] for line in lines if line.startswith("id: ")][-1]
    again = api.http.get(job["urls"]["events"], headers={"Last-Event-ID": last})
    assert (again.status_code, again.content) == (204, b"")


def test_a_cursor_outlives_the_job_it_was_made_at(api, clip) -> None:
    ids = [job_of(api, clip)["id"] for _ in range(3)][::-1]
    page = api.http.get("/v1/jobs?limit=2").json()
    assert api.http.delete(f"/v1/jobs/{ids[1]}").status_code == 204
    rest = api.http.get("/v1/jobs", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["data"]] == ids[2:]


@pytest.mark.parametrize(("form", "name"), [("mp4", "overlay"), ("sheet", "contact sheet")])
def test_a_picture_in_the_making_is_said_to_be_so(api, clip, form, name) -> None:
    job = finished(api, job_of(api, clip)["id"])
    address = f"{job['urls']['result']}?format={form}"
    for wait, applied in (("wait=1", "wait=1"), ("respond-async", "respond-async")):
        answer = api.http.get(address, headers={"Prefer": wait})
        assert answer.status_code == 202
        assert answer.headers["location"] == address
        assert answer.headers["preference-applied"] == applied
        assert f"The {name} is being rendered; GET {address} again" in answer.json()["detail"]
    assert api.http.get(job["urls"]["status"]).json()["detail"] is None


def test_a_part_of_a_video_can_be_had(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    with api.worker.storage.open_write(render_key(job["id"], "mp4")) as file:
        file.write(bytes(range(100)))
    address = f"{job['urls']['result']}?format=mp4"
    whole = api.http.get(address)
    assert (whole.status_code, whole.content) == (200, bytes(range(100)))
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", "100")
    assert whole.headers["content-disposition"] == f'inline; filename="{job["id"]}.mp4"'
    part = api.http.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert api.http.get(address, headers={"Range": "bytes=100-"}).status_code == 200
