"""Grounding DINO from nothing: a phrase to boxes, on pictures of SynthAVS.

A DETR learns slowly where few queries answer for few objects. So the two sides learn first without each
other, by layers that are thrown away at the end: every place of an image what it shows and how large that
is, every phrase what it means. Then pairs of picture and phrase go through the whole network: its places
answer for objects near them, its queries for one object each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from torch import Tensor, nn

from models import grounding_dino as dino
from models.datasets.kinds import CLASS_NAMES, CLASSES
from models.datasets.scenes import SynthConfig
from models.datasets.synthavs import SPLITS
from models.grounding_dino import GroundingDino
from models.grounding_dino_configs import build
from models.grounding_dino_passes import Answer, ImageFeatures, TextFeatures, answers, read, see
from models.suppliers import caption
from models.text_tokens import tiny_bert
from models.training.family import boxes as geometry
from models.training.family.captions import of_class, of_nothing, strangers
from models.training.family.pictures import Picture, picture, setting
from models.training.family.task import Plan

STEPS, PICTURES = 4000, 16
ALONE = 0.4  # of the steps, in which the two sides learn without each other
NOBODY = -1  # the class of a question that no picture answers
STRANGERS = 12  # questions of a step that no picture answers
SEEN = 40  # pictures of the validation split that are looked at
UNLIKELY = 4.0  # everything starts from one place in fifty showing what is asked for
OPEN = 0.1  # how far fusion is open at first; as published it opens over many epochs
CALM = 0.25  # length of what is compared with the text at first, so that it does not say yes or no aloud


class Batch(NamedTuple):
    """n pictures, q questions, and which p pairs of them go through the whole network.

    `pixels` float [n, 3, h, w]; `ids` int64 [q, t], 0 being padding; `asked` int64 [q] the class of each
    question or NOBODY; `kinds` int64 [n, k] and `boxes` float [n, k, 4] the things of each picture, filled up
    with NOBODY and boxes of no size; `pairs` int64 [p, 2].
    """

    pixels: Tensor
    ids: Tensor
    asked: Tensor
    kinds: Tensor
    boxes: Tensor
    pairs: Tensor


class Tokens(NamedTuple):
    """Of p captions: which of their t tokens are `real`, and which of these are `words`, bool [p, t]."""

    real: Tensor
    words: Tensor


class Chosen(NamedTuple):
    """Which places or queries answer for an object: their pair [m], their number [m], the box [m, 4]."""

    pair: Tensor
    number: Tensor
    box: Tensor


class Learner(nn.Module):
    """The network, and layers that read out of either side alone which class it means.

    Both sides are read with the same directions, one for each class, so that they come to lie close to each
    other before they ever meet.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.place, self.phrase = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classes = nn.Linear(width, CLASSES)
        nn.init.constant_(self.classes.bias, -UNLIKELY)
        self.extent = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )


