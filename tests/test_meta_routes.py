"""The routes about the service itself, and what every address has in common."""

from __future__ import annotations

import re

import pytest

from tests.api import finished, is_problem, job_of, sent


def test_unknown_things_are_not_found(api, clip) -> None:
    is_problem(api.http.get("/v1/nothing"), 404, "not_found")
    assert "/v1/jobs" in is_problem(api.http.get("/v1/jobs/none"), 404, "not_found")["detail"]
    refused = is_problem(api.http.post("/v1/segment/magic", files=sent(clip)), 404, "not_found")
    assert "no strategy `magic`" in refused["detail"]
    is_problem(api.http.post("/v1/segment/full-mask", json={"upload_id": "x"}), 404, "not_found")
    is_problem(api.http.patch("/v1/jobs"), 405, "method_not_allowed")
    broken = {"content": b"{", "headers": {"content-type": "application/json"}}
    is_problem(api.http.post("/v1/segment/full-mask", **broken), 400, "malformed_request")


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


def test_request_ids_are_kept_when_sane(api) -> None:
    for offered, kept in (("abc-1", True), ("x" * 65, False), ("a b", False)):
        answer = api.http.get("/healthz", headers={"X-Request-ID": offered}).headers["x-request-id"]
        assert (answer == offered) is kept


def test_an_address_names_all_the_methods_it_takes(api) -> None:
    for address, methods in (("/v1/jobs", "GET, POST, HEAD"), ("/v1/jobs/x", "GET, PUT, DELETE, HEAD")):
        for method in ("OPTIONS", "PATCH"):
            refused = api.http.request(method, address)
            is_problem(refused, 405, "method_not_allowed")
            assert refused.headers["allow"] == methods


def test_a_head_is_a_get_without_its_body(api, clip) -> None:
    job = finished(api, job_of(api, clip)["id"])
    for address in ("/healthz", "/v1/strategies", job["urls"]["result"], "/v1/jobs/none"):
        got, asked = api.http.get(address), api.http.head(address)
        assert (asked.status_code, asked.content) == (got.status_code, b"")
        assert asked.headers["content-type"] == got.headers["content-type"]
    assert 'method="HEAD",route="/strategies",status="200"' in api.http.get("/metrics").text


@pytest.mark.usefixtures("paused")
def test_a_head_of_a_stream_does_not_wait_for_its_end(api, clip) -> None:
    job = job_of(api, clip)
    assert api.http.head(job["urls"]["events"], timeout=3).status_code == 200
    assert api.http.delete(f"/v1/jobs/{job['id']}").status_code == 204


def test_a_typo_in_a_query_is_refused(api) -> None:
    for address, name in (("/v1/jobs?statuss=queued", "statuss"), ("/strategies?x=1", "x")):
        document = is_problem(api.http.get(address), 422, "invalid_option")
        assert document["errors"][0]["pointer"] == f"/query/{name}"
    assert api.http.get("/healthz?x=1").status_code == 200


def test_a_slash_too_many_is_no_redirect(api, clip) -> None:
    """A form that was sent does not follow one."""
    refused = api.http.post("/v1/segment/full-mask/", files=sent(clip))
    assert "slash" in is_problem(refused, 404, "not_found")["detail"]


def test_the_page_about_the_api_needs_no_network(api) -> None:
    page = api.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//", page.text)
