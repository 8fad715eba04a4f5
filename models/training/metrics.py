"""How good masks are, by each protocol of the field. They differ by 8 to 20 points on the same masks.

    PerImage        mIoU and F as AVSBench prints them: IoU a frame, F at the best threshold of a batch
    BinaryF         F of the mask that was answered: no threshold is picked with the truth in hand
    PerDataset      mIoU, F, FDR and accuracy of one confusion matrix over the split (CAVP, CPM)
    Semantic        AVSS: IoU and F a frame and class, `right` and `as released`
    FrameIoU        mean IoU over frames that have a truth: mIoU+ with the true sound, mIoU- with a wrong one
    FalsePositives  what a wrong sound lights: FPR (pIA), should be 0
    EmptyFrames     frames without truth that were answered with an empty mask

Each takes frames with `update(...)`, in any portions, and tells with `result()`; `protocol` belongs in the
head of every table. Nothing is kept per frame: counts and sums only. Tensors stay on their device until
they are counts. Truths are [n, H, W], 0 or 1 unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BETA2 = 0.3  # weighs precision over recall
THRESHOLDS = torch.linspace(0, 1 - 1e-10, 255)  # in float32 the last is 1
EPSILON = 2.220446049250313e-16  # spacing of doubles at 1

Result = dict[str, float]


class PerImage:
    """mIoU and F of AVSBench and all that compare with it.

    F is the best of 255 thresholds on the curve averaged over a batch, so it depends on the batch, which is
    why that belongs to the protocol: 5 frames (one clip) for AC-FPN, 20 for the official TPAVI scripts. A
    batch without any truth scores F = 0. Zero-shot masks go in as they are, 0 or 1: the sigmoid makes .5 and
    .73 of them, so that their F can never be less than that of the full mask.
    """

    def __init__(self, batch: int = 5) -> None:
        if batch < 1:
            raise ValueError(f"A batch has at least one frame, not {batch}.")
        self.batch = batch
        self.protocol = f"per-image, F over batches of {batch} frames"
        self.batches, self.iou, self.f = 0, 0.0, 0.0
        self._open()

    def _open(self) -> None:
        """Begin a batch. Its IoUs are kept until it is full, to be summed as the published code does."""
        self.ious: list[float] = []
        self.curve, self.seen = torch.zeros(len(THRESHOLDS)), 0

    def update(self, logits: Tensor, truth: Tensor) -> None:
        """Logits [n, H, W], or masks of 0 and 1."""
        _same_shape(logits, truth)
        probability = logits.float().sigmoid()
        ious, curves = frame_iou(probability > 0.5, truth).cpu(), f_curves(probability, truth)
        for iou, curve, empty in zip(ious.tolist(), curves, _empty(truth).tolist(), strict=True):
            self.ious.append(iou)
            if not empty:
                self.curve, self.seen = self.curve + curve, self.seen + 1
            if len(self.ious) == self.batch:
                self.iou, self.f = self.iou + self._batch_iou(), self.f + self._batch_f()
                self.batches += 1
                self._open()

    def _batch_iou(self) -> float:
        return (torch.tensor(self.ious).sum() / len(self.ious)).item()

    def _batch_f(self) -> float:
        return (self.curve / self.seen).max().item() if self.seen else 0.0

    def result(self) -> Result:
        """`mIoU` and `F`: means over batches, a last and shorter one included."""
        iou, f, batches = self.iou, self.f, self.batches
        if self.ious:
            iou, f, batches = iou + self._batch_iou(), f + self._batch_f(), batches + 1
        return {"mIoU": _quotient(iou, batches), "F": _quotient(f, batches)}


@dataclass
class BinaryF:
    """F of the answered masks, a mean over the frames that have a truth; an empty answer scores 0."""

    protocol: str = "per-image, binary F"
    total: float = 0.0
    frames: int = 0

    def update(self, mask: Tensor, truth: Tensor) -> None:
        """Masks [n, H, W] of True and False."""
        _same_shape(mask, truth)
        mask, truth = mask.bool(), truth.bool()
        hit = (mask & truth).sum((1, 2)).double()
        # F = 1.3 P R / (0.3 P + R), with P and R written out; no quotient of zeros where there is a truth.
        f = (1 + BETA2) * hit / (mask.sum((1, 2)) + BETA2 * truth.sum((1, 2)))
        kept = f[~_empty(truth)]
        self.total, self.frames = self.total + kept.sum().item(), self.frames + len(kept)

    def result(self) -> Result:
        return {"binary F": _quotient(self.total, self.frames)}


class PerDataset:
    """One confusion matrix over the whole split, the background a class like any other."""

    protocol = "per-dataset"
    IGNORED = 255

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64)  # [truth, answer]

    def update(self, labels: Tensor, truth: Tensor) -> None:
        """Class numbers [n, H, W], or masks; pixels whose truth is 255 do not count."""
        _same_shape(labels, truth)
        labels, truth = labels.long(), truth.long()
        kept = truth != self.IGNORED
        labels, truth = labels[kept], truth[kept]
        _within(self.classes, labels, truth)
        pairs = truth * self.classes + labels
        self.matrix += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, -1).cpu()

    def result(self) -> Result:
        """`mIoU`, `F` (beta^2 = 0.3), `F1`, `FDR`, `accuracy`; all but mIoU skip classes without a pixel."""
        matrix = self.matrix.double()
        hit = matrix.diagonal()
        extra, missed = matrix.sum(0) - hit, matrix.sum(1) - hit
        return {
            "mIoU": (hit / (hit + extra + missed + EPSILON)).mean().item() if matrix.any() else math.nan,
            "F": (1.3 * hit / (1.3 * hit + BETA2 * missed + extra)).nanmean().item(),
            "F1": (2 * hit / (2 * hit + missed + extra)).nanmean().item(),
            "FDR": (extra / (extra + hit)).nanmean().item(),
            "accuracy": (hit.sum() / matrix.sum()).item(),
        }


class Semantic:
    """AVSS: IoU and F of each frame and class, a mean over the frames where the class is in truth or answer.

    Three things of the released code are wrong, and both ways are told: it counts the slots that only pad a
    short clip (all background, answered right by force); its "noBg" leaves out the last class where the
    background is the first; and a class that never appears scores 0.
    """

    protocol = "per-image and class (AVSS)"

    def __init__(self, classes: int = 71) -> None:
        self.classes = classes
        # Sums over frames of IoU, F and whether the class appears. In double: single would lose digits over
        # a split of 15,000 frames. Row 0 for real frames, row 1 for padding.
        self.sums = torch.zeros(2, 3, classes, dtype=torch.float64)

    def update(self, labels: Tensor, truth: Tensor, real: Tensor | None = None) -> None:
        """Class numbers [n, H, W]; `real` [n] is False for frames that only pad their clip."""
        _same_shape(labels, truth)
        scores = class_scores(labels, truth, self.classes)  # [n, 3, classes]
        real = torch.ones(len(labels), dtype=torch.bool) if real is None else real.bool()
        self.sums[0] += scores[real.to(scores.device)].double().sum(0).cpu()
        self.sums[1] += scores[~real.to(scores.device)].double().sum(0).cpu()

    def result(self) -> Result:
        """`mIoU` and `F`, each also without the background, and all four `as released`."""
        result: Result = {}
        iou, f = self.sums[0, :2] / self.sums[0, 2]  # not a number: never seen, hence left out of the means
        both = self.sums.sum(0)
        released_iou, released_f = (both[:2] / both[2]).nan_to_num(0.0 if both.any() else math.nan)
        for name, right, released in (("mIoU", iou, released_iou), ("F", f, released_f)):
            result[name] = right.nanmean().item()
            result[f"{name} without background"] = right[1:].nanmean().item()
            result[f"{name} as released"] = released.mean().item()
            result[f"{name} without background as released"] = released[:-1].mean().item()
        return result


@dataclass
class FrameIoU:
    """Mean IoU over the frames that have a truth. With the true sound it is mIoU+; with a negative one
    (silence, noise, something off-screen) and the truth of the true sound, mIoU-, which should be low."""

    protocol: str = "per-image, frames with truth"
    total: float = 0.0
    frames: int = 0

    def update(self, mask: Tensor, truth: Tensor) -> None:
        """Masks [n, H, W] of True and False."""
        _same_shape(mask, truth)
        kept = frame_iou(mask.bool(), truth)[~_empty(truth)].double()
        self.total, self.frames = self.total + kept.sum().item(), self.frames + len(kept)

    def result(self) -> Result:
        return {"mIoU": _quotient(self.total, self.frames)}


@dataclass
class FalsePositives:
    """The share of all pixels that a sound lights which nothing in view makes."""

    protocol: str = "FPR under negative audio"
    lit: int = 0
    pixels: int = 0

    def update(self, mask: Tensor) -> None:
        """Masks [n, H, W] answered to negative audio."""
        self.lit, self.pixels = self.lit + int(mask.bool().sum()), self.pixels + mask.numel()

    def result(self) -> Result:
        return {"FPR": _quotient(self.lit, self.pixels)}


@dataclass
class EmptyFrames:
    """How often "nothing you can see is sounding" is answered where it is true."""

    protocol: str = "frames without truth"
    right: int = 0
    frames: int = 0

    def update(self, mask: Tensor, truth: Tensor) -> None:
        """Masks [n, H, W] of True and False."""
        _same_shape(mask, truth)
        empty = _empty(truth)
        self.right += int((empty & _empty(mask)).sum())
        self.frames += int(empty.sum())

    def result(self) -> Result:
        return {"empty-frame accuracy": _quotient(self.right, self.frames)}


def g_miou(positive: float, negative: float) -> float:
    """Harmonic mean of mIoU+ and 1 - mIoU-: a deaf model of mIoU p scores 2p(1 - p)."""
    silence = 1 - negative
    return 2 * positive * silence / (positive + silence) if positive + silence > 0 else 0.0


def frame_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """IoU [n] of masks [n, H, W]. Where the truth is empty: the share of pixels that are rightly dark."""
    mask, truth = mask.bool(), truth.bool()
    inside = torch.where(_empty(truth), (~mask & ~truth).sum((1, 2)), (mask & truth).sum((1, 2)))
    union = torch.where(_empty(truth), truth[0].numel() if len(truth) else 0, (mask | truth).sum((1, 2)))
    return inside / (union + 1e-7)


def precision_recall(probability: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall [n, 255] of the masks `probability >= threshold`, on the CPU.

    One pass instead of 255: each pixel is put into the bin of the last threshold that it reaches, and what
    reaches a threshold is what lies in its bin or above. Counts are whole numbers, so this is exact.
    """
    n, bins = len(probability), len(THRESHOLDS) + 1
    comparable = probability.nan_to_num(-1.0)  # what is not a number reaches no threshold
    reached = torch.bucketize(comparable, THRESHOLDS.to(probability.device), right=True)
    frame = torch.arange(n, device=probability.device)[:, None, None]
    slot = (frame * 2 + truth.bool()) * bins + reached
    counts = torch.bincount(slot.flatten(), minlength=n * 2 * bins).view(n, 2, bins).cpu()
    above = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    hit, answered = above[:, 1], above.sum(1)
    return hit / (answered + 1e-20), hit / (counts[:, 1].sum(-1, keepdim=True) + 1e-20)


