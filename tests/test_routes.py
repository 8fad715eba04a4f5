"""The routes that bring work: bodies, options, waiting, keys, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.schemas import Problem
from tests.api import is_problem, sent
from tests.cluster import until

JSON = {"Content-Type": "application/json"}


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


def test_a_key_outlives_the_upload(api, clip) -> None:
    upload_id = api.http.post("/v1/uploads", files=sent(clip)).json()["upload_id"]

    def post(key: str) -> httpx.Response:
        body = {"upload_id": upload_id, "strategy": "full-mask"}
        return api.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})

    first = post("outlives").json()
    clips = api.app.state.desk.clips
    clips.put(dataclasses.replace(clips.get(upload_id, "public"), expires_at=time.time() - 1))
    assert post("outlives").json()["id"] == first["id"]
    is_problem(post("another"), 404, "not_found")


@pytest.mark.parametrize("name", ["upload_id", "strategy"])
def test_half_a_surrogate_pair_names_nothing(api, name) -> None:
    body = {"upload_id": "0" * 32, "strategy": "full-mask", name: "\ud800"}
    document = is_problem(
        api.http.post("/v1/jobs", content=json.dumps(body), headers=JSON), 422, "invalid_option"
    )
    assert document["errors"][0]["pointer"] == f"/{name}"


def test_a_form_that_cannot_hold_the_result_leaves_no_job(api, clip) -> None:
    def post(form: str) -> httpx.Response:
        headers = {"Accept": form, "Idempotency-Key": "one picture"}
        return api.http.post("/v1/segment/full-mask", files=sent(clip), headers=headers)

    is_problem(post("image/png"), 406, "not_acceptable")
    assert api.http.get("/v1/jobs?status=canceled").json()["data"] == []
    answer = post("application/zip")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    is_problem(post("image/png"), 406, "not_acceptable")
    assert post("application/json").json()["job_id"] == answer.headers["x-job-id"]


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
    assert (canceled.json()["status"], canceled.json()["progress"]["stage"]) == ("canceled", "canceled")
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


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"tresholds.mask": "0.5"}, "/tresholds"),
        ({"outputs": '{"msk": "rle"}'}, "/outputs/msk"),
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


def test_a_misspelled_name_is_answered_with_those_beside_it(api, clip) -> None:
    for data, beside in (({"outputs.msk": "rle"}, "mask, "), ({"fsp": "1"}, "preset, fps, ")):
        answer = api.http.post("/v1/segment/full-mask", files=sent(clip), data=data)
        detail = is_problem(answer, 422, "invalid_option")["detail"]
        assert "There is no such option here; there are " in detail
        assert beside in detail


def test_options_of_another_strategy_are_checked_too(api, clip) -> None:
    data = {"strategy": "ac-fpn", "thresholds.mask": "2"}
    document = is_problem(api.http.post("/v1/jobs", files=sent(clip), data=data), 422, "invalid_option")
    assert document["errors"][0]["pointer"] == "/thresholds/mask"
    data = {"strategy": "ac-fpn", "thresholds.mask": "0.5"}
    document = is_problem(api.http.post("/v1/jobs", files=sent(clip), data=data), 503, "weights_missing")
    assert "weights fetch" in document["detail"]


@pytest.mark.parametrize(
    ("strategy", "data", "pointer"),
    [
        ("ac-fpn", {"fps": "abc"}, "/fps"),
        ("box-prompt", {"params": json.dumps({"labels": ["dog"] * 20_000})}, "/labels"),
        ("auto", {"labels": "dog", "fps": "abc"}, "/fps"),
    ],
)
def test_a_wrong_option_is_told_before_missing_weights(api, clip, strategy, data, pointer) -> None:
    answer = api.http.post(f"/v1/segment/{strategy}", files=sent(clip), data=data)
    assert is_problem(answer, 422, "invalid_option")["errors"][0]["pointer"] == pointer


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


def test_a_failed_job_answers_with_its_problem(api, clip) -> None:
    problem = {"type": "urn:x", "title": "Too small", "status": 507, "detail": "Send less.",
               "code": "out_of_device_memory", "retryable": False, "errors": []}  # fmt: skip
    api.worker.problem = problem
    try:
        response = api.http.post("/v1/segment/full-mask", files=sent(clip))
    finally:
        api.worker.problem = None
    is_problem(response, 507, "out_of_device_memory")


def test_nothing_is_left_on_the_scratch_disk(api) -> None:
    assert until(lambda: not [*api.settings.scratch_dir.glob("upload-*")], 2) is not None


@pytest.mark.parametrize(
    "data",
    [
        {"metadata": '{"x":' + "[" * 900 + "]" * 900 + "}"},
        {"params": '{"metadata":{"x":' + "[" * 900 + "]" * 900 + "}}"},
        {"metadata." + "a." * 900 + "x": "1"},
        {"a." * 2000 + "x": "1", "a." * 2000 + "y": "2"},
    ],
    ids=["field", "params", "dots", "two deep names"],
)
def test_json_without_end_is_refused(api, clip, data) -> None:
    response = api.http.post("/v1/segment/full-mask", files=sent(clip), data=data)
    assert "32 levels" in is_problem(response, 422, "invalid_option")["detail"]


def test_a_number_that_json_cannot_write_never_comes_back(api, clip) -> None:
    data = {"metadata": '{"x": 1e999}', "strategy": "full-mask"}
    is_problem(api.http.post("/v1/jobs", files=sent(clip), data=data), 422, "invalid_option")


@pytest.mark.parametrize("address", ["/v1/jobs", "/v1/segment/full-mask"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "malformed_request"),
        ("[]", 422, "invalid_option"),
        ('{"fps": NaN}', 400, "malformed_request"),
    ],
)
def test_a_body_that_is_no_json_object_is_said_to_be_none(api, address, body, status, code) -> None:
    response = api.http.post(address, content=body, headers={"content-type": "application/json"})
    assert "params" in is_problem(response, status, code)["detail"]


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("respond-async", "respond-async"), ("wait=0", "respond-async"), ("respond-async, wait=1", "wait=1")],
)
def test_a_caller_says_how_long_it_waits(api, clip, prefer, applied) -> None:
    response = api.http.post("/v1/segment/full-mask", files=sent(clip), headers={"Prefer": prefer})
    assert (response.status_code, response.headers["preference-applied"]) == (202, applied)
    api.http.delete(response.headers["location"])


def test_an_upload_takes_no_options(api, clip) -> None:
    for query, data in (("?fps=2", {}), ("", {"fps": "2"})):
        refused = api.http.post(f"/v1/uploads{query}", files=sent(clip), data=data)
        assert "fps" in is_problem(refused, 422, "invalid_option")["detail"]


def test_a_key_of_a_client_never_meets_a_put(api, clip) -> None:
    data = {"strategy": "full-mask"}
    for key in ("put:mine-alone", "mine-alone"):
        headers = {"Idempotency-Key": key}
        assert api.http.post("/v1/jobs", files=sent(clip), data=data, headers=headers).status_code == 202
    assert api.http.put("/v1/jobs/mine-alone", files=sent(clip), data=data).status_code == 201
