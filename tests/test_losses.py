"""Losses by hand; their golden values are those of `test_metrics.py` and of the training step."""

from __future__ import annotations

import math

import pytest
import torch

from models.training.losses import (
    avss_loss,
    avss_matching,
    info_nce,
    ms3_loss,
    ms3_matching,
    ms3_nearest_matching,
    s4_loss,
    s4_matching,
    tpavi_ms3_loss,
)

CLIPS, FRAMES = 2, 10


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_s4_judges_first_frames_only() -> None:
    answer, masks = logits(FRAMES, 8, 8), (logits(FRAMES, 8, 8, seed=1) > 0).float()
    loss = s4_loss(answer, masks[::5])
    assert torch.equal(loss, s4_loss(answer, masks))
    loss.backward()
    judged = answer.grad.abs().sum((1, 2)) > 0
    assert judged.tolist() == [True, False, False, False, False] * CLIPS


def test_ms3_is_the_mean_cross_entropy() -> None:
    answer = torch.tensor([[[0.0, 2.0]]])
    masks = torch.tensor([[[1.0, 0.0]]])
    by_hand = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert ms3_loss(answer, masks).item() == pytest.approx(by_hand)


def test_matching_is_nothing_where_seen_equals_heard() -> None:
    maps = [logits(FRAMES, 6, side, side, seed=side) for side in (4, 2)]
    bright = torch.full((FRAMES, 8, 8), 50.0)  # every place is covered
    heard = [stage.mean((2, 3)) for stage in maps]
    assert ms3_matching(bright, heard, maps).item() == pytest.approx(0, abs=1e-5)
    assert s4_matching(bright, heard, maps).item() == pytest.approx(0, abs=1e-4)
    total = tpavi_ms3_loss(bright, torch.ones_like(bright), heard, maps)
    assert total.item() == pytest.approx(0, abs=1e-5)
    away = [-feature for feature in heard]
    assert ms3_matching(bright, away, maps) > 0.01
    assert s4_matching(bright, away, maps).item() == pytest.approx(-math.log(1e-6), rel=1e-4)


def test_the_nearest_sound_decides_whom_a_frame_should_look_like() -> None:
    heard = torch.eye(2).repeat_interleave(2, 0)  # frames 0 and 1 sound alike, 2 and 3 too
    seen = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    bright = torch.full((4, 4, 4), 50.0)
    alike = ms3_nearest_matching(bright, [heard], [seen[:, :, None, None]])
    crossed = ms3_nearest_matching(bright, [heard], [seen[[0, 2, 1, 3], :, None, None]])
    assert alike.item() == pytest.approx(0, abs=1e-6)
    assert crossed > 0.1


def test_avss_counts_annotated_frames_only() -> None:
    answer, labels = logits(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5), generator=torch.manual_seed(0))
    annotated = torch.tensor([1.0, 0.0, 1.0, 0.0])
    loss = avss_loss(answer, labels, annotated)
    expected = torch.nn.functional.cross_entropy(answer[::2], labels[::2])
    assert torch.allclose(loss, expected)
    heard, maps = [logits(4, 6)], [logits(4, 6, 2, 2, seed=3)]
    some = avss_matching(answer, heard, maps, annotated)
    only = avss_matching(answer[::2], [heard[0][::2]], [maps[0][::2]], torch.ones(2))
    assert torch.allclose(some, only)


def test_contrast_wants_equal_labels_together() -> None:
    features = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), dim=1
    )
    together = info_nce(features, torch.tensor([0, 0, 1, 1]))
    apart = info_nce(features, torch.tensor([0, 1, 0, 1]))
    assert together < 0.01 < apart
    lonely = info_nce(features[:3], torch.tensor([0, 0, 1]))  # the third has no partner, and no say
    assert lonely.isfinite()


def test_contrast_by_hand() -> None:
    features, labels = torch.eye(3), torch.tensor([5, 5, 9])
    # Each of the first two: one partner and one negative, all at cosine 0, so a half each.
    assert info_nce(features, labels).item() == pytest.approx(math.log(2))
