"""The tiny SAM: its lessons, that it learns, and what the shipped one can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import sam
from models.datasets.synthavs import SynthAVS
from models.sam import Sam
from models.suppliers import Prompt
from models.training.family import questions
from models.training.family.hints import HINTS, hints
from models.training.family.questions import Picture
from models.training.family.sam import EXAMS, SamTask, examined, task
from models.weights import TINY_FOLDER, Weights

SMALL = replace(task().plan, batch=2)


def leaves(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    return [leaf for key in sorted(batch) for leaf in leaves(batch[key])]


def picture(clip: int = 0) -> tuple[Picture, NDArray[np.uint8]]:
    shown = SynthAVS("val")[clip]
    assert shown.instances is not None
    network = Sam(sam.build("sam-tiny"), identity="random")
    return Picture.of(shown.frames[0], shown.instances[0], network), shown.frames[:1]


def test_a_step_shows_the_same_in_every_process_and_every_step_something_new() -> None:
    first, again, other = (leaves(SamTask(SMALL).batch(step)) for step in (5, 5, 6))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_few_steps_teach_a_batch() -> None:
    small = SamTask(SMALL)
    learner = small.learner.train()
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-3)
    batch, totals = small.batch(0), []
    for _ in range(24):
        total = torch.stack(list(small.losses(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0], totals


def test_boxes_are_off_by_no_more_than_their_slack_and_stay_in_the_frame() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:60] = True  # 20 high, 40 wide, at the right edge
    random = np.random.default_rng(0)
    drawn = np.array([questions.box(mask, random) for _ in range(200)])
    assert (drawn >= (8, 4, 53, 26)).all()
    assert (drawn <= (26, 13, 60, 35)).all()
    assert (drawn == (20, 10, 59, 29)).all(1).mean() == pytest.approx(questions.TIGHT, abs=0.1)


def test_single_points_are_on_their_answer_or_right_beside_it() -> None:
    random = np.random.default_rng(0)
    kinds = []
    for clip in range(0, 30, 3):
        shown, _ = picture(clip)
        for prompt, answer in questions.single_points(shown, random):
            assert prompt.points is not None
            x, y = prompt.points[0].astype(int)
            near = shown.masks[answer, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
            assert near.any()
            kinds.append((bool(shown.masks[answer, y, x]), answer == len(shown.masks) - 1))
    assert {(True, False), (True, True)} <= set(kinds)


@pytest.mark.parametrize("count", questions.COUNTS)
def test_most_bright_places_of_a_rough_map_lie_on_the_object(count: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    hits: list[bool] = []
    for clip in range(0, 24, 3):
        shown, _ = picture(clip)
        for prompt, answer in questions.heat_points(shown, random, count):
            assert prompt.points is not None and prompt.labels is not None
            assert prompt.labels.tolist() == [1] * count[0] + [0] * count[1]
            columns, rows = prompt.points.astype(int).T
            hits += [
                bool(hit) == bool(label)
                for hit, label in zip(shown.masks[answer, rows, columns], prompt.labels, strict=True)
            ]
    assert np.mean(hits) > 0.6


def test_hints_say_how_far_the_object_of_a_patch_reaches() -> None:
    truths = torch.zeros(2, 16, 16)
    truths[0, 4:12, 4:8] = 1
    truths[1] = 1 - truths[0]
    told = hints(truths)
    assert told.shape == (HINTS + 1, 4, 4)
    assert told[-1].nonzero().tolist() == [[1, 1], [2, 1]]
    middle = torch.tensor([1.5, 1.5, 1.5, 1.5]) / 4
    assert torch.allclose(told[16:20, 1, 1] + middle, torch.tensor([0.25, 0.25, 0.5, 0.75]))
    assert torch.equal(torch.nn.functional.pixel_shuffle(told[None, :16], 4)[0, 0], truths[0])


@pytest.fixture(scope="module")
def shipped() -> Sam:
    if not (TINY_FOLDER / "sam.safetensors").is_file():
        pytest.skip("models/tiny holds no SAM")
    return sam.load(Weights(TINY_FOLDER / "none", prefer={"sam": "sam-tiny"}))


def test_the_shipped_one_finds_objects_by_box_and_points(shipped: Sam) -> None:
    found = examined(shipped, SynthAVS("val", config=EXAMS[""]), 12)
    assert found["box"] > 0.7 and found["point"] > 0.55 and found["dense"] > 0.65, found


def test_the_shipped_one_thinks_better_of_objects_than_of_background(shipped: Sam) -> None:
    random = np.random.default_rng(0)
    inside, outside = [], []
    for clip in range(0, 36, 3):
        shown, frames = picture(clip)
        far = questions.on_background(shown, random)
        assert far is not None
        on = questions.on(shown.masks[shown.objects[0]], random)
        prompts = [Prompt(0, point[None].astype(np.float32), np.ones(1, np.int64)) for point in (on, far)]
        _, scores = shipped.decode(shipped.embed(frames), shown.size, prompts)
        qualities = scores.max(1).values.tolist()
        inside.append(qualities[0])
        outside.append(qualities[1])
    assert np.median(inside) > 0.55
    assert np.median(outside) < 0.3
