"""metrics.npz: per-image mIoU and F of several answers, precision, recall, the losses of S4 and MS3."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from models.training import losses
from models.training.metrics import THRESHOLDS, PerImage, frame_iou, precision_recall
from tests.parity.golden import Arrays, Golden
from tests.parity.row import FEATURES, Row, exact, relative

# Inputs of the losses, which the file does not hold: the seeds, and the sizes of four stages.
LOGITS_SEED, MASKS_SEED, AUDIO_SEED, MAPS_SEED = 6, 7, 40, 50
FRAMES, SIZE, CHANNELS, STAGES = 10, 32, 16, (16, 8, 4, 2)


def rows(golden: Golden) -> Iterator[Row]:
    """Metrics are the reference's to the bit: the same operations in single precision and the same order."""
    want = golden.arrays("metrics")
    logits, truth = torch.from_numpy(want["logits"]), torch.from_numpy(want["gt"]).float()
    yield exact("logits", logits, want["logits"])  # an input
    yield exact("gt", truth, want["gt"])  # an input
    yield exact("thresholds", THRESHOLDS, want["thresholds"])
    precision, recall = precision_recall(logits.sigmoid(), truth)
    yield exact("prec0", precision[0], want["prec0"])
    yield exact("rec0", recall[0], want["rec0"])
    for name, answer in answers(logits, truth).items():
        yield from scores(want, name, answer, truth)
    yield from loss_rows(golden, want)


def answers(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What is judged: logits, and masks given as if they were logits."""
    return {
        "logits": logits,
        "binary": (logits > 0).float(),
        "bool": logits > 0,
        "ones": torch.ones_like(logits),
        "zeros": torch.zeros_like(logits),
        "gt01": truth,
        "gt_pm": truth * 2 - 1,
    }


def scores(want: Arrays, name: str, answer: Tensor, truth: Tensor) -> Iterator[Row]:
    """All frames as one batch, those with a truth, and those without."""
    empty = ~truth.bool().flatten(1).any(1)
    for subset, kept in (("all", empty | True), ("noempty", ~empty), ("onlyempty", empty)):
        metric = PerImage(batch=int(kept.sum()))
        metric.update(answer[kept], truth[kept])
        ours = metric.result()
        yield exact(f"{name}_{subset}", [ours["mIoU"], ours["F"]], want[f"{name}_{subset}"])
    ious = frame_iou(answer.float().sigmoid() > 0.5, truth)
    yield exact(f"{name}_iou_per_frame", ious, want[f"{name}_iou_per_frame"])


def loss_rows(golden: Golden, want: Arrays) -> Iterator[Row]:
    """S4's and MS3's losses, and every variant of matching."""
    logits = golden.normal(LOGITS_SEED, FRAMES, SIZE, SIZE)
    masks = (golden.normal(MASKS_SEED, FRAMES, SIZE, SIZE) > 0).float()
    audio = [golden.normal(AUDIO_SEED + i, FRAMES, CHANNELS) for i in range(len(STAGES))]
    maps = [golden.normal(MAPS_SEED + i, FRAMES, CHANNELS, side, side) for i, side in enumerate(STAGES)]
    ours = {
        "s4_bce": losses.s4_loss(logits, masks),
        "s4_sa": losses.s4_matching(logits, audio, maps),
        "ms3_bce": losses.ms3_loss(logits, masks),
        "ms3_kl": losses.ms3_matching(logits, audio, maps),
        "ms3_kl_norm": losses.ms3_matching(logits, audio, maps, unit=True),
        "ms3_total": losses.tpavi_ms3_loss(logits, masks, audio, maps),
        "ms3_closer_kl": losses.ms3_nearest_matching(logits, audio, maps),
    }
    for name, loss in ours.items():
        yield relative(f"loss_{name}", loss, want[f"loss_{name}"], FEATURES)
