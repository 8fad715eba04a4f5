"""Masks survive the wire: RLE, PNG and the JSON line agree bit for bit, and pycocotools reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from models.media import Window
from models.packed_masks import PackedMask
from models.strategies import FrameMasks, Instance
from service.masks import Outputs, frame_line, from_png, from_rle, heatmap_document, read_mask, to_png, to_rle

HALF = np.array([[True, False, False], [True, True, False]])


def window(size: tuple[int, int]) -> Window:
    return Window(
        index=0,
        size=size,
        timestamps=(0.0, 1.001),
        indices=(0, 30),
        audio_windows=((0.0, 1.0), (1.0, 2.0)),
        frames=None,
        audio={},
        has_audio=True,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_rle_and_png_give_back_every_bit(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    assert np.array_equal(from_rle(to_rle(mask)), mask)
    assert np.array_equal(from_png(to_png(mask)), mask)


def test_pycocotools_reads_the_rle_as_it_is_sent() -> None:
    sent = json.loads(json.dumps(to_rle(HALF)))
    assert coco.decode(sent).tolist() == HALF.astype(int).tolist()
    assert coco.area(sent) == 3


def test_an_empty_mask_is_an_rle_of_zeros() -> None:
    rle = to_rle(np.zeros((720, 1280), bool))
    assert rle["size"] == [720, 1280] and rle["counts"]
    assert not from_rle(rle).any()


@pytest.mark.parametrize("form", ["rle", "png"])
def test_a_frame_line_holds_the_frame_of_the_contract(form) -> None:
    found = Instance(label="dog", score=0.83, audio_score=0.41, bbox=(0, 0, 2, 2), mask=PackedMask.of(HALF))
    masks = FrameMasks(mask=HALF, instances=(found,))
    line = frame_line(window((2, 3)), 1, masks, Outputs(mask=form))
    frame = json.loads(line)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert (frame["index"], frame["timestamp"], frame["audio_window"]) == (30, 1.001, [1.0, 2.0])
    assert frame["sounding"] is True and frame["area"] == 3
    assert np.array_equal(read_mask(frame["mask"]), HALF)
    instance = frame["instances"][0]
    assert (instance["id"], instance["label"], instance["bbox"]) == (1, "dog", [0, 0, 2, 2])
    assert np.array_equal(read_mask(instance["mask"]), HALF)


def test_silence_names_its_reason_and_outputs_are_left_out_on_request() -> None:
    masks = FrameMasks(mask=np.zeros((2, 3), bool), reason="silence")
    frame = json.loads(frame_line(window((2, 3)), 0, masks, Outputs(instances=False)))
    assert frame["sounding"] is False and frame["reason"] == "silence"
    assert "instances" not in frame and "heatmap" not in frame


def test_a_heat_map_is_a_grey_png() -> None:
    document = heatmap_document(np.array([[0.0, 0.4], [0.6, 1.0]], np.float32))
    assert document["size"] == [2, 2]
    assert read_mask(document).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (360, 640)])
def test_what_is_all_one_value_is_written_as_anything_else(value: bool, size: tuple[int, int]) -> None:
    mask = np.full(size, value)
    expected = coco.encode(np.asfortranarray(mask, np.uint8))
    assert to_rle(mask) == {"format": "coco_rle", "size": [*size], "counts": expected["counts"].decode()}
