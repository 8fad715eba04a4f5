"""Which moments of a clip a sampling takes, and what it may not ask for."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from models.errors import InvalidOption, MediaTooLarge
from models.sampling import WINDOW_FRAMES, WINDOW_PIXELS, Sampling, Summary, WindowPlan, plan

VIDEO = Summary(width=320, height=240, fps=25, duration=5)
IMAGES = Summary(width=320, height=240, fps=1, duration=5, container="images", frames=5)


def test_windows_are_bounded() -> None:
    small = Summary(width=320, height=240, fps=25, duration=100)
    large = replace(small, width=4096, height=4096)
    assert {len(window.times) for window in plan(small, Sampling())} == {WINDOW_FRAMES, 100 % WINDOW_FRAMES}
    assert max(len(window.times) for window in plan(large, Sampling())) == WINDOW_PIXELS // 4096**2
    assert [window.first for window in plan(small, Sampling())] == list(range(0, 100, WINDOW_FRAMES))


def test_a_plan_goes_through_json() -> None:
    summary = Summary(width=320, height=240, fps=30, duration=33)
    for window in plan(summary, Sampling(fps=3, start=0.7)):
        again = json.loads(json.dumps(asdict(window)))
        assert WindowPlan(**{**again, "times": tuple(again["times"])}) == window


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(fps=0),
        Sampling(fps=float("nan")),
        Sampling(start=-1),
        Sampling(start=5),
        Sampling(start=2, end=1),
        Sampling(start=float("inf")),
        Sampling(end=float("nan")),
        Sampling(max_frames=0),
        Sampling(max_frames=1.5),  # type: ignore[arg-type]  # on purpose
        Sampling(mode="other"),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_samplings_that_make_no_sense(sampling: Sampling) -> None:
    with pytest.raises(InvalidOption):
        plan(Summary(width=320, height=240, fps=25, duration=5), sampling)


def test_start_end_and_count() -> None:
    summary = Summary(width=320, height=240, fps=25, duration=10)
    times = [time for window in plan(summary, Sampling(fps=0.5, start=1, end=8)) for time in window.times]
    assert times == [1, 3, 5, 7]
    assert len(plan(summary, Sampling(max_frames=3))[0].times) == 3


@pytest.mark.parametrize("fps", [1e9, 1e300, 1.7e308])
def test_more_moments_than_memory_holds_are_refused_before_they_are_listed(fps: float) -> None:
    with pytest.raises(MediaTooLarge, match="number of sampled frames"):
        plan(VIDEO, Sampling(fps=fps))
    (window,) = plan(VIDEO, Sampling(fps=fps, max_frames=3))
    assert window.times == (0, 1 / fps, 2 / fps)


def test_a_rate_so_slow_that_images_last_for_ever_is_refused() -> None:
    assert len(plan(IMAGES, Sampling(fps=0.01))[0].times) == 5
    for fps in (1e-4, 5e-324):
        with pytest.raises(MediaTooLarge, match="duration"):
            plan(IMAGES, Sampling(fps=fps))


def test_a_stretch_between_two_images_is_refused() -> None:
    """Nothing to segment is no job: the service would wait for its end."""
    assert [window.times for window in plan(IMAGES, Sampling(start=3.5))] == [(4.0,)]
    for sampling in (Sampling(start=4.5), Sampling(start=0.2, end=0.8)):
        with pytest.raises(InvalidOption, match=r"There is no image from .* there is one each 1 s\."):
            plan(IMAGES, sampling)
