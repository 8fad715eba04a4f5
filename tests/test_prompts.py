"""Points and boxes: the published ones to the bit, and the sane ones beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompts import BOXES, MOST, POINTS
from models.strategies.heatmap_box_prompt import boxes, prompts_of
from models.strategies.options import HeatmapBoxPromptOptions, PointPromptOptions, PointThreshold
from models.strategies.point_prompt import points as points_of
from models.strategies.point_prompt import prompt
from tests.parity import points
from tests.parity.golden import DEFAULT, Golden

BEST, PAPER = POINTS["best"], POINTS["paper"]


def test_golden_values() -> None:
    assert [str(row) for row in points.rows(Golden(DEFAULT)) if not row.ok] == []


def hill(x: float, y: float, height: int = 60, width: int = 80) -> np.ndarray:
    """One smooth hill of height 1 with its top at (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50).astype(np.float32)


def test_a_peak_lies_at_x_y_and_on_paper_at_x_x() -> None:
    heat = hill(60, 20)
    best, paper = BEST["local"](heat, 0.6), PAPER["local"](heat, 0.6)
    assert best.xy[best.labels == 1].tolist() == [[60.5, 20.5]]
    assert paper.xy[paper.labels == 1].tolist() == [[60.0, 60.0]]


def test_a_plateau_is_one_point() -> None:
    heat = np.zeros((40, 40), np.float32)
    heat[10:21, 4:15] = 1
    best, paper = BEST["local"](heat, 0.6), PAPER["local"](heat, 0.6)
    assert best.xy[best.labels == 1].tolist() == [[9.5, 15.5]]  # its middle
    assert (paper.labels == 1).sum() == 121


def test_a_terrace_below_a_summit_is_no_peak() -> None:
    heat = np.zeros((30, 30), np.float32)
    heat[10:20, 5:15] = 0.8
    heat[10:20, 15:20] = 0.9
    found = BEST["local"](heat, 0.6)
    assert (found.labels == 1).sum() == 1
    assert found.xy[0, 0] > 15


def test_peaks_come_by_brightness() -> None:
    heat = np.maximum(0.8 * hill(10, 10), hill(60, 40))
    assert BEST["local"](heat, 0.6).xy[:2].tolist() == [[60.5, 40.5], [10.5, 10.5]]


def test_ties_of_the_grid_fall_by_position() -> None:
    heat = np.zeros((64, 64), np.float32)
    heat[:, 32:] = 1
    found = BEST["dense"](heat, 0.85)
    assert (found.labels == 1).sum() == 512
    assert (found.xy[found.labels == 1][:, 0] > 32).all()
    assert (found.xy[found.labels == 0][:, 0] < 32).all()


def test_equal_parts_the_first_is_the_largest_and_corners_touch() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[12:15, 1:4] = 0.9
    heat[2:5, 10:13] = 0.8
    assert BOXES["single_maxarea"](heat, 0.55).tolist() == [[10, 2, 12, 4]]
    assert BOXES["single_maxscore"](heat, 0.55).tolist() == [[1, 12, 3, 14]]
    assert BOXES["all"](heat, 0.55).tolist() == [[10, 2, 12, 4], [1, 12, 3, 14]]
    assert BOXES["overall"](heat, 0.55).tolist() == [[1, 2, 12, 14]]
    heat[5, 13] = 0.7  # at the corner of the second
    assert BOXES["single_maxarea"](heat, 0.55).tolist() == [[10, 2, 13, 5]]


@pytest.mark.parametrize("strategy", BOXES)
def test_nothing_bright_gives_no_box(strategy: str) -> None:
    assert BOXES[strategy](np.zeros((8, 9), np.float32), 0.55).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=49, max_size=49),
    repeat=st.integers(1, 6),
    threshold=st.sampled_from([0.0, 0.6, 0.85, 1.0]),
    finder=st.sampled_from(list(BEST)),
)
def test_best_points_are_few_inside_and_at_least_one(
    values: list[float], repeat: int, threshold: float, finder: str
) -> None:
    heat = np.kron(np.array(values, np.float32).reshape(7, 7), np.ones((repeat, repeat + 1), np.float32))
    found = BEST[finder](heat, threshold)
    assert 1 <= (found.labels == 1).sum() <= MOST
    assert (found.labels == 0).sum() <= MOST
    assert ((found.xy > 0) & (found.xy < [heat.shape[1], heat.shape[0]])).all()
    again = BEST[finder](heat.copy(), threshold)
    assert np.array_equal(found.xy, again.xy)


# --- as the strategies ask for them


def test_points_are_scaled_to_the_frame() -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[112, 56] = 1
    asked = prompt(heat, (1000, 448), PointPromptOptions(points="global"))
    assert asked.points is not None
    np.testing.assert_allclose(asked.points[0], [113.0, 112.5 * 1000 / 224], rtol=1e-6)


def test_the_published_peaks_lie_on_the_diagonal_and_ours_do_not() -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[40, 100] = 1
    ours = points_of(heat, PointPromptOptions(points="local"))
    theirs = points_of(heat, PointPromptOptions(points="local", placing="paper"))
    assert ours.xy[0].tolist() == [100.5, 40.5]
    assert theirs.xy[0].tolist() == [100, 100]


def test_a_point_threshold_is_that_of_its_finder_unless_given() -> None:
    heat = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
    count = {
        threshold: len(points_of(heat, PointPromptOptions(thresholds=PointThreshold(threshold))).xy)
        for threshold in (None, 0.85, 0.7)
    }
    assert count[None] == count[0.85] < count[0.7]


def test_boxes_of_components() -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[10:20, 30:60], heat[100:110, 200:210], heat[105, 205] = 0.8, 0.8, 1.0
    found = {
        component: boxes(heat, HeatmapBoxPromptOptions(component=component)).tolist()
        for component in ("largest", "all", "brightest")
    }
    assert found["largest"] == [[30, 10, 59, 19]]
    assert found["brightest"] == [[200, 100, 209, 109]]
    assert found["all"] == found["largest"] + found["brightest"]
    source = prompts_of(heat, (448, 224), HeatmapBoxPromptOptions())
    paper = prompts_of(heat, (224, 224), HeatmapBoxPromptOptions(resolution="paper"))
    assert [each.box for each in source + paper] == [(30, 20, 60, 40), (30, 10, 59, 19)]