class GroundingDinoTask:
    """A `Task`."""

    name = "grounding-dino-tiny"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        torch.manual_seed(plan.seed)
        network = build(self.name)
        start(network.model)
        self._tokens = tiny_bert(network.config.max_text_len)
        self.learner = Learner(network, network.config.d_model)
        self.detector = GroundingDino(network, self._tokens, dino.TINY, identity="in training")

    @property
    def network(self) -> nn.Module:
        """What is shipped."""
        network: nn.Module = self.detector.network
        return network

    def batch(self, step: int) -> Batch:
        """Pictures of one size; every class is asked for twice, in some wording."""
        rng = RandomState([self.plan.seed, list(SPLITS).index("train"), step])
        config = setting(rng)
        shown = [picture(config, rng) for _ in range(self.plan.batch)]
        asked = [*range(CLASSES), *range(CLASSES), *[NOBODY] * STRANGERS]
        questions = [of_nothing(rng) if number == NOBODY else of_class(number, rng) for number in asked]
        pairs = pairing(shown, asked, rng) if step >= ALONE * self.plan.steps else []
        most = max(len(each.kinds) for each in shown)
        kinds = np.full((len(shown), most), NOBODY)
        places = np.zeros((len(shown), most, 4), np.float32)
        for row, each in enumerate(shown):
            kinds[row, : len(each.kinds)] = each.kinds
            places[row, : len(each.kinds)] = each.boxes
        return Batch(
            pixels=torch.stack([self.detector.preprocess(each.pixels) for each in shown]),
            ids=self._tokens.batch([caption(each) for each in questions])[0],
            asked=torch.tensor(asked),
            kinds=torch.from_numpy(kinds),
            boxes=torch.from_numpy(places),
            pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of the hints, and of every answer to the pairs."""
        image = see(self.network, batch.pixels)
        texts = read(self.network, batch.ids, batch.ids != 0)
        words = (batch.ids != 0) & ~torch.isin(batch.ids, self.detector.network.model.special_tokens)
        losses = self._hints(batch, image, texts, words)
        if not len(batch.pairs):
            return losses
        rows, columns = batch.pairs.T.tolist()
        chosen = [texts[column] for column in columns]
        real = nn.utils.rnn.pad_sequence([text.positions >= 0 for text in chosen], batch_first=True)
        tokens = Tokens(real, words[columns, : real.shape[1]])
        wanted = [wanted_boxes(batch, row, column) for row, column in batch.pairs.tolist()]
        places, *layers = answers(self.network, image, rows, chosen)
        losses |= {f"place_{key}": loss for key, loss in right(places, tokens, near(image, wanted)).items()}
        for number, layer in enumerate(layers):
            parts = right(layer, tokens, one_each(layer, wanted))
            losses |= {f"layer{number}_{key}": loss for key, loss in parts.items()}
        return losses

    def _hints(
        self, batch: Batch, image: ImageFeatures, texts: Sequence[TextFeatures], words: Tensor
    ) -> dict[str, Tensor]:
        """What every place shows, how large that is, and what every question means."""
        learner = self.learner
        near = geometry.answering(image.shapes, batch.boxes)  # [n, k, s]
        row, thing, place = near.nonzero(as_tuple=True)
        shown = learner.classes(learner.place(image.source))
        target = torch.zeros_like(shown)
        target[row, place, batch.kinds[row, thing]] = 1
        middle, size = geometry.centres(image.shapes, shown.device)
        said = learner.extent(image.source[row, place])
        centre, extent = middle[place] + said[:, :2] * size[place], 2 * size[place] * said[:, 2:].exp()
        misplaced = geometry.misplaced(torch.cat([centre, extent], -1), batch.boxes[row, thing])
        means = [
            text.features[word[: len(text.features)]].mean(0) for text, word in zip(texts, words, strict=True)
        ]
        meant = learner.classes(learner.phrase(torch.stack(means)))
        asked = (batch.asked[:, None] == torch.arange(CLASSES, device=shown.device)).float()
        kinds = F.cross_entropy(shown[row, place], batch.kinds[row, thing], reduction="sum")
        return {
            "hint_kind": kinds / max(1, len(row)),
            "hint_place": geometry.focal(shown, target).sum() / target.sum().clamp(min=1),
            "hint_box": 0.25 * misplaced.sum() / max(1, len(row)),
            "hint_phrase": geometry.focal(meant, asked).sum() / asked.sum().clamp(min=1),
        }

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """Every class, and as many names that mean none, asked of pictures of the default setting."""
        self.detector.forget()
        return judged(self.detector, SEEN, self.plan.seed)


def task(steps: int | None = None, seed: int = 0) -> GroundingDinoTask:
    """How the tiny Grounding DINO learns."""
    plan = Plan(
        steps=steps or STEPS, batch=PICTURES, best="quality", rate=2e-3, validate_every=250, seed=seed
    )
    return GroundingDinoTask(plan)


def start(model: Any) -> None:  # noqa: ANN401  (transformers is not typed)
    """Fusion opens sooner than published, and nobody says yes at first: the losses start small."""
    for layer in model.encoder.layers:
        nn.init.constant_(layer.fusion_layer.vision_param, OPEN)
        nn.init.constant_(layer.fusion_layer.text_param, OPEN)
    text = model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    shy = (UNLIKELY / len(text.bias)) ** 0.5  # what is added on one side and taken away on the other
    nn.init.constant_(text.bias, -shy)
    for norm in (model.enc_output_norm, model.decoder.layer_norm):
        nn.init.constant_(norm.weight, CALM)
        nn.init.constant_(norm.bias, shy)


def pairing(shown: Sequence[Picture], asked: Sequence[int], rng: RandomState) -> list[tuple[int, int]]:
    """Of each picture one question that it answers and one that it does not."""
    pairs = []
    for row, each in enumerate(shown):
        sure = [column for column, number in enumerate(asked) if number not in each.unsure]
        for there in (True, False):
            choices = [column for column in sure if (asked[column] in each.kinds) is there]
            if choices:
                pairs.append((row, choices[rng.randint(len(choices))]))
    return pairs


def wanted_boxes(batch: Batch, row: int, column: int) -> Tensor:
    """The boxes [k, 4] of what a question asks for in a picture."""
    return batch.boxes[row, (batch.kinds[row] == batch.asked[column]) & (batch.kinds[row] != NOBODY)]


def near(image: ImageFeatures, wanted: Sequence[Tensor]) -> Chosen:
    """Several places answer for an object: those near its centre."""
    pair = torch.cat([torch.full((len(boxes),), row) for row, boxes in enumerate(wanted)])
    boxes = torch.cat(list(wanted))
    thing, place = geometry.answering(image.shapes, boxes).nonzero(as_tuple=True)
    return Chosen(pair.to(boxes.device)[thing], place, boxes[thing])


@torch.no_grad()
def one_each(answer: Answer, wanted: Sequence[Tensor]) -> Chosen:
    """One query answers for an object: the one that does so best already."""
    chances = answer.logits.amax(-1).sigmoid()
    pair, number, box = [], [], []
    for row, boxes in enumerate(wanted):
        queries, objects = geometry.matched(chances[row], answer.boxes[row], boxes)
        pair += [row] * len(queries)
        number += queries.tolist()
        box.append(boxes[objects])
    device = answer.boxes.device
    return Chosen(torch.tensor(pair, device=device), torch.tensor(number, device=device), torch.cat(box))


def right(answer: Answer, tokens: Tokens, chosen: Chosen) -> dict[str, Tensor]:
    """The chosen say yes to every word and have the box; the others say no, and all to a full stop."""
    logits = answer.logits[..., : tokens.real.shape[1]].masked_fill(~tokens.real[:, None], 0)
    target = torch.zeros_like(logits)
    target[chosen.pair, chosen.number] = tokens.words[chosen.pair].float()
    loss = geometry.focal(logits, target) * tokens.real[:, None]
    mean = loss.sum(-1) / tokens.real.sum(-1, keepdim=True)
    many = max(1, len(chosen.pair))
    found = answer.boxes[chosen.pair, chosen.number]
    return {"class": mean.sum() / many, "box": geometry.misplaced(found, chosen.box).sum() / many}


def judged(detector: GroundingDino, pictures: int, seed: int) -> dict[str, float]:
    """Recall at IoU 0.5 of the things in view and the IoU of the best box; how often a class that is not in
    view, or a stranger's name, gets a box; how many boxes for a class in view touch none of its things."""
    rng = RandomState([seed, list(SPLITS).index("val"), 0])
    names = strangers(held_out=True)
    overlaps: list[float] = []
    absent: list[bool] = []
    strange: list[bool] = []
    stray: list[float] = []
    for _ in range(pictures):
        shown = picture(SynthConfig(), rng)
        unknown = [names[number] for number in rng.randint(len(names), size=3)]
        found = detector.detect(shown.pixels[None], [[*CLASS_NAMES, *unknown]])[0]
        extent = np.array(shown.pixels.shape[1::-1] * 2, np.float32)
        strange += [any(each.label == name for each in found) for name in unknown]
        for number, name in enumerate(CLASS_NAMES):
            if number in shown.unsure:
                continue
            boxes = np.array([each.box for each in found if each.label == name]).reshape(-1, 4) / extent
            mine = torch.from_numpy(shown.boxes[[kind == number for kind in shown.kinds]])
            if not len(mine):
                absent.append(len(boxes) > 0)
                continue
            if not len(boxes):
                overlaps += [0.0] * len(mine)
                continue
            low, high = torch.from_numpy(boxes).float().chunk(2, dim=-1)
            iou = geometry.overlap(torch.cat([(low + high) / 2, high - low], -1)[:, None], mine)[0]
            overlaps += iou.amax(0).tolist()
            stray += (iou.amax(1) < 0.3).float().tolist()
    recall = float(np.mean([each >= 0.5 for each in overlaps]))
    scores = {
        "recall": recall,
        "IoU": float(np.mean(overlaps)),
        "false_alarms": float(np.mean(absent)),
        "false_alarms_of_strangers": float(np.mean(strange)),
        "stray_boxes": float(np.mean(stray)) if stray else 0.0,
    }
    return scores | {"quality": recall - scores["false_alarms"]}
