"""avss.npz: AVSS's metrics and losses, its palette, and CAVP's per-dataset metrics of the same answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.datasets.labels import palette
from models.training.losses import avss_loss, avss_matching
from models.training.metrics import PerDataset, Semantic, class_scores, frame_iou
from tests.parity.golden import Arrays, Golden
from tests.parity.row import FEATURES, Row, absolute, exact, relative

# Inputs of the matching term, which the file does not hold: the seeds, and the sizes of four stages.
AUDIO_SEED, MAPS_SEED = 140, 150
CHANNELS, STAGES = 16, (12, 6, 3, 2)
DECIMALS = 4  # to which the file rounds `cavp_perf`
CAVP_NAMES = {"miou": "mIoU", "acc": "accuracy", "fdr": "FDR", "f1": "F1", "f0.3": "F"}


def rows(golden: Golden) -> Iterator[Row]:
    """The number of classes is that of the logits."""
    want = golden.arrays("avss")
    logits, truth = torch.from_numpy(want["logits"]), torch.from_numpy(want["target"]).long()
    flag = torch.from_numpy(want["flag"])
    for name, ours in (("logits", logits), ("target", truth), ("flag", flag)):
        yield exact(name, ours, want[name])  # inputs
    answer = logits.argmax(1)
    yield from semantic(want, answer, truth, logits.shape[1])
    yield from cavp(want, answer, truth, logits.shape[1])
    yield relative("loss_ce", avss_loss(logits, truth, flag), want["loss_ce"], FEATURES)
    audio = [golden.normal(AUDIO_SEED + i, len(flag), CHANNELS) for i in range(len(STAGES))]
    maps = [golden.normal(MAPS_SEED + i, len(flag), CHANNELS, side, side) for i, side in enumerate(STAGES)]
    yield relative("loss_avm_kl", avss_matching(logits, audio, maps, flag), want["loss_avm_kl"], FEATURES)
    yield exact("palette", palette(len(want["palette"])), want["palette"])


def semantic(want: Arrays, answer: Tensor, truth: Tensor, classes: int) -> Iterator[Row]:
    """Sums over frames: ours are in double, hence the tolerance of single precision's sums."""
    metric = Semantic(classes)
    metric.update(answer, truth)
    for name, ours in zip(("iou_sum", "f_sum", "cls_count"), metric.sums[0], strict=True):
        yield relative(name, ours, want[name], 1e-6)
    iou = class_scores(answer, truth, classes)[:, 0]
    yield relative("vid_miou", iou.sum(1) / (iou != 0).sum(1), want["vid_miou"], 1e-6)
    # As released, the last class is taken for the background.
    last = classes - 1
    yield relative("binary_miou", frame_iou(answer != last, truth != last).mean(), want["binary_miou"], 1e-6)


def cavp(want: Arrays, answer: Tensor, truth: Tensor, classes: int) -> Iterator[Row]:
    """One confusion matrix over all frames."""
    metric = PerDataset(classes)
    metric.update(answer, truth)
    result = metric.result()
    names = [str(name) for name in want["cavp_perf_names"]]
    yield exact(
        "cavp_perf_names", np.array([name for name in names if name in CAVP_NAMES]), want["cavp_perf_names"]
    )
    ours = [round(result[CAVP_NAMES[name]], DECIMALS) for name in names]
    yield absolute("cavp_perf", ours, want["cavp_perf"], 1e-9)
