"""Box-Prompt: names, questions, boxes, instances; what is computed how often; and what nobody can find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.datasets.kinds import CLASS_NAMES
from models.errors import InvalidOption
from models.networks import Networks
from models.overlaps import iou, suppressed
from models.prompting import Segment
from models.recogniser import Recogniser, best
from models.strategies import STRATEGIES, FrameMasks
from models.strategies.box_prompt import (
    UNNAMED,
    BoxPrompt,
    Heard,
    build,
    clipped,
    instances_of,
    kept,
    rivals,
    sought,
)
from models.strategies.gate import NOISY, SILENT
from models.strategies.options import MOST_NAMES, BoxPromptOptions, DetectionThresholds, GateOptions
from models.suppliers import Detection
from models.vocabularies import NOISE, vocabulary
from tests.bench.timing import growth
from tests.tiny_networks import batches, tiny_networks, window

QUIET_GATE = GateOptions(noise=False)
LABELS = ("dog barking", "piano", "church bell", "a man speaking")
# Random networks find something everywhere; a share of it is enough.
SURE = DetectionThresholds(box=0.9)
OPTIONS = BoxPromptOptions(labels=LABELS, thresholds=SURE, gate=QUIET_GATE, max_boxes=5)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return tiny_networks(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def box_prompt(networks: Networks) -> BoxPrompt:
    strategy = build(networks)
    assert isinstance(strategy, BoxPrompt)
    return strategy


def run(strategy: BoxPrompt, *loudness: float, options: BoxPromptOptions = OPTIONS) -> list[FrameMasks]:
    return list(strategy(window(*loudness), options))


# --- what is computed, and how often


@pytest.mark.parametrize("top_k", [1, 3])
def test_the_image_backbone_sees_each_frame_once_however_many_names(
    networks: Networks, box_prompt: BoxPrompt, top_k: int
) -> None:
    with batches(networks["grounding-dino"].network.model.backbone) as seen:
        run(box_prompt, 0.5, 0.4, 0.3, 0.2, 0.1, options=replace(OPTIONS, top_k=top_k))
    assert seen == [5]


def test_sounds_are_one_batch_and_names_are_encoded_once(networks: Networks, box_prompt: BoxPrompt) -> None:
    network = networks["clap"].network
    options = replace(OPTIONS, labels=("a violin", "a cello"))
    with batches(network.audio_projection) as heard, batches(network.text_projection) as read:
        run(box_prompt, 0.5, 0.4, 0.3, options=options)
        run(box_prompt, 0.5, 0.4, 0.3, options=replace(options, top_k=2))
    assert (heard, read) == ([3, 3], [2])


def test_sam_encodes_frames_with_boxes_once(networks: Networks) -> None:
    strategy = build(Networks("cpu", networks.weights))
    assert isinstance(strategy, BoxPrompt)
    with batches(strategy.prompting.sam.network.vision_encoder) as encoded:
        run(strategy, 0.5, 0.0, 0.3)
        run(strategy, 0.5, 0.0, 0.3, options=replace(OPTIONS, top_k=2))
    assert encoded == [2]


def test_audioclip_looks_only_where_agreement_is_asked_for(networks: Networks, box_prompt: BoxPrompt) -> None:
    asked = replace(OPTIONS, gate=replace(QUIET_GATE, agreement=-0.9))
    with batches(networks["audioclip"].visual.conv1) as seen:
        run(box_prompt, 0.5, 0.4)
        assert seen == []
        run(box_prompt, 0.5, 0.0, 0.4, options=asked)
    assert seen == [2]


# --- what comes out


def test_instances_and_their_union(box_prompt: BoxPrompt) -> None:
    for answer in run(box_prompt, 0.5, 0.4, options=replace(OPTIONS, top_k=2)):
        assert 1 <= len(answer.instances) <= OPTIONS.max_boxes
        assert np.array_equal(answer.mask, np.any([each.mask.pixels() for each in answer.instances], axis=0))
        for each in answer.instances:
            assert each.label in LABELS
            assert SURE.box < each.score <= 1
            assert each.audio_score is not None
            assert -1 <= each.audio_score <= 1
            x1, y1, x2, y2 = each.bbox
            assert 0 <= x1 <= x2 <= 96
            assert 0 <= y1 <= y2 <= 72
        assert answer.reason is None


def test_the_best_names_are_those_with_the_largest_cosine(networks: Networks, box_prompt: BoxPrompt) -> None:
    clip = window(0.5, 0.3)
    verdicts, heard = box_prompt.recognise(clip, replace(OPTIONS, top_k=2))
    clap = networks["clap"]
    scores = (clap.audio(clip.audio[48_000]) @ clap.text(LABELS).T).numpy()
    for row, names in zip(scores, heard, strict=True):
        order = np.argsort(-row)[:2]
        assert [each.name for each in names] == [LABELS[i] for i in order]
        np.testing.assert_allclose([each.score for each in names], row[order], atol=1e-5)
    assert verdicts == [None, None]


def test_without_a_vocabulary_the_names_are_those_that_the_recogniser_learnt(box_prompt: BoxPrompt) -> None:
    """The tiny family was only ever on SynthAVS; AudioSet's names are for published weights."""
    options = BoxPromptOptions(gate=QUIET_GATE)
    for recogniser in ("clap", "audioclip"):
        ((names,),) = [box_prompt.recognise(window(0.5), replace(options, recogniser=recogniser))[1]]
        assert [each.name in CLASS_NAMES for each in names] == [True]
    ((named,),) = [box_prompt.recognise(window(0.5), replace(options, vocabulary="avsbench"))[1]]
    assert named[0].name in vocabulary("avsbench")


