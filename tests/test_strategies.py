"""The strategies that ask SAM at a heat map or at random: batches, caches, presets, and awkward clips."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import parts
from models.heat_prompting import HeatPrompting, mapped
from models.media import Window
from models.networks import Networks
from models.sound_maps import SoundMaps
from models.strategies import STRATEGIES, FrameMasks
from models.strategies import gate as gates
from models.strategies.heatmap_box_prompt import NOTHING_BRIGHT, HeatmapBoxPrompt, prompts_of
from models.strategies.options import (
    DetectionThresholds,
    GateOptions,
    GridThresholds,
    HeatmapBoxPromptOptions,
    HeatmapThreshold,
    PointPromptOptions,
    RandomSamOptions,
)
from models.strategies.point_prompt import FLAT, PointPrompt, prompt
from models.suppliers import Prompt
from models.weights import FRAME, OBJECT, record
from tests.tiny_networks import batches, frames, tiny_networks, window

OTHERS = {"source": "another training", "source_sha256": "", "licence": "Apache-2.0"}
NAMES = ("point-prompt", "heatmap-box-prompt", "random-sam")
ASKED: dict[str, Any] = {  # of random networks, which are sure of nothing
    "box-prompt": {"labels": ("dog",), "thresholds": DetectionThresholds(box=0.5), "max_boxes": 1},
    "no-prompt": {"points_per_side": 2, "thresholds": GridThresholds(stability=0.5)},
}
PRESETS = [(name, preset) for name in NAMES for preset in ("best", "paper")]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return tiny_networks(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def fresh(networks: Networks) -> Networks:
    """The same networks, loaded again: their caches are empty."""
    return Networks("cpu", networks.weights)


def run(networks: Networks, name: str, clip: Window, options: Any = None) -> list[FrameMasks]:
    strategy = STRATEGIES[name]
    segmenter = import_module(strategy.module).build(networks)
    return list(segmenter(clip, options or strategy.presets["best"]))


# --- what is computed, and how often


@pytest.mark.parametrize("name", NAMES)
def test_five_frames_are_one_batch_of_sam_and_a_second_request_none(fresh: Networks, name: str) -> None:
    clip = window(0.5, 0.4, 0.3, 0.2, 0.1)
    others: dict[str, Any] = {
        "point-prompt": PointPromptOptions(points="local", surgery=False),
        "heatmap-box-prompt": HeatmapBoxPromptOptions(component="all", reverse=False),
        "random-sam": RandomSamOptions(seed=9),
    }
    with batches(fresh["sam"].network.vision_encoder) as encoded:
        run(fresh, name, clip)
        assert encoded == [5]
        run(fresh, name, clip, others[name])
        assert encoded == [5]


@pytest.mark.parametrize("name", NAMES[:2])
def test_both_towers_of_audioclip_see_a_window_in_one_batch(networks: Networks, name: str) -> None:
    network = networks["audioclip"]
    with batches(network.audio.conv1) as heard, batches(network.visual.conv1) as seen:
        run(networks, name, window(0.5, 0.4, 0.3, 0.2, 0.1))
    assert (heard, seen) == ([5], [5])


def test_strategies_share_the_embeddings_of_a_clip(fresh: Networks) -> None:
    clip = window(0.5, 0.4)
    with batches(fresh["sam"].network.vision_encoder) as encoded:
        for name in NAMES:
            run(fresh, name, clip)
    assert encoded == [2]


def test_a_point_for_each_frame_is_one_batch_of_the_decoder(networks: Networks) -> None:
    with batches(networks["sam"].network.mask_decoder.upscale_conv1) as decoded:
        run(networks, "point-prompt", window(0.5, 0.4, 0.3), PointPromptOptions(points="global"))
    assert decoded == [3]


def test_frames_share_batches_of_the_decoder_while_there_is_room(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all frames of a window: their logits would be held together."""
    sam, asked = networks["sam"], []
    decode = sam.decode
    monkeypatch.setattr(
        sam, "decode", lambda *some, **how: asked.append(len(some[2])) or decode(*some, **how)
    )
    prompts = [[Prompt(0, box=(1.0, 1.0, 20.0, 20.0))] * count for count in (30, 30, 0, 30, 70, 1)]
    answers = networks.shared(parts.prompting)(frames(6), prompts)
    assert [len(list(each)) for each in answers] == [30, 30, 0, 30, 70, 1]
    assert asked == [60, 30, 70, 1]


