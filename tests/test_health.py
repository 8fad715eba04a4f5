"""What is said of a strategy, and of the service, by the workers that are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.health import NO_WORKER, no_worker, unready
from tests.api import Api, is_problem, job_of, sent
from tests.handwork import HandWorker

HAS = {"ready": True, "reason": None}
LACKS = {"ready": False, "reason": "Fetch them.", "code": "weights_missing"}


def worker(state: str, *loading: str, **strategies: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"state": state, "strategies": strategies, "loading": [*loading]}


@pytest.mark.parametrize(
    ("workers", "code"),
    [
        pytest.param([worker("ready", a=HAS)], None, id="ready"),
        pytest.param([worker("ready", a=LACKS), worker("ready", a=HAS)], None, id="one of two"),
        pytest.param([worker("ready", a=LACKS), worker("starting", "a")], "weights_missing", id="none of it"),
        pytest.param([worker("ready", b=HAS)], "weights_missing", id="not told to"),
        pytest.param([worker("starting", "a", b=HAS)], "not_ready", id="to come"),
        pytest.param([worker("starting", "b", a=HAS)], "not_ready", id="loaded, not ready"),
        pytest.param([worker("starting", "b", a=LACKS)], "weights_missing", id="missing, and still loading"),
        pytest.param(
            [worker("starting", a=LACKS), worker("starting", "a")], "not_ready", id="one may have it"
        ),
        pytest.param([worker("draining", a=HAS)], "not_ready", id="leaving"),
        pytest.param([], "not_ready", id="nobody"),
    ],
)
def test_why_a_strategy_cannot_run(workers: list[Mapping[str, Any]], code: str | None) -> None:
    refusal = unready(workers, "a")
    assert (refusal and refusal.code) == code


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ([], NO_WORKER),
        ([worker("draining")], NO_WORKER),
        ([worker("starting")], "A worker is starting."),
        ([worker("starting", "a", "b", "c")], "A worker is loading a, and then b, c."),
        ([worker("starting", "c", a=HAS, b=LACKS)], "A worker is loading c, the last; a is loaded."),
        (
            [worker("starting", "c"), worker("starting", a=HAS, b=HAS)],
            "A worker is starting; a, b are loaded.",
        ),
    ],
)
def test_how_far_the_workers_are(workers: list[Mapping[str, Any]], sentence: str) -> None:
    assert no_worker(workers) == sentence


class Loading(HandWorker):
    """The only worker, with a strategy in hand and one refused."""

    def publish(self) -> None:
        own = {"id": "slow", "device": "cpu", "threads": 1, "started_at": 0.0, "models": {}}
        self.fleet.publish({**own, **worker("starting", "full-mask", **{"ac-fpn": LACKS})})

    def work(self) -> None:
        """Not yet."""


def test_while_the_only_worker_loads(tmp_path: Path, own_redis: Any, clip: bytes) -> None:
    """What may come waits, and says for what; what will not come is refused."""
    how_far = "A worker is loading full-mask, the last."
    with Api(tmp_path, own_redis.url, Loading) as api:
        job = job_of(api, clip)
        assert job["detail"] == f"The job waits for a worker. {how_far}"
        refused = api.http.post("/v1/segment/ac-fpn", files=sent(clip))
        assert is_problem(refused, 503, "weights_missing")["detail"] == "Fetch them."
        refused = api.http.get("/readyz")
        assert is_problem(refused, 503, "not_ready")["detail"] == how_far
        assert int(refused.headers["Retry-After"]) >= 1
        reasons = {one["name"]: one["reason"] for one in api.http.get("/v1/strategies").json()["data"]}
        assert (reasons["full-mask"], reasons["ac-fpn"]) == (how_far, "Fetch them.")