def test_either_network_recognises(box_prompt: BoxPrompt) -> None:
    by_clap = box_prompt.recognise(window(0.5), OPTIONS)[1][0][0]
    by_audioclip = box_prompt.recognise(window(0.5), replace(OPTIONS, recogniser="audioclip"))[1][0][0]
    assert by_clap.score != by_audioclip.score


@pytest.mark.parametrize(
    ("changes", "question"),
    [
        ({"labels": ("Piano",)}, "Piano"),
        ({"labels": ("Piano",), "prompt": "look"}, "Look! Object of Piano"),
        ({"labels": (), "prompt": "caption", "captions": ("A piano plays.",)}, "A piano plays."),
        ({"labels": (), "prompt": "text", "text": "the object in the middle"}, "the object in the middle"),
    ],
)
def test_forms_of_the_question(box_prompt: BoxPrompt, changes: dict[str, Any], question: str) -> None:
    (names,) = box_prompt.recognise(window(0.5), replace(OPTIONS, **changes))[1]
    assert [each.question for each in names] == [question]
    (answer,) = run(box_prompt, 0.5, options=replace(OPTIONS, **changes))
    assert {each.label for each in answer.instances} == {names[0].name}


def test_the_callers_own_text_listens_to_energy_alone(networks: Networks, box_prompt: BoxPrompt) -> None:
    options = replace(OPTIONS, labels=(), prompt="text", text="the object in the middle")
    with batches(networks["clap"].network.audio_projection) as heard:
        loud, silent = run(box_prompt, 0.5, 0.0, options=options)
    assert heard == []
    assert loud.instances
    assert loud.instances[0].audio_score is None
    assert silent.reason == SILENT


def test_a_caption_is_retrieved_for_each_second(box_prompt: BoxPrompt) -> None:
    captions = ("A dog barks.", "Someone plays a piano.", "Bells ring far away.")
    options = replace(OPTIONS, labels=(), prompt="caption", captions=captions)
    heard = box_prompt.recognise(window(0.5, 0.4), options)[1]
    assert all(len(names) == 1 and names[0].question in captions for names in heard)


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_the_presets_answer(box_prompt: BoxPrompt, preset: str) -> None:
    options = replace(STRATEGIES["box-prompt"].presets[preset], labels=LABELS, max_boxes=3)
    for answer in run(box_prompt, 0.5, 0.0, options=options):
        assert answer.mask.shape == (72, 96)
        assert answer.mask.any() == (answer.reason is None)


def test_boxes_of_the_published_square_are_brought_back(box_prompt: BoxPrompt) -> None:
    found = Detection((112.0, 56.0, 300.0, 112.0), 0.5, "dog")
    assert clipped(found, (96 / 224, 72 / 224), (72, 96)) == (48.0, 18.0, 96.0, 36.0)


def test_an_object_without_a_pixel_of_the_source_is_none() -> None:
    """A line of the published square falls between the pixels of a small frame."""
    line, whole = np.zeros((224, 224), bool), np.ones((224, 224), bool)
    line[:, 5] = True
    names, boxes = [Heard("dog", 0.5, "dog")], [Detection((0.0, 0.0, 9.0, 224.0), 0.9, "dog")] * 3
    segments = [Segment(mask, 0.9) for mask in (line, whole, np.zeros((224, 224), bool))]
    (found,) = instances_of(names, boxes, segments, (8 / 224, 6 / 224), (6, 8))
    assert found.mask.pixels().all()
    assert found.bbox == pytest.approx((0, 0, 9 * 8 / 224, 6))


