"""The published losses: AC-FPN's, TPAVI's with its audio-visual matching, AVSS's, and CAVP's contrast.

Masks are float 0 or 1, and sigmoids come before the cross-entropy as published. Matching (AVM) asks that what
a mask covers looks like what is heard: `audio` and `maps` are lists over the stages of a network, features
[n, C] and maps [n, C, h, w] of all n frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES_PER_CLIP = 5
MATCHING_WEIGHT = 0.5  # of the matching term beside the cross-entropy, in MS3 and AVSS
BACKGROUND = 0
SMALLEST_COSINE = 1e-6


def s4_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """S4 annotates the first frame of a clip: the others are computed and not judged.

    Logits [clips * 5, H, W]; masks {0, 1}, [clips, H, W] or one a frame.
    """
    if len(masks) == len(logits):
        masks = masks[::FRAMES_PER_CLIP]
    return ms3_loss(logits[::FRAMES_PER_CLIP], masks)


def ms3_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """MS3 annotates every frame: logits and masks {0, 1} [n, H, W]."""
    return F.binary_cross_entropy(torch.sigmoid(logits), masks)


def tpavi_ms3_loss(logits: Tensor, masks: Tensor, audio: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
    """MS3's loss and its matching. Logits and masks [n, H, W]."""
    return ms3_loss(logits, masks) + MATCHING_WEIGHT * ms3_matching(logits, audio, maps)


def ms3_matching(
    logits: Tensor, audio: Sequence[Tensor], maps: Sequence[Tensor], *, unit: bool = False
) -> Tensor:
    """Divergence of what is seen from what is heard: summed over frames, a mean over stages.

    `unit` brings both to length one first, a variant that the released command leaves off.
    """
    terms = []
    for heard, stage in zip(audio, maps, strict=True):
        seen = covered(stage, torch.sigmoid(pooled(logits, stage)))
        heard, seen = (F.normalize(heard), F.normalize(seen)) if unit else (heard, seen)
        terms.append(divergence(heard, seen).sum())
    return torch.stack(terms).mean()


def ms3_nearest_matching(logits: Tensor, audio: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
    """The variant "closer": a frame should look like the frame that sounds most like it."""
    terms = []
    for heard, stage in zip(audio, maps, strict=True):
        seen = F.normalize(covered(stage, torch.sigmoid(pooled(logits, stage))))
        unlike = torch.cdist(F.normalize(heard), F.normalize(heard)).fill_diagonal_(torch.inf)
        terms.append(divergence(seen[unlike.argmin(0)], seen).sum())
    return torch.stack(terms).mean()


def s4_matching(logits: Tensor, audio: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
    """S4's optional term, off as released: minus the logarithm of the cosine of seen and heard, under a mask
    of zeros and ones."""
    terms = []
    for heard, stage in zip(audio, maps, strict=True):
        mask = (pooled(torch.sigmoid(logits), stage) > 0.5).float()
        cosine = F.cosine_similarity(heard, covered(stage, mask))
        terms.append(-(cosine.relu() + SMALLEST_COSINE).log().mean())
    return torch.stack(terms).mean()


def avss_loss(logits: Tensor, labels: Tensor, annotated: Tensor) -> Tensor:
    """Cross-entropy of the frames whose `annotated` [n] is 1: logits [n, classes, H, W], labels [n, H, W]."""
    per_frame = F.cross_entropy(logits, labels, reduction="none").mean((1, 2))
    return weighted(per_frame, annotated)


def avss_matching(
    logits: Tensor, audio: Sequence[Tensor], maps: Sequence[Tensor], annotated: Tensor
) -> Tensor:
    """Matching under the answer, anything but background, of the annotated frames; a mean over stages."""
    sounding = (logits.argmax(1) != BACKGROUND).float()
    terms = [
        weighted(divergence(heard, covered(stage, pooled(sounding, stage))), annotated)
        for heard, stage in zip(audio, maps, strict=True)
    ]
    return torch.stack(terms).mean()


def info_nce(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """CAVP's supervised contrast: unit features [n, C], each to be like those of its label [n].

    The denominator of a pair holds that pair and all negatives, not the other positives. Features without a
    partner do not count.
    """
    logits = features @ features.T / temperature
    logits = logits - logits.amax(1, keepdim=True).detach()  # against overflow; it cancels
    same = labels[:, None] == labels[None, :]
    partners = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    negatives = (logits.exp() * ~same).sum(1, keepdim=True)
    likelihood = logits - (logits.exp() + negatives).log()
    count = partners.sum(1)
    return -((likelihood * partners).sum(1)[count > 0] / count[count > 0]).mean()


def pooled(images: Tensor, stage: Tensor) -> Tensor:
    """Images [n, H, W] by average pooling to the size of a stage's maps: [n, 1, h, w]."""
    return F.adaptive_avg_pool2d(images[:, None], (stage.shape[-2], stage.shape[-1]))


def covered(stage: Tensor, masks: Tensor) -> Tensor:
    """Maps [n, C, h, w] under masks [n, 1, h, w], a mean over all places: [n, C]."""
    return (stage * masks).mean((2, 3))


def divergence(target: Tensor, features: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(features)) of each row: [n, C] and [n, C] -> [n]."""
    return F.kl_div(features.log_softmax(1), target.softmax(1), reduction="none").sum(1)


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of [n] by weights [n]."""
    return (values * weights).sum() / weights.sum()
