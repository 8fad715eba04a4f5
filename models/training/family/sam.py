"""SAM, tiny: points and boxes to masks, learnt from the objects of SynthAVS whether they sound or not.

A step shows a few frames; each is encoded once and asked many questions, of the kinds that strategies ask:
loose boxes, single points (also beside any object), and the brightest and darkest places of a rough heat map.
The quality head learns the IoU with an object: a point on the background gets the background as its mask and
0 as its quality, so that a grid of points keeps objects alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batching import Batcher
from models.datasets.drawing import draw
from models.datasets.scenes import SynthConfig
from models.datasets.synthavs import SynthAVS
from models.prompting import Prompting
from models.sam import Sam, build
from models.training.family.hints import HINTS, hint_loss, hints
from models.training.family.questions import (
    COUNTS,
    Picture,
    Question,
    boxes,
    exam,
    heat_points,
    iou,
    single_points,
)
from models.training.family.task import Plan

SHARPNESS = 8.0  # logits per unit of log odds: an edge must be firm enough for the grid's stability filter
FOCUS = 20.0  # weight of the focal loss beside dice, as SAM
RUNNERS_UP = 0.4  # weight of all three masks of a point beside the best one
BACKGROUND = 0.3  # weight of a mask whose point lies on no object
SHAPES = tuple(
    SynthConfig(size=size, aspect=aspect, area=(0.015, 0.45), tracks=1)
    for size, aspect in (
        (96, 1.0),
        (96, 1.0),
        (128, 1.0),
        (96, 4 / 3),
        (160, 1.0),
        (108, 16 / 9),
        (192, 0.75),
    )
)
# What scores begin with -> the pictures of a validation; the second kind wears textures never trained on.
EXAMS = {"": SynthConfig(tracks=1), "new_": SynthConfig(tracks=1, texture="held-out")}
MANY = 1 << 30  # clips: every step draws new ones
VALIDATION = 40  # frames of each kind

Asked = dict[str, Tensor]


def task(steps: int | None = None, seed: int = 0) -> SamTask:
    """Less than half an hour of one core."""
    return SamTask(Plan(steps=steps or 4000, batch=8, best="mean", rate=1.5e-3, seed=seed))


class SamTask:
    """A `Task`."""

    name = "sam-tiny"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self._network = build(self.name)
            initialise(self._network)
            channels = self._network.config.vision_config.output_channels
            self._learner = nn.ModuleDict({"network": self._network, "hints": nn.Conv2d(channels, HINTS, 1)})
        self._sam = Sam(self._network, identity="in training")
        self._data = [SynthAVS("train", MANY, seed=plan.seed, config=config) for config in SHAPES]

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self._network
        return network

    @property
    def learner(self) -> nn.Module:
        return self._learner

    def batch(self, step: int) -> dict[str, Any]:
        """`pixels` [f, 3, s, s], `truths` [t, s/4, s/4] of 0..1, and the questions of each kind."""
        random = np.random.default_rng((self.plan.seed, step))
        first = step * self.plan.batch
        pictures = [self.picture(clip, random) for clip in range(first, first + self.plan.batch)]
        count = COUNTS[random.integers(len(COUNTS))]
        kinds = {
            "box": [boxes(picture, random) for picture in pictures],
            "point": [single_points(picture, random) for picture in pictures],
            "heat": [heat_points(picture, random, count) for picture in pictures],
        }
        truths = [picture.truths(self._sam) for picture in pictures]
        return {
            "pixels": torch.stack([picture.pixels for picture in pictures]),
            "truths": torch.cat(truths),
            "hints": torch.stack([hints(each) for each in truths]),
        } | {kind: self._asked(pictures, questions) for kind, questions in kinds.items()}

    def picture(self, clip: int, random: np.random.Generator) -> Picture:
        """A frame at any moment of a clip; nothing else of it is drawn."""
        data = self._data[random.integers(len(self._data))]
        frames, instances = draw(data.scene(clip), data.config, (random.random() * data.config.seconds,))
        return Picture.of(frames[0], instances[0], self._sam)

    def _asked(self, pictures: list[Picture], questions: list[list[Question]]) -> Asked:
        """Of one kind: `frame` and `truth` [m] that each is about, `object` [m] whether that is one, and
        `boxes` [m, 4], or `points` [m, n, 2] and `labels` [m, n], in pixels of the network."""
        rows: list[dict[str, Any]] = []
        first = 0
        for frame, (picture, mine) in enumerate(zip(pictures, questions, strict=True)):
            fitted = self._sam.fitted(picture.size)
            scale = np.array([fitted[1] / picture.size[1], fitted[0] / picture.size[0]])
            for prompt, answer in mine:
                row = {"frame": frame, "truth": first + answer, "object": answer < len(picture.masks) - 1}
                if prompt.box is not None:
                    rows.append(row | {"boxes": np.float32(np.array(prompt.box) * np.tile(scale, 2))})
                elif prompt.points is not None:
                    rows.append(row | {"points": np.float32(prompt.points * scale), "labels": prompt.labels})
            first += len(picture.masks)
        return {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        embeddings = self._network.vision_encoder(batch["pixels"]).last_hidden_state
        losses, quality = {}, []
        for kind in ("box", "point", "heat"):
            asked = batch[kind]
            logits, scores = self._sam.answer(
                embeddings[asked["frame"]],
                asked.get("points"),
                asked.get("labels"),
                asked.get("boxes"),
                multimask=kind != "box",
            )
            truth, objects = batch["truths"][asked["truth"]][:, None], asked["object"]
            each = mask_losses(logits / SHARPNESS, truth)  # [m, k]
            weight = torch.where(objects, 1.0, BACKGROUND)
            losses[kind] = (weight * (each.min(1).values + RUNNERS_UP * each.mean(1))).mean()
            quality.append(F.mse_loss(scores, overlap(logits, truth) * objects[:, None]))
        hinted = hint_loss(self._learner["hints"](embeddings), batch["hints"])
        return losses | {"quality": torch.stack(quality).mean(), "hints": hinted}

    def scores(self) -> dict[str, float]:
        """`examined` on each kind of picture."""
        told: dict[str, float] = {}
        for prefix, config in EXAMS.items():
            data = SynthAVS("val", MANY, seed=self.plan.seed, config=config)
            found = examined(Sam(self._network, identity="in training"), data, VALIDATION)
            told |= {prefix + name: value for name, value in found.items()}
        return told


def examined(sam: Sam, data: SynthAVS, clips: int) -> dict[str, float]:
    """Mean IoU at full size of each kind of question, as strategies ask them; how far the quality is off."""
    prompting, random = Prompting(sam, Batcher()), np.random.default_rng(7)
    overlaps: dict[str, list[float]] = defaultdict(list)
    errors: list[float] = []
    for clip in range(clips):
        frames, instances = draw(data.scene(clip), data.config, (random.random() * data.config.seconds,))
        picture = Picture.of(frames[0], instances[0], sam)
        for kind, questions in exam(picture, random).items():
            prompts = [question.prompt for question in questions]
            (segments,) = prompting(frames, [prompts], multimask=kind != "box")
            for question, segment in zip(questions, segments, strict=True):
                overlaps[kind].append(iou(segment.mask, picture.masks[question.answer]))
                errors.append(abs(overlaps[kind][-1] - segment.quality))
    told = {kind: float(np.mean(values)) for kind, values in overlaps.items()}
    return told | {"mean": float(np.mean(list(told.values()))), "quality_error": float(np.mean(errors))}


def initialise(network: Any) -> None:  # noqa: ANN401  (transformers names no types)
    """As the authors' code: transformers' own values suit only a network that is about to be loaded."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            module.reset_parameters()
    frequencies = network.shared_image_embedding.positional_embedding  # also those of the prompts
    nn.init.normal_(frequencies.requires_grad_(False))
    nn.init.trunc_normal_(network.vision_encoder.pos_embed, std=0.02)


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal and dice loss of each mask [m, k]; truth [m, 1, s, s] says how much of a cell is covered."""
    probability = logits.sigmoid()
    truth = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = ((probability - truth) ** 2 * entropy).mean((-2, -1))
    both = (probability * truth).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (probability.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
    return FOCUS * focal + dice


@torch.no_grad()
def overlap(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of each mask [m, k] with its truth [m, 1, s, s]."""
    found, true = logits > 0, truth > 0.5
    return (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp(min=1)