def test_seconds_that_the_gate_closes_cost_nothing(fresh: Networks) -> None:
    with batches(fresh["sam"].network.vision_encoder) as encoded, batches(fresh["audioclip"].audio) as heard:
        answers = run(fresh, "point-prompt", window(0.5, 0.0, 0.0))
    assert (encoded, heard) == ([1], [1])
    assert [answer.reason for answer in answers] == [None, gates.SILENT, gates.SILENT]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_window_is_its_frames(networks: Networks, name: str, preset: str) -> None:
    """Batches change rounding only, so nearly every pixel is that of the frame alone."""
    clip, options = window(0.5, 0.4, 0.3), STRATEGIES[name].presets[preset]
    together = run(networks, name, clip, options)
    for index, answer in enumerate(together):
        alone = replace(
            clip,
            timestamps=clip.timestamps[index : index + 1],
            indices=clip.indices[index : index + 1],
            frames=clip.frames[index : index + 1] if clip.frames is not None else None,
            audio={rate: sound[index : index + 1] for rate, sound in clip.audio.items()},
        )
        (single,) = run(networks, name, alone, options)
        assert (single.mask != answer.mask).mean() < 0.01


# --- what comes out


@pytest.mark.parametrize(("name", "preset"), PRESETS)
@pytest.mark.parametrize("size", [(72, 96), (300, 120)])
def test_masks_have_the_size_of_the_source(
    networks: Networks, name: str, preset: str, size: tuple[int, int]
) -> None:
    (answer,) = run(networks, name, window(0.5, size=size), STRATEGIES[name].presets[preset])
    assert answer.mask.shape == size
    assert answer.mask.dtype == bool
    assert answer.mask.any() == (answer.reason is None)


@pytest.mark.parametrize("name", [*NAMES, "box-prompt", "no-prompt"])
def test_masks_are_of_the_source_or_of_the_published_square(networks: Networks, name: str) -> None:
    """As published, a frame of twice the square is segmented in squares of two by two pixels."""
    clip = window(0.5, size=(448, 448))
    mixed = {}
    for resolution in ("source", "paper"):
        options = replace(STRATEGIES[name].presets["paper"], resolution=resolution, **ASKED.get(name, {}))
        (answer,) = run(networks, name, clip, options)
        squares = answer.mask.reshape(224, 2, 224, 2)
        mixed[resolution] = bool((squares.any((1, 3)) != squares.all((1, 3))).any())
        assert answer.mask.any()
    assert mixed == {"source": True, "paper": False}


@pytest.mark.parametrize("name", NAMES[:2])
def test_heat_maps_come_with_the_answer(networks: Networks, name: str) -> None:
    (answer,) = run(networks, name, window(0.5))
    assert answer.heatmap is not None
    assert answer.heatmap.shape == (224, 224)
    assert answer.heatmap.min() >= 0
    assert answer.heatmap.max() <= 1


def test_surgery_and_reverse_change_the_heat_map(networks: Networks) -> None:
    clip = window(0.5)
    maps = []
    for surgery in (True, False):
        for reverse in (True, False):
            options = PointPromptOptions(surgery=surgery, reverse=reverse)
            maps.append(run(networks, "point-prompt", clip, options)[0].heatmap)
    assert len({each.tobytes() for each in maps if each is not None}) == 4
    assert maps[0] is not None
    np.testing.assert_allclose(maps[0], 1 - maps[1], atol=2e-3)


