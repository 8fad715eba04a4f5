"""`make faults` in miniature: the promises that no other test tries, in their short form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.__main__ import PROMISES, attempted, told
from tests.faults.lab import close_shared_lab
from tests.faults.promise import Measured, Promise, Scale

SHORT = Scale(0.003, short=True)


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """The promises tried here share one service."""
    yield
    close_shared_lab()


@pytest.mark.parametrize("number", ["1c", "14b", "15a", "15b", "15c"])
def test_a_promise_is_kept(number: str) -> None:
    [promise] = [one for one in PROMISES if one.number == number]
    measured, _ = attempted(promise, SHORT)
    assert measured is not None
    assert measured.ok, measured.text


def test_every_promise_of_the_list_has_a_line_of_its_own() -> None:
    numbers = [promise.number for promise in PROMISES]
    assert len(numbers) == len(set(numbers))
    assert {int(number.rstrip("abc")) for number in numbers} >= set(range(1, 16))


def test_what_cannot_be_tried_is_broken_and_what_needs_more_is_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(scale: Scale) -> Measured:
        raise ConnectionError(f"at {scale.factor}")

    for attempt, held, word in ((fails, False, "at 0.003]  BROKEN"), (None, True, "SKIPPED")):
        promise = Promise("99", "nothing happens", attempt)
        assert told(promise, *attempted(promise, SHORT)) is held
        assert word in capsys.readouterr().out
