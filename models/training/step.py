"""One step of training: what is computed, judged and moved. The golden values of `train_step.npz` are made
by this very code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from models.errors import TrainingDiverged
from models.training.batches import Batch, Hints
from models.training.learners import Answer, Learner
from models.training.losses import MATCHING_WEIGHT, ms3_loss, ms3_matching, s4_loss, s4_matching
from models.training.recipes import LossName, Recipe

OVERLAP_WEIGHT = 0.5  # of the soft IoU beside the cross-entropy

Loss = Callable[[Answer, Tensor, Tensor], Tensor]


def hint_loss(answer: Answer, hints: Hints) -> Tensor:
    """Cross-entropies of what is heard, where that is known, and of what is seen."""
    assert answer.heard is not None
    known = F.binary_cross_entropy_with_logits(answer.heard, hints.heard, reduction="none")[hints.known]
    loss = known.sum() / max(1, len(known))
    for seen in answer.seen:
        labels = F.interpolate(hints.seen[:, None].float(), seen.shape[-2:], mode="nearest-exact")
        loss = loss + F.cross_entropy(seen, labels[:, 0].long())
    return loss


def first_frame(answer: Answer, truth: Tensor, judged: Tensor) -> Tensor:  # noqa: ARG001  (a `Loss` like the others)
    """S4's."""
    return s4_loss(answer.logits, truth)


def every_frame(answer: Answer, truth: Tensor, judged: Tensor) -> Tensor:
    """MS3's, of the frames that have a truth to be judged by."""
    logits = answer.logits
    return ms3_loss(logits, truth) if judged.all() else ms3_loss(logits[judged], truth[judged])


def overlap(answer: Answer, truth: Tensor, judged: Tensor) -> Tensor:
    """Cross-entropy, and 1 - IoU of the probabilities where something sounds: small things count too."""
    logits, truth = answer.logits[judged], truth[judged]
    probability = logits.sigmoid()
    shared = (probability * truth).sum((1, 2))
    either = (probability + truth).sum((1, 2)) - shared
    sounding = truth.amax((1, 2)) > 0
    missed = (1 - shared / (either + 1)) * sounding
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    return entropy + OVERLAP_WEIGHT * missed.sum() / sounding.sum().clamp(min=1)


def first_frame_matching(answer: Answer, truth: Tensor, judged: Tensor) -> Tensor:
    """S4's with its optional term, which all frames take part in."""
    assert answer.matched is not None, "only TPAVI tells what it matches"
    matching = s4_matching(answer.logits, *answer.matched)
    return first_frame(answer, truth, judged) + MATCHING_WEIGHT * matching


def every_frame_matching(answer: Answer, truth: Tensor, judged: Tensor) -> Tensor:
    """MS3's with its term, which all frames take part in."""
    assert answer.matched is not None, "only TPAVI tells what it matches"
    matching = ms3_matching(answer.logits, *answer.matched)
    return every_frame(answer, truth, judged) + MATCHING_WEIGHT * matching


LOSSES: Mapping[LossName, Loss] = MappingProxyType(
    {
        "first-frame": first_frame,
        "every-frame": every_frame,
        "overlap": overlap,
        "first-frame-matching": first_frame_matching,
        "every-frame-matching": every_frame_matching,
    }
)


def optimizer_for(learner: Learner, recipe: Recipe) -> Optimizer:
    """Adam, and AdamW where weights decay; every group remembers its full rate."""
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in group.parameters if p.requires_grad],
            "lr": group.rate,
            "full_rate": group.rate,
        }
        for group in learner.groups(recipe)
    ]
    return AdamW(groups, weight_decay=recipe.decay) if recipe.decay else Adam(groups)


def factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at a step of `steps`; 1 throughout in the published runs."""
    rising = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    falling = 0.5 * (1 + math.cos(math.pi * step / steps)) if recipe.cosine else 1.0
    return rising * falling


class Outcome(NamedTuple):
    """Of one step: the loss, and the logits [n, H, W] that it judged."""

    loss: float
    logits: Tensor


def update(
    learner: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    recipe: Recipe,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> Outcome:
    """Forward, loss, backward, and a step of the optimiser; gradients stay for whoever looks at them.

    Nothing moves when the loss or a gradient is not a number: TrainingDiverged.
    """
    learner.zero_grad()  # of what is left out of the optimiser too
    answer = learner(batch.images, batch.sound)
    loss = LOSSES[recipe.loss](answer, batch.truth, batch.judged)
    if batch.hints is not None:
        loss = loss + recipe.hints * hint_loss(answer, batch.hints)
    backward(loss)
    moving = [p for group in optimizer.param_groups for p in group["params"]]
    norm = gradient_norm(moving)
    if not math.isfinite(loss.item()) or not math.isfinite(norm):
        raise TrainingDiverged(f"The loss is {loss.item():g} and the norm of the gradients {norm:g}.")
    if recipe.clip is not None and norm > recipe.clip:
        for parameter in moving:
            if parameter.grad is not None:
                parameter.grad.mul_(recipe.clip / norm)
    optimizer.step()
    return Outcome(loss.item(), answer.logits.detach())


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()
