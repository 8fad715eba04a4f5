"""Grounding DINO at tiny size, random weights: pairs in batches give the boxes of one caption at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import grounding_dino as dino
from models.checkpoints import check_fit, load_into
from models.errors import InvalidOption
from models.grounding_dino import GroundingDino
from models.grounding_dino_configs import build
from models.grounding_dino_passes import ImageFeatures
from models.install import install_trained
from models.key_rules import RULES
from models.suppliers import Detection, caption
from models.text_tokens import CLS, FULL_STOP, QUESTION_MARK, SEP, tiny_bert
from models.weights import Weights

MANIFEST = Path(__file__).parent / "data/manifests/grounding_dino_manifest.json"
SMALL = dino.Resolution(96, 160)
LABELS = ["dog", "a man speaking", "Church bell", "truck"]
TOLERANCE = 2e-5  # of probabilities and relative coordinates; batches are summed in another order


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    network = build("grounding-dino-tiny")
    with torch.no_grad():  # as initialised, fusion and the box heads do nothing: let every part matter
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@pytest.fixture
def detector(network: Any) -> GroundingDino:
    return GroundingDino(network, tiny_bert(256), SMALL, identity="random")


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)


def close(found: list[Detection], expected: list[Detection]) -> None:
    """The same boxes of the same labels: coordinates and scores equal to rounding."""
    assert [each.label for each in found] == [each.label for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=TOLERANCE)
        assert ours.box == pytest.approx(theirs.box, abs=64 * TOLERANCE)


def test_all_pairs_together_give_the_boxes_of_one_caption_at_a_time(
    network: Any, detector: GroundingDino, frames: NDArray[np.uint8]
) -> None:
    asked = [LABELS, LABELS[:1], [], LABELS[2:]][:3]
    together = detector.detect(frames, asked, threshold=0.0)
    for frame, labels in enumerate(asked):
        alone: list[Detection] = []
        for label in labels:
            fresh = GroundingDino(network, tiny_bert(256), SMALL, identity="random", pairs_per_batch=1)
            alone += fresh.detect(frames[frame : frame + 1], [[label]], threshold=0.0)[0]
        assert len(together[frame]) == network.config.num_queries * len(labels)
        close(together[frame], alone)


@pytest.mark.parametrize("label", ["dog", "a man speaking near a truck"])
def test_one_pair_is_the_forward_pass_of_the_whole_network(
    network: Any, detector: GroundingDino, frames: NDArray[np.uint8], label: str
) -> None:
    ids, _ = tiny_bert(256).batch([caption(label)])
    with torch.inference_mode():
        expected = network(pixel_values=detector.preprocess(frames[0])[None], input_ids=ids)
        scores, boxes = detector.pairs(detector.image(frames[:1]), [0], [detector.text([label])[label]])
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=TOLERANCE, rtol=0)
    best = expected.logits.sigmoid().max(-1).values
    torch.testing.assert_close(scores, best, atol=TOLERANCE, rtol=0)


def test_what_is_asked_matters(detector: GroundingDino, frames: NDArray[np.uint8]) -> None:
    """With the text ignored, the tests above would pass as well."""
    dog, truck = (detector.detect(frames[:1], [[label]], threshold=0.0)[0] for label in ("dog", "truck"))
    assert abs(dog[0].score - truck[0].score) + abs(dog[0].box[0] - truck[0].box[0]) > 1e-3


def test_the_backbones_run_once_a_frame_and_once_a_caption(
    network: Any, detector: GroundingDino, frames: NDArray[np.uint8]
) -> None:
    seen: dict[str, list[int]] = {"images": [], "captions": []}

    def count(name: str) -> Callable[..., None]:
        return lambda module, inputs: seen[name].append(len(inputs[0]))

    hooks = [
        network.model.backbone.register_forward_pre_hook(count("images")),
        network.model.text_backbone.register_forward_pre_hook(count("captions")),
    ]
    try:
        detector.detect(frames, [LABELS] * 3)
        assert seen == {"images": [3], "captions": [4]}
        detector.detect(frames, [LABELS[::-1], [], ["dog", "cat"]])
        assert seen == {"images": [3, 1], "captions": [4, 1]}, "only the last frame is asked anything new"
        detector.forget()
        detector.detect(frames, [["dog"], [], ["dog"]])
        assert seen == {"images": [3, 1, 2], "captions": [4, 1, 1]}
    finally:
        for hook in hooks:
            hook.remove()


def test_a_pair_asked_before_is_answered_for_any_threshold(
    detector: GroundingDino, frames: NDArray[np.uint8]
) -> None:
    first = detector.detect(frames, [["dog"]] * 3, threshold=0.0)
    middle = float(np.median([each.score for each in first[0]]))
    computed = detector.cache_counts.misses
    again = detector.detect(frames[::-1], [["Dog ", "dog"]] * 3, threshold=middle)
    assert (detector.cache_counts.misses, detector.cache_counts.hits) == (computed, 3), (
        "the caption is the same"
    )
    for old, new in zip(first, again[::-1], strict=True):
        kept = [(each.box, each.score) for each in old if each.score > middle]
        assert [(each.box, each.score) for each in new] == kept * 2
        assert {each.label for each in new} == {"Dog ", "dog"}


def test_equal_frames_are_looked_at_once(
    detector: GroundingDino, frames: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, image = [], detector.image
    monkeypatch.setattr(detector, "image", lambda some: looked.append(len(some)) or image(some))
    found = detector.detect(frames[[0, 1, 0]], [["dog"]] * 3, threshold=0.0)
    assert looked == [2]
    assert found[0] == found[2] != found[1]


def test_on_a_cpu_a_pair_at_full_size_goes_alone(detector: GroundingDino) -> None:
    """And small ones together: see PAIRS_PER_BATCH."""

    def of(tokens: int) -> ImageFeatures:
        return ImageFeatures(torch.empty(1, tokens, 1), torch.empty(1, tokens, 1), ())

    assert detector._pairs_at_once(of(20_925)) == 1
    assert detector._pairs_at_once(of(200)) == dino.PAIRS_PER_BATCH


def test_boxes_are_in_pixels_of_the_frame(detector: GroundingDino, frames: NDArray[np.uint8]) -> None:
    image = detector.image(frames[:1])
    with torch.inference_mode():
        scores, boxes = detector.pairs(image, [0], [detector.text(["dog"])["dog"]])
    found = detector.detect(frames[:1], [["dog"]], threshold=0.0)[0]
    x, y, width, height = boxes[0, 0].tolist()
    expected = ((x - width / 2) * 64, (y - height / 2) * 48, (x + width / 2) * 64, (y + height / 2) * 48)
    assert found[0].box == pytest.approx(expected, abs=1e-3)
    middle = float(scores[0].median())
    kept = detector.detect(frames[:1], [["dog"]], threshold=middle)[0]
    assert len(kept) == int((scores[0] > middle).sum())
    assert all(each.score > middle for each in kept)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((800, 800), (800, 800)),
        ((720, 1280), (750, 1333)),
        ((1, 4096), (1, 1333)),  # which the original cannot look at
        ((4096, 1), (1333, 1)),
    ],
)
def test_frames_are_resized_as_the_original_does(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert dino.fitted(*size, dino.PUBLISHED) == expected


@pytest.mark.parametrize("size", [(1, 90), (90, 1), (1, 1)])
def test_a_sliver_of_an_image_has_fewer_places_than_queries(
    network: Any, detector: GroundingDino, size: tuple[int, int]
) -> None:
    found = detector.detect(np.zeros((1, *size, 3), np.uint8), [["dog"]], threshold=0.0)
    assert len(found[0]) == network.config.num_queries


def test_captions_are_written_as_the_original_does() -> None:
    assert caption("  Church Bell ") == "church bell."
    assert caption("dog.") == "dog."
    with pytest.raises(InvalidOption, match="label is empty"):
        caption(" ")


def test_a_label_of_ten_thousand_characters_is_cut(
    detector: GroundingDino, frames: NDArray[np.uint8]
) -> None:
    assert detector.detect(frames[:1], [["a b" * 3334]], threshold=0.99) is not None
    assert detector.detect(frames, [[], [], []]) == [[], [], []]


def test_the_tiny_vocabulary_keeps_the_ids_that_part_phrases() -> None:
    tokens = tiny_bert(256)
    assert tokens(["a.?"]) == [[CLS, tokens(["a"])[0][1], FULL_STOP, QUESTION_MARK, SEP]]
    assert len(tokens(["ab"])[0]) == 4
    assert tokens(["ab c"]) != tokens(["a bc"])


def test_saved_weights_load_to_the_same_boxes(
    network: Any, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    weights = Weights(tmp_path / "weights", tiny=tmp_path / "tiny")
    path = install_trained(weights, "grounding-dino-tiny", network.state_dict(), source="random")
    assert path.stat().st_size < 7_000_000
    alone = GroundingDino(network, tiny_bert(256), dino.TINY, identity="random")
    expected = alone.detect(frames[:1], [["dog"]], threshold=0.0)
    assert dino.load(weights).detect(frames[:1], [["dog"]], threshold=0.0) == expected


@pytest.mark.parametrize("name", ["grounding-dino-swin-t", "grounding-dino-swin-b"])
def test_the_published_layout_fits_the_network_key_for_key(name: str) -> None:
    """Zeros of the published names and shapes: the shared box head must be equal under each of its names."""
    published = json.loads(MANIFEST.read_text())[name]
    state = {key: torch.zeros(1).expand(shape) for key, shape in published.items()}
    state |= {"label_enc.weight": torch.zeros(1), "bert.embeddings.position_ids": torch.zeros(1)}
    with torch.device("meta"):
        network = build(name)
    check_fit(network, RULES["grounding-dino"].apply(state), name)


def test_attention_is_split_into_query_key_and_value_in_order() -> None:
    state = {
        "transformer.decoder.layers.0.self_attn.in_proj_bias": torch.arange(6.0),
        "backbone.0.layers.0.blocks.0.attn.qkv.bias": torch.arange(6.0),
    }
    swin = "model.backbone.conv_encoder.model.swin.encoder.layers.0.blocks.0.attention"
    decoder = "model.decoder.layers.0.self_attn"
    split = {key: value.tolist() for key, value in RULES["grounding-dino"].apply(state).items()}
    assert split == {
        f"{decoder}.query.bias": [0, 1],
        f"{decoder}.key.bias": [2, 3],
        f"{decoder}.value.bias": [4, 5],
        f"{swin}.q_proj.bias": [0, 1],
        f"{swin}.k_proj.bias": [2, 3],
        f"{swin}.v_proj.bias": [4, 5],
    }


def test_loading_is_strict(network: Any) -> None:
    state = network.state_dict()
    load_into(build("grounding-dino-tiny"), state, "whole")
    with pytest.raises(Exception, match=r"1 missing \(model\.level_embed\)"):
        load_into(
            build("grounding-dino-tiny"),
            {key: value for key, value in state.items() if key != "model.level_embed"},
            "partial",
        )
