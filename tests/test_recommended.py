"""`auto`: which strategy answers, how options decide, what the result says of it. Captions from a file."""

from __future__ import annotations

from typing import Any

import pytest

from models.recommended import BASELINES, ORDER, recommended
from models.strategies import STRATEGIES
from service.options import merged, read_options, takes
from tests.api import Api, sent

BOX = STRATEGIES["box-prompt"]


# --- the table


def test_every_strategy_has_a_place_and_a_reason() -> None:
    assert set(STRATEGIES) <= set(ORDER)
    assert all(ORDER.values())


def test_the_first_that_is_ready_answers_and_baselines_last() -> None:
    names = list(STRATEGIES)
    assert recommended(names, names) == "ac-fpn"
    assert recommended(names, ["random-sam", "point-prompt", "box-prompt"]) == "box-prompt"
    assert recommended(names, ["random-sam", "full-mask"]) == "full-mask"
    assert recommended(["point-prompt"], names) == "point-prompt"
    assert recommended(["of-somebody-else"], ["of-somebody-else"]) == "of-somebody-else"
    assert recommended(names, []) is None
    assert set(list(ORDER)[-2:]) == BASELINES


# --- options decide


@pytest.mark.parametrize(
    ("given", "fitting"),
    [
        ([], set(STRATEGIES)),
        ([("fps", "2"), ("metadata", '{"of": {"mine": 1}}'), ("outputs.mask", "png")], set(STRATEGIES)),
        ([("labels", "dog")], {"box-prompt"}),
        ([("params", {"labels": ["dog"], "thresholds": {"box": 7}})], {"box-prompt"}),
        ([("points", "dense")], {"point-prompt"}),
        ([("thresholds.heatmap", "0.5")], {"point-prompt", "heatmap-box-prompt"}),
        ([("labels", "dog"), ("points", "dense")], set()),
        ([("thresholds.nothing", "1")], set()),
    ],
)
def test_strategies_that_take_what_is_given(given: list[tuple[str, Any]], fitting: set[str]) -> None:
    assert {name for name, strategy in STRATEGIES.items() if takes(strategy, given)} == fitting


# --- lists from a file


def test_lines_of_a_text_are_a_list() -> None:
    text = "A dog barks.\n\n Bells ring, far away. \r\n"
    document = merged(BOX, [("prompt", "caption"), ("captions", text)])
    assert document["captions"] == ["A dog barks.", "Bells ring, far away."]
    assert read_options(BOX, document).options["captions"] == document["captions"]
    assert merged(BOX, [("labels", "dog\n"), ("labels", "cat")])["labels"] == ["dog", "cat"]
    assert merged(BOX, [("labels", '["a dog", "a cat"]')])["labels"] == ["a dog", "a cat"]


# --- over HTTP: the hand worker knows `full-mask` and no weights


@pytest.mark.parametrize("address", ["/segment", "/v1/segment", "/v1/segment/auto"])
def test_a_request_that_names_no_strategy_is_answered(api: Api, clip: bytes, address: str) -> None:
    answer = api.http.post(address, files=sent(clip))
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["requested"], document["strategy"]) == ("auto", "full-mask")
    assert any("baseline" in warning for warning in document["warnings"])
    job = api.http.get(f"/v1/jobs/{document['job_id']}").json()
    assert (job["requested"], job["strategy"]) == ("auto", "full-mask")


def test_a_named_strategy_is_that_one(api: Api, clip: bytes) -> None:
    document = api.http.post("/segment", files=sent(clip), data={"strategy": "full-mask"}).json()
    assert (document["requested"], document["strategy"]) == ("full-mask", "full-mask")
    assert document["warnings"] == []
    made = api.http.post("/v1/jobs", files=sent(clip), data={"strategy": "auto"}).json()
    assert (made["requested"], made["strategy"]) == ("auto", "full-mask")


def test_options_that_nobody_ready_takes(api: Api, clip: bytes) -> None:
    answer = api.http.post("/segment", files=sent(clip), data={"labels": "dog"})
    assert (answer.status_code, answer.json()["code"]) == (503, "weights_missing")
    assert answer.json()["detail"].startswith("box-prompt: ")
    answer = api.http.post("/segment", files=sent(clip), data={"labels": "dog", "points": "dense"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")


def test_the_order_is_published(api: Api) -> None:
    auto = api.http.get("/v1/strategies").json()["auto"]
    assert auto["strategy"] == "full-mask"
    assert [one["name"] for one in auto["order"]][:1] == ["ac-fpn"]