def f_curves(probability: Tensor, truth: Tensor) -> Tensor:
    """F [n, 255] at each threshold, 0 where neither precision nor recall is."""
    precision, recall = precision_recall(probability, truth)
    return ((1 + BETA2) * precision * recall / (BETA2 * precision + recall)).nan_to_num(0.0)


def class_scores(labels: Tensor, truth: Tensor, classes: int) -> Tensor:
    """[n, 3, classes]: IoU and F of each class in each frame, and 1 where it is in truth or answer."""
    _within(classes, labels, truth)
    frame = torch.arange(len(labels), device=labels.device)[:, None, None]
    pairs = ((frame * classes + truth.long()) * classes + labels.long()).flatten()
    matrix = torch.bincount(pairs, minlength=len(labels) * classes**2).view(-1, classes, classes).float()
    hit, wanted, answered = matrix.diagonal(dim1=1, dim2=2), matrix.sum(2), matrix.sum(1)
    union = wanted + answered - hit
    precision, recall = hit / answered, hit / wanted
    f = ((1 + BETA2) * precision * recall / (BETA2 * precision + recall)).nan_to_num(0.0)
    return torch.stack([hit / (union + EPSILON), f, (union > 0).float()], dim=1)


def _empty(masks: Tensor) -> Tensor:
    return ~masks.bool().flatten(1).any(1)


def _same_shape(answer: Tensor, truth: Tensor) -> None:
    if answer.shape != truth.shape or answer.ndim != 3:
        shapes = f"{[*answer.shape]} and {[*truth.shape]}"
        raise ValueError(f"Answer and truth must both be [n, height, width]; they are {shapes}.")


def _within(classes: int, *labels: Tensor) -> None:
    """Counted as one number, a class too large would be taken for another pair of classes."""
    for each in labels:
        if each.numel() and not 0 <= int(each.min()) <= int(each.max()) < classes:
            span = f"{int(each.min())} to {int(each.max())}"
            raise ValueError(f"Labels must be 0 to {classes - 1}; they are {span}.")


def _quotient(total: float, count: int) -> float:
    """Not a number where there was nothing to count: a 0 would read like a result."""
    return total / count if count else math.nan