@pytest.mark.parametrize("name", NAMES[:2])
def test_sound_is_scaled_as_is_asked(networks: Networks, name: str) -> None:
    clip, best = window(0.5), STRATEGIES[name].presets["best"]
    maps = [
        run(networks, name, clip, replace(best, audio_scale=scale))[0].heatmap for scale in ("int16", "paper")
    ]
    assert maps[0] is not None
    assert maps[1] is not None
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_the_mask_is_the_one_sam_likes_best(networks: Networks) -> None:
    clip, options = window(0.5, 0.4), PointPromptOptions(points="global")
    answers = run(networks, "point-prompt", clip, options)
    for index, answer in enumerate(answers):
        assert answer.heatmap is not None
        assert clip.frames is not None
        asked = replace(prompt(answer.heatmap, clip.size, options), frame=0)
        sam = networks["sam"]
        logits, scores = sam.decode(sam.embed(clip.frames[index : index + 1]), clip.size, [asked])
        best = sam.upscale(logits, clip.size)[0, scores[0].argmax()] > 0
        assert (best.numpy() != answer.mask).mean() < 0.01


def test_all_components_are_united(networks: Networks) -> None:
    clip = window(0.5, size=(224, 224))
    threshold = HeatmapThreshold(0.9)
    mapper = networks.shared(parts.sound_mapper)
    options = HeatmapBoxPromptOptions(component="all", thresholds=threshold, reverse=False)
    (looked,) = mapped(clip, mapper, options)
    assert looked.heat is not None
    asked = prompts_of(looked.heat, clip.size, options)
    (segments,) = networks.shared(parts.prompting)(frames(1, (224, 224)), [asked])
    (answer,) = run(networks, "heatmap-box-prompt", clip, options)
    assert np.array_equal(answer.mask, np.any([segment.mask for segment in segments], axis=0))


def test_a_random_point_depends_on_the_frame_and_the_seed_alone(networks: Networks) -> None:
    clip = window(0.5, 0.5, pixels=frames(1).repeat(2, 0))
    first, second = run(networks, "random-sam", clip)
    later = replace(clip, indices=(1, 0))
    swapped = run(networks, "random-sam", later)
    assert (second.mask != swapped[0].mask).mean() < 0.01
    assert not np.array_equal(first.mask, second.mask)
    other = run(networks, "random-sam", clip, RandomSamOptions(seed=1))
    assert not np.array_equal(first.mask, other[0].mask)


# --- awkward clips


@pytest.mark.parametrize("name", NAMES[:2])
def test_no_sound_is_an_empty_mask_under_best_and_a_guess_under_paper(networks: Networks, name: str) -> None:
    clip = window(0.0, 0.0)
    assert not clip.has_audio
    for answer in run(networks, name, clip):
        assert not answer.mask.any()
        assert answer.reason == gates.SILENT
    published = run(networks, name, clip, STRATEGIES[name].presets["paper"])
    assert [answer.mask.shape for answer in published] == [clip.size] * 2


@pytest.mark.parametrize(("name", "preset"), PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 3), (1, 1000), (3000, 2), (17, 1000)])
def test_slivers_are_answered(networks: Networks, name: str, preset: str, size: tuple[int, int]) -> None:
    (answer,) = run(networks, name, window(0.5, size=size), STRATEGIES[name].presets[preset])
    assert answer.mask.shape == size


def test_sound_and_picture_must_agree_if_asked(networks: Networks) -> None:
    clip = window(0.5, 0.3)
    options = PointPromptOptions(gate=GateOptions(agreement=0.999))
    answers = run(networks, "point-prompt", clip, options)
    assert [answer.reason for answer in answers] == [gates.UNSEEN] * 2
    assert answers[0].heatmap is not None
    without = replace(options, gate=GateOptions(agreement=-1.0))
    assert all(answer.mask.any() for answer in run(networks, "point-prompt", clip, without))


