"""Metrics against golden values, naive formulas, and what each of them is meant to tell."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.training.metrics import (
    THRESHOLDS,
    BinaryF,
    EmptyFrames,
    FalsePositives,
    FrameIoU,
    PerDataset,
    PerImage,
    Semantic,
    f_curves,
    frame_iou,
    g_miou,
)
from tests.parity import avss, cavp, metrics
from tests.parity.golden import DEFAULT, Golden


@pytest.mark.parametrize("group", [metrics, avss, cavp], ids=lambda group: group.__name__.split(".")[-1])
def test_golden_values(group) -> None:
    assert [str(row) for row in group.rows(Golden(DEFAULT)) if not row.ok] == []


def scene(frames: int = 10, size: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that know something of a random truth; every fourth frame has no truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(frames, size, size, generator=generator) > 0.7
    truth[::4] = False
    return 2 * truth + torch.randn(frames, size, size, generator=generator) - 1, truth


def test_one_pass_gives_the_f_of_255_thresholds() -> None:
    logits, truth = scene()
    probability = logits.sigmoid()
    probability[1, 0] = THRESHOLDS[100:140]  # exactly on a threshold
    for frame, wanted, curve in zip(probability, truth.float(), f_curves(probability, truth), strict=True):
        masks = (frame >= THRESHOLDS[:, None, None]).float()
        hit = (masks * wanted).sum((1, 2))
        precision, recall = hit / (masks.sum((1, 2)) + 1e-20), hit / (wanted.sum() + 1e-20)
        naive = (1.3 * precision * recall / (0.3 * precision + recall)).nan_to_num(0)
        assert torch.equal(curve, naive)


def test_portions_do_not_matter_but_batches_do() -> None:
    logits, truth = scene(frames=12)
    results = []
    for batch, portion in ((5, 12), (5, 1), (5, 7), (12, 12)):
        metric = PerImage(batch)
        for start in range(0, 12, portion):
            metric.update(logits[start : start + portion], truth[start : start + portion])
        results.append(metric.result())
    assert results[0] == results[1] == results[2]
    assert results[3]["F"] != results[0]["F"]
    assert PerImage(20).protocol != PerImage(5).protocol


def test_per_image_keeps_nothing_per_frame() -> None:
    metric = PerImage(5)
    for _ in range(4):
        metric.update(*scene(frames=25))
    assert metric.ious == []
    assert metric.batches == 20


def test_published_quirks() -> None:
    truth = torch.zeros(1, 10, 10)
    answer = torch.zeros(1, 10, 10)
    answer[:, 0] = 1  # a false blob of a tenth of a silent frame
    assert frame_iou(answer, truth).item() == pytest.approx(0.9)
    silent = PerImage(1)
    silent.update(answer, truth)
    assert silent.result()["F"] == 0.0
    truth[:, 5:] = 1
    full, wrong = PerImage(1), PerImage(1)
    full.update(torch.ones_like(truth), truth)
    wrong.update(1 - truth, truth)  # not one pixel right, and yet the F of the full mask
    assert wrong.result()["F"] == full.result()["F"] > 0.5


def test_binary_f_by_hand() -> None:
    truth = torch.zeros(3, 10, 10, dtype=torch.bool)
    truth[:2, :4] = True  # 40 pixels; the third frame has none and does not count
    mask = torch.zeros_like(truth)
    mask[0, 2:5] = True  # 30 pixels, 20 of them right: P = 2/3, R = 1/2
    mask[2] = True
    metric = BinaryF()
    metric.update(mask, truth)
    assert metric.result()["binary F"] == pytest.approx((1.3 * (2 / 3) * 0.5 / (0.3 * (2 / 3) + 0.5) + 0) / 2)


def test_per_dataset_by_hand() -> None:
    truth = torch.tensor([[[0, 0, 1, 1, 255]]])
    metric = PerDataset(classes=3)
    metric.update(torch.tensor([[[0, 1, 1, 1, 2]]]), truth)  # the ignored pixel is wrong, and does not count
    result = metric.result()
    assert result["mIoU"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)  # the class without a pixel counts as 0
    assert result["FDR"] == pytest.approx((0 / 1 + 1 / 3) / 2)  # ... and here not at all
    assert result["F"] == pytest.approx((1.3 / (1.3 + 0.3) + 2.6 / (2.6 + 1)) / 2)
    assert result["accuracy"] == pytest.approx(3 / 4)


def test_semantic_right_and_as_released() -> None:
    truth = torch.zeros(2, 1, 4, dtype=torch.int64)
    truth[0, 0] = torch.tensor([0, 0, 1, 1])
    answer = truth.clone()
    answer[0, 0, 1] = 1  # IoU 1/2 of class 0, 2/3 of class 1; the second frame is padding
    metric = Semantic(classes=4)
    metric.update(answer, truth, real=torch.tensor([True, False]))
    result = metric.result()
    assert result["mIoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result["mIoU without background"] == pytest.approx(2 / 3)
    # Padding makes (1/2 + 1) / 2 of the background; classes never seen are 0; and the last one is left out.
    assert result["mIoU as released"] == pytest.approx((3 / 4 + 2 / 3) / 4)
    assert result["mIoU without background as released"] == pytest.approx((3 / 4 + 2 / 3) / 3)


def test_a_deaf_model_scores_2p_1_minus_p() -> None:
    logits, truth = scene()
    heard, muted = FrameIoU(), FrameIoU()
    for metric in (heard, muted):  # deaf: the same answer to any sound
        metric.update(logits > 0, truth)
    p = heard.result()["mIoU"]
    assert g_miou(p, muted.result()["mIoU"]) == pytest.approx(2 * p * (1 - p))
    assert g_miou(0.8, 0.0) > g_miou(0.8, 0.8)
    assert g_miou(0.0, 1.0) == 0.0


def test_silence_should_light_nothing() -> None:
    rate, empty = FalsePositives(), EmptyFrames()
    truth = torch.zeros(4, 8, 8, dtype=torch.bool)
    truth[3] = True
    mask = truth.clone()
    mask[0, :2] = True
    rate.update(mask[:2])
    empty.update(mask, truth)
    assert rate.result() == {"FPR": 16 / 128}
    assert empty.result() == {"empty-frame accuracy": 2 / 3}


@pytest.mark.parametrize(
    "metric",
    [PerImage(5), BinaryF(), FrameIoU(), FalsePositives(), EmptyFrames(), PerDataset(), Semantic()],
    ids=lambda metric: type(metric).__name__,
)
def test_nothing_counted_is_not_a_number(metric) -> None:
    assert all(math.isnan(value) for value in metric.result().values())


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4, 4\] and \[1, 4, 5\]"):
        PerImage(5).update(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))


@pytest.mark.parametrize("portion", [1, 2, 7, 23])
def test_streams_tell_what_one_pass_tells(portion: int) -> None:
    """Oblong frames, some of them without a truth, an empty portion at the end."""
    random = torch.Generator().manual_seed(8)
    truth = torch.randn(23, 9, 13, generator=random) > 1
    truth[[3, 7]] = False
    labels, classes = (torch.randint(5, truth.shape, generator=random) for _ in range(2))
    for make, answer, wanted in (
        (PerImage, torch.randn(truth.shape, generator=random), truth),
        (BinaryF, ~truth, truth),
        (PerDataset, labels > 2, truth),
        (lambda: Semantic(5), labels, classes),
        (FrameIoU, labels > 2, truth),
        (EmptyFrames, labels > 9, truth),
    ):
        whole, parts = make(), make()
        whole.update(answer, wanted)
        for start in range(0, 24, portion):
            parts.update(answer[start : start + portion], wanted[start : start + portion])
        assert parts.result() == pytest.approx(whole.result(), rel=1e-12)


def test_what_is_not_a_number_is_no_answer() -> None:
    metric = PerImage(1)
    metric.update(torch.full((1, 2, 2), math.nan), torch.ones(1, 2, 2))
    assert metric.result() == {"mIoU": 0.0, "F": 0.0}


@pytest.mark.parametrize("metric", [PerDataset(), Semantic()], ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("label", [-1, 71, 300])
def test_a_class_that_is_none_is_refused(metric, label: int) -> None:
    good, bad = torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), label)
    for answer, truth in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match=rf"they are {label} to {label}"):
            metric.update(answer, truth)
    assert all(math.isnan(value) for value in metric.result().values()), "a refused frame was counted"


def test_a_batch_of_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame, not 0"):
        PerImage(0)