def test_an_instance_has_the_name_and_the_score_of_its_own_question() -> None:
    names = [Heard("dog", 0.5, "Look! Object of dog"), Heard("cat", 0.4, "Look! Object of cat")]
    boxes = [Detection((0.0, 0.0, 4.0, 4.0), 0.9, each.question) for each in (names[1], names[0], names[1])]
    segments = [Segment(np.ones((6, 8), bool), 0.9)] * 3
    found = instances_of(names, boxes, segments, (1.0, 1.0), (6, 8))
    assert [(each.label, each.audio_score) for each in found] == [("cat", 0.4), ("dog", 0.5), ("cat", 0.4)]


# --- boxes


def test_iou_and_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 10, 9]], np.float32)
    scores = np.array([0.5, 0.9, 0.1, 0.7], np.float32)
    assert iou(boxes[0], boxes.T).tolist() == pytest.approx([1, 0.8, 0, 0.9])
    assert suppressed(boxes, scores, 0.7) == [1, 2]
    assert suppressed(boxes, scores, 0.85) == [1, 0, 2]
    assert suppressed(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5) == []
    assert suppressed(np.zeros((2, 4), np.float32), scores[:2], 0.5) == [1, 0]  # no area, no overlap


def test_suppression_is_greedy_and_ties_keep_their_order() -> None:
    """Against the definition, on many boxes."""
    random = np.random.default_rng(0)
    corner, extent = random.random((60, 2)) * 50, random.random((60, 2)) * 40 + 1
    boxes = np.concatenate([corner, corner + extent], 1).astype(np.float32)
    scores = (random.random(60) * 8).round().astype(np.float32)
    remaining = sorted(range(60), key=lambda i: (-float(scores[i]), i))
    expected = []
    while remaining:
        first, *rest = remaining
        expected.append(first)
        overlaps = iou(boxes[first], boxes.T)
        remaining = [i for i in rest if overlaps[i] <= 0.3]
    assert suppressed(boxes, scores, 0.3) == expected


def test_many_boxes_are_not_compared_all_at_once() -> None:
    """As many as No-Prompt can find, none over another: every pair at once took 5 GiB."""
    boxes = np.arange(12_288, dtype=np.float32)[:, None] * 2 + np.array([0, 0, 1, 1], np.float32)
    with growth() as grown:
        assert suppressed(boxes, np.zeros(12_288, np.float32), 0.7) == list(range(12_288))
    assert grown[0] < 100


def test_the_surest_boxes_are_kept() -> None:
    boxes = [
        Detection((10.0 * i, 0.0, 10.0 * i + 5, 5.0), score, "x") for i, score in enumerate((0.4, 0.9, 0.5))
    ]
    options = BoxPromptOptions(max_boxes=2)
    assert [each.score for each in kept(boxes, options)] == [0.9, 0.5]
    assert [each.score for each in kept(boxes, replace(options, nms=None))] == [0.9, 0.5]
    assert [each.score for each in kept(boxes, replace(options, nms=None, max_boxes=3))] == [0.4, 0.9, 0.5]
    doubled = [*boxes, Detection(boxes[1].box, 0.8, "y")]
    assert len(kept(doubled, replace(options, max_boxes=9))) == 3
    assert len(kept(doubled, replace(options, max_boxes=9, nms=None))) == 4
    assert kept([], options) == []


# --- when there is nothing


def test_silence_is_empty_under_best(box_prompt: BoxPrompt) -> None:
    for answer in run(box_prompt, 0.0, 0.0, options=BoxPromptOptions()):
        assert (answer.reason, answer.mask.any(), answer.instances) == (SILENT, False, ())


def test_names_of_noise_close_the_gate(networks: Networks, box_prompt: BoxPrompt) -> None:
    """A name that fits better than any name of noise opens it, one that fits worse closes it. A name of noise
    that the caller asks for is no rival of itself, so these give one of each sort with any weights."""
    clip = window(0.5)
    clap = networks["clap"]
    fits = (clap.audio(clip.audio[48_000]) @ clap.text(NOISE).T)[0]
    best_label, worst_label = NOISE[int(fits.argmax())], NOISE[int(fits.argmin())]
    assert box_prompt.recognise(clip, BoxPromptOptions(labels=(best_label,)))[0] == [None]
    assert box_prompt.recognise(clip, BoxPromptOptions(labels=(worst_label,)))[0] == [NOISY]
    (answer,) = box_prompt(clip, BoxPromptOptions(labels=(worst_label,)))
    assert (answer.reason, answer.mask.any()) == (NOISY, False)