def test_the_detector_judges_what_is_in_view_until_somebody_asks_otherwise(tmp_path: Path) -> None:
    weights = tiny_networks(tmp_path).weights
    weights.calibrate("audioclip", {FRAME: 0.999})
    networks, clip, gate = Networks("cpu", weights), window(0.5), GateOptions(noise=False)
    options = replace(STRATEGIES["box-prompt"].presets["best"], gate=gate)
    assert run(networks, "box-prompt", clip, options)[0].reason != gates.UNSEEN
    asked = replace(options, gate=replace(gate, agreement=0.999))
    assert run(networks, "box-prompt", clip, asked)[0].reason == gates.UNSEEN


@pytest.mark.parametrize("name", ["point-prompt", "heatmap-box-prompt", "no-prompt"])
def test_null_is_what_the_weights_were_calibrated_to(tmp_path: Path, name: str) -> None:
    """Until somebody asks otherwise; other weights know nothing of it."""
    weights = tiny_networks(tmp_path).weights
    assert weights.calibration("audioclip") == {}
    clip = window(0.5)
    gate = GateOptions(noise=False)
    options = replace(STRATEGIES[name].presets["best"], gate=gate)
    assert run(Networks("cpu", weights), name, clip, options)[0].reason != gates.UNSEEN
    weights.calibrate("audioclip", {FRAME: 0.999, OBJECT: 0.999})
    calibrated = Networks("cpu", weights)
    assert run(calibrated, name, clip, options)[0].reason == gates.UNSEEN
    unasked = replace(options, gate=replace(gate, agreement=-1.0))
    assert run(calibrated, name, clip, unasked)[0].reason != gates.UNSEEN
    assert (
        run(calibrated, name, clip, replace(options, gate=replace(gate, enabled=False)))[0].reason
        != gates.UNSEEN
    )
    record(weights.tiny, "audioclip-tiny", weights.file("audioclip-tiny"), **OTHERS)
    assert weights.calibration("audioclip") == {}


class Flat:
    """A mapper to which all places of a frame are alike."""

    calibrated = None

    def __call__(self, frames: np.ndarray, seconds: np.ndarray, **how: Any) -> SoundMaps:
        return SoundMaps(np.zeros((len(frames), 224, 224), np.float32), np.zeros(len(frames), np.float32))


def flat(networks: Networks) -> HeatPrompting:
    return HeatPrompting(Flat(), networks.shared(parts.prompting))


def test_a_flat_heat_map_has_no_box_but_a_reason(networks: Networks) -> None:
    answers = list(HeatmapBoxPrompt(flat(networks))(window(0.5, 0.4), HeatmapBoxPromptOptions()))
    assert [(answer.reason, bool(answer.mask.any())) for answer in answers] == [(NOTHING_BRIGHT, False)] * 2


@pytest.mark.parametrize("finder", ["global", "local", "dense"])
@pytest.mark.parametrize("placing", ["exact", "paper"])
def test_a_flat_heat_map_still_gives_points(networks: Networks, finder: Any, placing: Any) -> None:
    options = PointPromptOptions(points=finder, placing=placing)
    (answer,) = PointPrompt(flat(networks))(window(0.5), options)
    if finder == "local" and placing == "paper":  # as published: every pixel
        assert (answer.reason, answer.mask.any()) == (FLAT, False)
    else:
        assert answer.mask.any()


def test_no_pixels_from_sam_is_an_empty_mask_with_a_reason(fresh: Networks) -> None:
    decoder = fresh["sam"].network.mask_decoder
    with torch.no_grad():  # masks without a positive pixel
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.weight.zero_()
            head.proj_out.bias.zero_()
    for name in NAMES:
        (answer,) = run(fresh, name, window(0.5))
        assert answer.reason == gates.NO_MASK
