"""Frames on the client's side: run lengths agree with pycocotools, and every form of a mask with the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from models.media import Window
from models.packed_masks import PackedMask
from models.strategies import FrameMasks, Instance
from service import masks
from service.frames import Mask, decode_rle, read_frame

BITMAPS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(BITMAPS)
@settings(max_examples=300, deadline=None)
def test_run_lengths_agree_with_pycocotools(mask: np.ndarray) -> None:
    decoded = decode_rle(masks.to_rle(mask)["counts"], *mask.shape)
    assert decoded.dtype == bool
    assert np.array_equal(decoded, mask)


@pytest.mark.parametrize("shape", [(1080, 1920), (1, 70_000), (70_000, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["zeros", "ones", "halves", "noise", "last"])
def test_long_runs_and_large_frames(shape: tuple[int, int], kind: str) -> None:
    mask = np.zeros(shape, bool)
    if kind == "ones":
        mask[:] = True
    elif kind == "halves":
        mask[shape[0] // 2 :, shape[1] // 2 :] = True
    elif kind == "noise":
        mask = np.random.default_rng(0).random(shape) > 0.5
    elif kind == "last":
        mask[-1, -1] = True
    assert np.array_equal(decode_rle(masks.to_rle(mask)["counts"], *shape), mask)


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="16 pixels; the mask has 3 x 4"):
        decode_rle(masks.to_rle(np.eye(4, dtype=bool))["counts"], 3, 4)


@pytest.mark.parametrize("form", ["rle", "png"])
def test_a_line_of_the_service_becomes_a_frame(form: str) -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    window = Window(0, (5, 7), (1.5,), (45,), ((1.5, 2.5),), None, {}, has_audio=True)
    found = FrameMasks(mask, (Instance("bell", 0.75, None, (2.0, 1.0, 6.0, 3.0), PackedMask.of(mask)),))
    line = masks.frame_line(window, 0, found, masks.Outputs(mask=form))
    frame = read_frame(json.loads(line))
    assert (frame.index, frame.timestamp, frame.audio_window) == (45, 1.5, (1.5, 2.5))
    assert (frame.sounding, frame.area, frame.reason) == (True, 8, None)
    assert np.array_equal(frame.mask.pixels(), mask)
    assert frame.instances[0].label == "bell"
    assert frame.instances[0].bbox == (2.0, 1.0, 6.0, 3.0)
    assert np.array_equal(frame.instances[0].mask.pixels(), mask)


def test_an_empty_mask_is_zeros() -> None:
    assert not Mask(masks.to_rle(np.zeros((3, 2), bool))).pixels().any()