def test_noise_is_no_rival_of_itself() -> None:
    names, noises = rivals(BoxPromptOptions())
    assert len(names) + len(noises) == 527
    assert set(noises) == set(NOISE)
    assert rivals(BoxPromptOptions(labels=("white noise", "dog")))[0] == ["white noise", "dog"]
    assert "White noise" not in rivals(BoxPromptOptions(labels=("white noise", "dog")))[1]
    assert rivals(BoxPromptOptions(gate=GateOptions(noise=False)))[1] == []
    assert len(rivals(STRATEGIES["box-prompt"].presets["paper"])[0]) == 527


def test_how_many_names_are_looked_for(networks: Networks) -> None:
    """A number that is given counts; a threshold says itself how many; a measured one holds for the names it
    was measured with, no others."""

    def asked(calibrated: float | None, **given: Any) -> tuple[int, float | None]:
        encoder = networks["clap"]
        recogniser = Recogniser(encoder, 48_000, networks.batcher, "synthavs", calibrated)
        return sought(BoxPromptOptions(**given), recogniser)

    assert asked(None) == (1, None)
    assert asked(0.3) == asked(0.3, vocabulary="synthavs") == (MOST_NAMES, 0.3)
    assert asked(0.3, vocabulary="avsbench") == asked(0.3, labels=("dog",)) == (1, None)
    assert asked(0.3, top_k=2) == (2, None)
    assert asked(0.3, thresholds=DetectionThresholds(audio=0.1)) == (MOST_NAMES, 0.1)


def test_a_sound_that_no_name_fits(box_prompt: BoxPrompt) -> None:
    options = replace(OPTIONS, thresholds=DetectionThresholds(audio=1.0))
    (answer,) = run(box_prompt, 0.5, options=options)
    assert (answer.reason, answer.mask.any()) == (UNNAMED, False)


def test_a_name_that_is_not_seen(box_prompt: BoxPrompt) -> None:
    options = replace(OPTIONS, labels=("dog",), thresholds=DetectionThresholds(box=1.0))
    (answer,) = run(box_prompt, 0.5, options=options)
    assert answer.reason == "Nothing in the frame looks like what is heard: dog."
    assert not answer.mask.any()
    told = replace(options, labels=(), prompt="caption", captions=("A dog barks.",))
    assert run(box_prompt, 0.5, options=told)[0].reason == answer.reason.replace("dog", "A dog barks")


def test_best_of_scores() -> None:
    scores = np.array([0.1, 0.5, 0.3], np.float32)
    assert best(scores, 2, None) == [1, 2]
    assert best(scores, 3, 0.2) == [1, 2]
    assert best(scores, 9, None) == [1, 2, 0]


# --- awkward requests


def test_a_thousand_labels_and_long_ones(box_prompt: BoxPrompt) -> None:
    labels = (*(f"thing {i}" for i in range(999)), "very " * 19 + "long")
    (answer,) = run(box_prompt, 0.5, options=replace(OPTIONS, labels=labels))
    assert answer.mask.any()


def test_a_label_too_long_for_audioclip_is_named(box_prompt: BoxPrompt) -> None:
    """Its tiny tower reads 75 bytes."""
    options = replace(OPTIONS, recogniser="audioclip", labels=("very " * 19 + "long",))
    with pytest.raises(InvalidOption, match="has 82 tokens; 77 fit"):
        run(box_prompt, 0.5, options=options)


@pytest.mark.parametrize("label", ["犬", "Ünïcödé", "a. b? c", "[CLS] [SEP]", "x", "\u200bdog"])
def test_labels_of_any_writing(box_prompt: BoxPrompt, label: str) -> None:
    for recogniser in ("clap", "audioclip"):
        options = replace(OPTIONS, labels=(label,), recogniser=recogniser)
        (answer,) = run(box_prompt, 0.5, options=options)
        assert answer.mask.shape == (72, 96)


@pytest.mark.parametrize("size", [(1, 1), (2, 150), (150, 2), (64, 64), (1, 1000), (3000, 2)])
def test_slivers_and_one_colour(box_prompt: BoxPrompt, size: tuple[int, int]) -> None:
    clip = window(0.5, pixels=np.full((1, *size, 3), 200, np.uint8))
    (answer,) = box_prompt(clip, OPTIONS)
    assert answer.mask.shape == size
