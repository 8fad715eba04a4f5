"""No-Prompt and SAM's grid: filters, crops, scores that stay with their masks, and a bounded memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import parts
from models.mask_grid import Candidate, GridLimits, MaskGrid, Patch, bounding_boxes, grid, stability, stable
from models.networks import Networks
from models.overlaps import suppressed
from models.packed_masks import PackedMask
from models.segments import CLAP_RATE, quantised
from models.strategies import STRATEGIES, FrameMasks
from models.strategies.gate import NO_MASK, SILENT, UNSEEN
from models.strategies.no_prompt import (
    NO_OBJECT,
    SCORES,
    NoPrompt,
    Scored,
    build,
    instance,
    middle,
    picture,
    softmax,
    stretched,
)
from models.strategies.options import GateOptions, GridThresholds, NoPromptOptions
from models.suppliers import Prompt
from tests.bench.timing import growth
from tests.tiny_networks import batches, frames, tiny_networks, window

MANY = GridThresholds(stability=0.5, overlap=0.99)
OPTIONS = NoPromptOptions(points_per_side=6, thresholds=MANY)
LIMITS = GridLimits(points_per_side=6, stability=0.5, overlap=0.99)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return tiny_networks(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def no_prompt(networks: Networks) -> NoPrompt:
    strategy = build(networks)
    assert isinstance(strategy, NoPrompt)
    return strategy


def run(strategy: NoPrompt, *loudness: float, options: NoPromptOptions = OPTIONS) -> list[FrameMasks]:
    return list(strategy(window(*loudness), options))


# --- the grid


def test_points_lie_in_the_middles_of_cells() -> None:
    assert grid(2, (40, 100)).tolist() == [[25, 10], [75, 10], [25, 30], [75, 30]]
    assert grid(32, (224, 224))[1].tolist() == [10.5, 3.5]


def test_stability_and_boxes() -> None:
    logits = torch.tensor([[[-5.0, 0.5], [2.0, 3.0]], [[-5.0, -5.0], [-5.0, -5.0]]])
    values = stability(logits)
    assert values[0] == pytest.approx(2 / 3)
    assert torch.isnan(values[1])
    assert bounding_boxes(logits > 0).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    mask = torch.zeros(1, 9, 7, dtype=torch.bool)
    mask[0, 2:5, 3:6] = True
    assert bounding_boxes(mask).tolist() == [[3, 2, 5, 4]]


@pytest.mark.parametrize("size", [(72, 96), (31, 45)])
def test_candidates_are_what_the_definition_gives(networks: Networks, size: tuple[int, int]) -> None:
    """All masks at full size at once, every filter as one line, against the grid a few at a time."""
    sam, mask_grid = networks["sam"], networks.shared(parts.mask_grid)
    embedding = sam.embed(frames(1, size))
    prompts = [Prompt(0, point[None], np.ones(1, np.int64)) for point in grid(6, size)]
    low, scores = sam.decode(embedding, size, prompts)
    full, quality = sam.upscale(low, size).flatten(0, 1), scores.flatten()
    good = (quality > LIMITS.quality) & (stability(full) >= LIMITS.stability)
    masks, quality = full[good] > 0, quality[good]
    order = suppressed(bounding_boxes(masks).float().numpy(), quality.numpy(), LIMITS.overlap)
    found: list[Candidate] = mask_grid(embedding[0], size, LIMITS)
    assert len(found) == len(order) > 3
    for candidate, index in zip(found, order, strict=True):
        assert np.array_equal(candidate.mask.pixels(), masks[index].numpy())
        assert candidate.quality == pytest.approx(float(quality[index]))
        assert candidate.box == tuple(bounding_boxes(masks[[index]])[0].tolist())


def test_each_filter_filters(networks: Networks) -> None:
    mask_grid: MaskGrid = networks.shared(parts.mask_grid)
    embedding = networks["sam"].embed(frames(1))[0]
    count = {
        name: len(mask_grid(embedding, (72, 96), replace(LIMITS, **change)))
        for name, change in {
            "none": {},
            "quality": {"quality": 0.951},
            "stability": {"stability": 0.85},
            "overlap": {"overlap": 0.3},
            "all": {"quality": 1.0},
        }.items()
    }
    assert count["all"] == 0
    assert all(0 < count[name] < count["none"] for name in ("quality", "stability", "overlap"))


def test_what_has_no_pixel_is_no_object() -> None:
    """However little steadiness is asked for: nothing, cut high or low, is as steady as can be."""
    logits = torch.full((3, 4, 6), -0.5)
    logits[1, 2, 3], logits[2] = 0.5, -5.0
    patch = Patch(torch.zeros(1), np.zeros((3, 2), np.float32), (4, 6), replace(LIMITS, stability=0.0))
    found = list(stable(logits, torch.ones(3), patch))
    assert [each.box for each in found] == [(3, 2, 3, 2)]


# --- memory


def test_no_more_than_a_few_masks_are_at_full_size(networks: Networks, monkeypatch: Any) -> None:
    """36 points ask for 108 masks of 1024 x 1024: 432 MiB of logits, if they were all made at once.

    The budget of 64 MiB is for logits; their resizing needs about as much again. The same measurement
    without the budget shows that it would notice.
    """
    mask_grid: MaskGrid = networks.shared(parts.mask_grid)
    sam, size = networks["sam"], (1024, 1024)
    embedding = sam.embed(frames(1, size))[0]
    at_once: list[int] = []
    upscale = sam.upscale

    def counted(logits: Tensor, size: tuple[int, int]) -> Tensor:
        at_once.append(len(logits))
        full: Tensor = upscale(logits, size)
        return full

    monkeypatch.setattr(sam, "upscale", counted)
    limits = GridLimits(points_per_side=6, stability=0.5)
    with growth() as bounded:
        found = mask_grid(embedding, size, limits)
    assert sum(at_once) == 108
    assert max(at_once) == 16
    monkeypatch.setattr(mask_grid, "at_once", lambda size: 108)
    with growth() as unbounded:
        again = mask_grid(embedding, size, limits)
    assert [each.box for each in found] == [each.box for each in again]
    assert bounded[0] < 300
    assert unbounded[0] > 420


def test_a_frame_of_many_objects_that_sound_stays_small(no_prompt: NoPrompt) -> None:
    """Each mask is 4 MiB: the process grows by less than all of them, though the whole answer is held."""
    everything = GridThresholds(quality=0.5, stability=0.5, overlap=1.0, score=-1.0)
    options = NoPromptOptions(points_per_side=4, score="cosine", thresholds=everything)
    clip = window(0.5, size=(2048, 2048))
    with growth() as grown:
        (answer,) = no_prompt(clip, options)
    assert len(answer.instances) > 40
    assert grown[0] < 260


def test_full_size_masks_are_fewer_the_larger_they_are(networks: Networks) -> None:
    mask_grid: MaskGrid = networks.shared(parts.mask_grid)
    assert [mask_grid.at_once(size) for size in ((224, 224), (1080, 1920), (4096, 4096))] == [64, 8, 1]


def test_kept_masks_are_small(networks: Networks) -> None:
    size = (1024, 1024)
    embedding = networks["sam"].embed(frames(1, size))[0]
    found = networks.shared(parts.mask_grid)(embedding, size, replace(LIMITS, points_per_side=3))
    assert found
    assert max(len(each.mask.bits) for each in found) < 1024 * 1024 // 8 // 4


def test_the_best_objects_are_compared_and_no_more_than_so_many(
    no_prompt: NoPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = GridThresholds(quality=0, stability=0, overlap=1, score=-1.0)
    options = replace(OPTIONS, score="cosine", thresholds=everything, points_per_side=2)
    (whole,) = run(no_prompt, 0.5, options=options)
    monkeypatch.setattr("models.strategies.no_prompt.MOST_OBJECTS", 3)
    (some,) = run(no_prompt, 0.5, options=options)
    assert len(whole.instances) == 12
    assert [each.score for each in some.instances] == [each.score for each in whole.instances[:3]]


# --- crops


def candidate(mask: np.ndarray) -> Candidate:
    box = bounding_boxes(torch.from_numpy(mask)[None])[0].tolist()
    return Candidate(tuple(box), 0.9, PackedMask.of(mask))


def test_a_crop_is_the_object_on_black(no_prompt: NoPrompt) -> None:
    pixels = np.full((40, 60, 3), 255, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:40] = np.tri(10, dtype=bool)
    image = picture(pixels, candidate(mask), OPTIONS, no_prompt.encoder)
    assert image is not None
    assert image.shape == (3, 224, 224)
    white, black = image.max(), image.min()
    assert image[0, 220, 5] > black + 0.8 * (white - black)
    assert image[0, 5, 220] < black + 0.2 * (white - black)


def test_published_crops_lose_a_row_and_a_column(no_prompt: NoPrompt) -> None:
    pixels = np.full((40, 60, 3), 255, np.uint8)
    dot = np.zeros((40, 60), bool)
    dot[5, 5:20] = True
    published = replace(OPTIONS, crops="paper")
    assert picture(pixels, candidate(dot), published, no_prompt.encoder) is None
    assert picture(pixels, candidate(dot), OPTIONS, no_prompt.encoder) is not None


def test_a_hairline_is_not_blown_up(no_prompt: NoPrompt) -> None:
    """One pixel by 2000 would become 224 by 448,000 pixels, 1.1 GiB, on the way to the square."""
    pixels, line = np.full((4, 2000, 3), 255, np.uint8), np.zeros((4, 2000), bool)
    line[2] = True
    with growth() as grown:
        assert picture(pixels, candidate(line), OPTIONS, no_prompt.encoder) is not None
    assert grown[0] < 200
    assert middle(0, 2000, 1) == (996, 1004)
    assert middle(10, 50, 20) == (10, 50)


# --- scores


def test_score_modes() -> None:
    cosines = np.array([0.1, 0.3, 0.2], np.float32)
    np.testing.assert_allclose(stretched(cosines), [0, 1, 0.5], atol=1e-6)
    assert stretched(np.array([0.2, 0.2], np.float32)).tolist() == [1, 1]
    assert softmax(cosines).sum() == pytest.approx(1)
    assert softmax(cosines).argmax() == 1
    assert (softmax(cosines) > 0.5).sum() == 1
    assert SCORES["cosine"](cosines).tolist() == cosines.tolist()
    assert (SCORES["minmax"], SCORES["softmax"]) == (stretched, softmax)


def test_scores_stay_with_their_masks_unless_published(no_prompt: NoPrompt) -> None:
    """The second of three objects is one row high: as published it cannot be cut out, and the third object's
    score goes to it."""
    pixels = frames(1)[0]
    masks = [np.zeros((72, 96), bool) for _ in range(3)]
    masks[0][5:30, 5:30], masks[1][40, 10:60], masks[2][50:70, 40:90] = True, True, True
    objects = [candidate(mask) for mask in masks]
    sound = torch.nn.functional.normalize(torch.ones(no_prompt.encoder.network.config.embed), dim=0)
    ours = no_prompt.scored(pixels, objects, sound, OPTIONS)
    theirs = no_prompt.scored(pixels, objects, sound, replace(OPTIONS, crops="paper"))
    assert [each.candidate for each in ours] == objects
    assert [each.candidate for each in theirs] == objects[:2]
    alone = no_prompt.scored(pixels, [objects[2]], sound, OPTIONS)[0].cosine
    published = no_prompt.scored(pixels, [objects[2]], sound, replace(OPTIONS, crops="paper"))[0].cosine
    assert ours[2].cosine == pytest.approx(alone, abs=1e-5)
    assert theirs[1].cosine == pytest.approx(published, abs=1e-5)


# --- the strategy


def test_frames_are_one_batch_of_the_encoder_and_a_second_request_none(networks: Networks) -> None:
    strategy = build(Networks("cpu", networks.weights))
    assert isinstance(strategy, NoPrompt)
    few = replace(OPTIONS, points_per_side=2)
    with batches(strategy.prompting.sam.network.vision_encoder) as encoded:
        run(strategy, 0.5, 0.4, 0.0, 0.3, options=few)
        run(strategy, 0.5, 0.4, 0.0, 0.3, options=replace(few, score="softmax"))
    assert encoded == [3]


@pytest.mark.parametrize("score", ["minmax", "softmax", "cosine"])
def test_what_scores_above_the_threshold_sounds(no_prompt: NoPrompt, score: Any) -> None:
    options = replace(
        OPTIONS, score=score, thresholds=replace(MANY, score=0.01 if score != "cosine" else -1.0)
    )
    for answer in run(no_prompt, 0.5, 0.4, options=options):
        assert answer.instances
        assert np.array_equal(answer.mask, np.any([each.mask.pixels() for each in answer.instances], axis=0))
        assert all(each.audio_score is not None and abs(each.audio_score) <= 1 for each in answer.instances)
    fewer = run(no_prompt, 0.5, options=replace(options, thresholds=replace(MANY, score=0.99)))[0]
    assert len(fewer.instances) < len(run(no_prompt, 0.5, options=options)[0].instances)


@pytest.mark.parametrize("preset", ["best", "paper"])
@pytest.mark.parametrize("size", [(72, 96), (1, 1), (3, 150), (1, 1000), (3000, 2)])
def test_presets_and_slivers(no_prompt: NoPrompt, preset: str, size: tuple[int, int]) -> None:
    options = replace(STRATEGIES["no-prompt"].presets[preset], points_per_side=3, thresholds=MANY)
    (answer,) = no_prompt(window(0.5, size=size), options)
    assert answer.mask.shape == size
    assert answer.mask.any() == (answer.reason is None)


def test_nothing_found_and_nothing_heard(no_prompt: NoPrompt) -> None:
    picky = replace(OPTIONS, thresholds=replace(MANY, quality=1.0))
    (nothing,) = run(no_prompt, 0.5, options=picky)
    assert (nothing.reason, nothing.mask.any()) == (NO_OBJECT, False)
    (silent,) = run(no_prompt, 0.0)
    assert (silent.reason, silent.mask.any()) == (SILENT, False)
    (unseen,) = run(no_prompt, 0.5, options=replace(OPTIONS, gate=GateOptions(agreement=1.0)))
    assert (unseen.reason, unseen.mask.any()) == (UNSEEN, False)
    deaf = replace(OPTIONS, score="cosine", thresholds=replace(MANY, score=1.0))
    assert run(no_prompt, 0.5, options=deaf)[0].reason == UNSEEN


def test_an_object_of_the_published_square_is_brought_to_the_source() -> None:
    mask = np.zeros((224, 224), bool)
    mask[10:20, 30:40] = True
    found = instance(Scored(candidate(mask), 0.25, 1.0), (112, 448))
    assert found.bbox == (60, 5, 80, 10)
    assert np.argwhere(found.mask.pixels())[[0, -1]].tolist() == [[5, 60], [9, 79]]
    assert (found.score, found.audio_score) == (0.9, 0.25)


def test_an_object_without_a_pixel_of_the_source_is_none(no_prompt: NoPrompt, monkeypatch: Any) -> None:
    """A line of the published square falls between the pixels of a small frame."""
    line, whole = np.zeros((224, 224), bool), np.ones((224, 224), bool)
    line[:, 5] = True
    options = replace(OPTIONS, score="cosine", thresholds=replace(MANY, score=-1.0))
    for masks, count, reason in (((line, whole), 1, None), ((line,), 0, NO_MASK)):
        monkeypatch.setattr(no_prompt, "objects", lambda *_, masks=masks: [*map(candidate, masks)])
        asked = frames(1, (224, 224))[0], no_prompt.listen(window(0.5), [0], options)[0], torch.zeros(1)
        answer = no_prompt.frame(*asked, (6, 8), options)
        assert (len(answer.instances), answer.reason) == (count, reason)


def test_published_sound_is_another(no_prompt: NoPrompt) -> None:
    clip = window(0.5)
    ours, theirs = (
        no_prompt.listen(clip, [0], replace(OPTIONS, sound=kind))[0] for kind in ("trained", "paper")
    )
    assert not torch.allclose(ours, theirs, atol=1e-3)
    second = torch.from_numpy(quantised(clip.audio[CLAP_RATE]))[:, None]
    with torch.inference_mode():
        published = no_prompt.encoder.network.encode_audio(second, "paper")[0]
    torch.testing.assert_close(theirs, published / torch.linalg.vector_norm(published))
