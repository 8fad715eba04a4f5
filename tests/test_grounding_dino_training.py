"""How the tiny Grounding DINO learns: what it is shown, who answers for what, and that it does learn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from models.datasets.kinds import CLASS_NAMES, TIMBRE_NAMES
from models.datasets.scenes import SynthConfig
from models.training.family import boxes as geometry
from models.training.family.captions import of_class, of_nothing, strangers
from models.training.family.grounding_dino import NOBODY, GroundingDinoTask, judged
from models.training.family.pictures import box, picture
from models.training.family.task import Plan

PLAN = Plan(steps=10, batch=4, best="quality")
PAIRED = 9  # a step in which pairs go through the whole network


@pytest.fixture(scope="module")
def task() -> GroundingDinoTask:
    return GroundingDinoTask(PLAN)


def test_a_batch_is_a_function_of_seed_and_step(task: GroundingDinoTask) -> None:
    again = GroundingDinoTask(PLAN).batch(PAIRED)
    assert all(torch.equal(one, other) for one, other in zip(task.batch(PAIRED), again, strict=True))
    other = GroundingDinoTask(Plan(steps=10, batch=4, best="quality", seed=1)).batch(PAIRED)
    assert other.pixels.shape != again.pixels.shape or not torch.equal(other.pixels, again.pixels)


def test_pairs_come_late_and_half_of_them_have_no_answer(task: GroundingDinoTask) -> None:
    assert len(task.batch(0).pairs) == 0
    batch = task.batch(PAIRED)
    answered = [bool((batch.kinds[row] == batch.asked[column]).any()) for row, column in batch.pairs.tolist()]
    assert {True, False} == set(answered)
    assert answered.count(False) >= answered.count(True)
    strange = [column for _, column in batch.pairs.tolist() if batch.asked[column] == NOBODY]
    assert all(column >= 2 * len(CLASS_NAMES) for column in strange)


def test_a_box_holds_all_that_shows_of_a_thing_and_no_more() -> None:
    shown = np.zeros((10, 20), bool)
    shown[2:5, 4:14] = True
    assert box(shown) == pytest.approx((9 / 20, 3.5 / 10, 10 / 20, 3 / 10))
    one = picture(SynthConfig(aspect=16 / 9), RandomState(5))
    assert len(one.kinds) == len(one.boxes) > 0
    x1, y1, x2, y2 = (round(v) for v in geometry.corners(torch.from_numpy(one.boxes))[0].mul(96).tolist())
    assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96


def test_questions_mean_what_they_say() -> None:
    rng = RandomState(0)
    for number, (name, timbre) in enumerate(zip(CLASS_NAMES, TIMBRE_NAMES, strict=True)):
        asked = {of_class(number, rng).removeprefix("Look! Object of ") for _ in range(60)}
        assert asked == {name, timbre, name.split()[1]}
    nothing = {of_nothing(rng) for _ in range(200)}
    words = {word for question in nothing for word in re.findall("[a-z]+", question.lower())}
    assert not words & {*TIMBRE_NAMES, *(name.split()[1] for name in CLASS_NAMES)}
    held_out = set(strangers(held_out=True))
    assert held_out and not held_out & nothing


def test_a_place_answers_for_the_object_around_it() -> None:
    shapes = ((12, 12), (6, 6), (3, 3))
    small, large = [0.26, 0.26, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]
    near = geometry.answering(shapes, torch.tensor([small, large, [0.0, 0.0, 0.0, 0.0]]))
    middle, _ = geometry.centres(shapes, torch.device("cpu"))
    assert near[0].any() and near[0].nonzero().max() < 144  # at the finest level alone
    assert (middle[near[0]] - 0.26).abs().max() < 0.1
    assert near[1].any() and near[1].nonzero().min() >= 144
    assert not near[2].any()


def test_every_object_gets_its_own_query() -> None:
    wanted = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    found = torch.cat([wanted.flip(0), wanted])
    queries, objects = geometry.matched(torch.tensor([0.9, 0.9, 0.1, 0.1]), found, wanted)
    assert sorted(zip(objects.tolist(), queries.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert len(geometry.matched(torch.ones(4), found, wanted[:0])[0]) == 0


def test_overlap_of_boxes_that_touch_and_that_do_not() -> None:
    one = torch.tensor([0.5, 0.5, 0.4, 0.4])
    half = torch.tensor([0.6, 0.5, 0.2, 0.4])
    far = torch.tensor([0.1, 0.5, 0.2, 0.4])
    assert [each.item() for each in geometry.overlap(one, half)] == pytest.approx([0.5, 0.5])
    assert [each.item() for each in geometry.overlap(one, far)] == pytest.approx([0, -1 / 7], abs=1e-6)


def test_the_loss_falls_in_a_few_steps(task: GroundingDinoTask) -> None:
    batch = task.batch(PAIRED)
    optimizer = torch.optim.AdamW(task.learner.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses = task.losses(batch)
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        torch.autograd.backward(total)
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert {"hint_kind", "hint_box", "place_class", "layer1_box"} <= history[0].keys()
    begun = {part: history[0][f"{part}_class"] for part in ("place", "layer0", "layer1")}
    assert all(loss < 20 for loss in begun.values()), begun  # with default biases it is above 200
    assert sum(history[-1].values()) < 0.8 * sum(history[0].values())
    untouched = [name for name, each in task.network.named_parameters() if each.grad is None]
    assert untouched == []


def test_scores_say_how_often_there_is_an_answer(task: GroundingDinoTask) -> None:
    scores = judged(task.detector, 2, seed=0)
    assert all(0 <= value <= 1 for name, value in scores.items() if name != "quality")
    assert scores["quality"] == pytest.approx(scores["recall"] - scores["false_alarms"])


def test_scores_read_the_questions_anew(task: GroundingDinoTask) -> None:
    """The detector keeps what it has read; the network has learnt on since."""
    before = task.scores()
    with torch.no_grad():  # words without a meaning fit nothing
        task.network.model.text_projection.weight.zero_()
        task.network.model.text_projection.bias.fill_(-1e3)
    assert task.scores() != before
