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

from models.acfpn import ACFPN
from models.audioclip.audio import AudioScale
from models.errors import TrainingDiverged
from models.training.batches import CLASSES, Batch, Hints
from models.training.losses import ms3_loss, s4_loss
from models.training.recipes import LossName, Recipe

AUDIO, BACKBONE = "aclp.audio.", "aclp."  # how the names of their parameters begin
NEW_LAYER = "aclp.audio.fc."  # what ESResNeXt's file does not have, and so learns at the full rate
OVERLAP_WEIGHT = 0.5  # of the soft IoU beside the cross-entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Learner(nn.Module):
    """The network as it trains: images and sound to logits [n, H, W], the sound never in half precision.

    Decibels of quiet bins are differences of nearly equal products, which bf16 cannot hold.
    """

    def __init__(self, network: ACFPN, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.scale: AudioScale = recipe.audio_scale
        self.frozen = recipe.audio == "frozen"
        network.aclp.audio.requires_grad_(not self.frozen)
        if recipe.fixed_filters:
            network.aclp.audio.fbsp.requires_grad_(False)
        self.hints = HintLayers(network) if recipe.hints else None

    def train(self, mode: bool = True) -> Learner:
        """A truly frozen tower keeps its statistics; one that is merely left out does not."""
        super().train(mode)
        if self.frozen:
            self.network.aclp.audio.eval()
        return self

    def forward(self, images: Tensor, sound: Tensor) -> Answer:
        with torch.autocast(images.device.type, enabled=False):
            heard = self.network.aclp.encode_audio(sound.float(), self.scale)
        maps = self.network.aclp.visual(images).maps
        logits = self.network.decode(maps, heard)[:, 0].float()
        return Answer(logits, *(self.hints(maps, heard) if self.hints else ()))


class Answer(NamedTuple):
    """Logits of the masks [n, H, W]; and, while there are hints, of what is heard [n, classes] and of what
    every place shows, [n, 1 + classes, h, w] for each map that is asked."""

    logits: Tensor
    heard: Tensor | None = None
    seen: tuple[Tensor, ...] = ()


class HintLayers(nn.Module):
    """Names for what is heard, and for what is seen at strides 8 and 16."""

    MAPS = (1, 2)

    def __init__(self, network: ACFPN) -> None:
        super().__init__()
        config = network.config.audioclip
        self.heard = nn.Linear(config.embed, CLASSES)
        self.seen = nn.ModuleList(nn.Conv2d(config.image.channels[i], 1 + CLASSES, 1) for i in self.MAPS)

    def forward(self, maps: tuple[Tensor, ...], sound: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Image maps and audio features -> the latter part of `Answer`."""
        seen = tuple(layer(maps[i]) for i, layer in zip(self.MAPS, self.seen, strict=True))
        return self.heard(sound), seen


def hint_loss(answer: Answer, hints: Hints) -> Tensor:
    """Cross-entropies of what is heard, where that is known, and of what is seen."""
    assert answer.heard is not None
    known = F.binary_cross_entropy_with_logits(answer.heard, hints.heard, reduction="none")[hints.known]
    loss = known.sum() / max(1, len(known))
    for seen in answer.seen:
        labels = F.interpolate(hints.seen[:, None].float(), seen.shape[-2:], mode="nearest-exact")
        loss = loss + F.cross_entropy(seen, labels[:, 0].long())
    return loss


def first_frame(logits: Tensor, truth: Tensor, judged: Tensor) -> Tensor:  # noqa: ARG001
    """S4's."""
    return s4_loss(logits, truth)


def every_frame(logits: Tensor, truth: Tensor, judged: Tensor) -> Tensor:
    """MS3's, of the frames that have a truth to be judged by."""
    return ms3_loss(logits, truth) if judged.all() else ms3_loss(logits[judged], truth[judged])


def overlap(logits: Tensor, truth: Tensor, judged: Tensor) -> Tensor:
    """Cross-entropy, and 1 - IoU of the probabilities where something sounds: small things count too."""
    logits, truth = logits[judged], truth[judged]
    probability = logits.sigmoid()
    shared = (probability * truth).sum((1, 2))
    either = (probability + truth).sum((1, 2)) - shared
    sounding = truth.amax((1, 2)) > 0
    missed = (1 - shared / (either + 1)) * sounding
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    return entropy + OVERLAP_WEIGHT * missed.sum() / sounding.sum().clamp(min=1)


LOSSES: Mapping[LossName, Loss] = MappingProxyType(
    {"first-frame": first_frame, "every-frame": every_frame, "overlap": overlap}
)


def optimizer_for(learner: Learner, recipe: Recipe) -> Optimizer:
    """Adam: neck and head at the full rate, AudioCLIP at a part of it, its audio tower perhaps not at all."""
    fast: list[nn.Parameter] = list(learner.hints.parameters()) if learner.hints else []
    slow: list[nn.Parameter] = []
    for name, parameter in learner.network.named_parameters():
        new = recipe.audio_start == "esresnext" and name.startswith(NEW_LAYER)
        if new or not name.startswith(BACKBONE):
            fast.append(parameter)
        elif recipe.audio == "trained" or not name.startswith(AUDIO):
            slow.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in fast if p.requires_grad], "lr": recipe.rate},
        {"params": [p for p in slow if p.requires_grad], "lr": recipe.rate * recipe.backbone},
    ]
    for group in groups:
        group["full_rate"] = group["lr"]
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
    loss = LOSSES[recipe.loss](answer.logits, batch.truth, batch.judged)
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
