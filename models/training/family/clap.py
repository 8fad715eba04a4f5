"""How the tiny CLAP learns: seconds of SynthAVS against the names of what sounds in them.

Each name is a yes or no (a sigmoid, as SigLIP), so that of several sources each stands above one threshold,
and of names that never sound none does. Names of silence and noise fit what no source sounds in.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import ClapModel

from models import clap
from models.datasets.kinds import CLASS_NAMES, CLASSES, TIMBRE_NAMES
from models.datasets.mixing import mix
from models.datasets.synthavs import SynthAVS
from models.segments import CLAP_RATE, quantised, resampled, whole_seconds
from models.training.family.pool import HUSHED, Pool
from models.training.family.sounds import RATE, audible, best_f1, mixed, seconds
from models.training.family.task import Plan
from models.vocabularies import NOISE, vocabulary

PLAN = Plan(steps=5000, batch=64, best="F1", rate=3e-3, warmup=50, clip=5.0, validate_every=200)
TEMPLATES = ("the sound of a {}", "a {}", "{} sound")
STRANGERS = 12  # names of a step that nothing in it sounds like
EASY_PART = 0.1  # of the steps: from one clean source to everything
APART = 0.3  # of the steps: sounds and names are told apart each for itself, before they meet
REHEARSED = 0.9  # of the steps mix from the pool; the rest hears true mixtures
POOL = 40  # seconds of each class
POOL_STEPS = 60  # after which there is a new one: a network soon knows the voices of the old one by heart
JUDGED = 60  # clips of a validation
START_SCALE, START_THRESHOLD = 10.0, 0.3

NAMES = (*CLASS_NAMES, *TIMBRE_NAMES)
ANSWERS = CLASSES + 2  # what a second may hold: each class, noise alone, silence
# Which of these each name fits, float [names, answers].
MEANINGS = np.eye(ANSWERS, dtype=np.float32)[
    [*range(CLASSES), *range(CLASSES), *(CLASSES + (name == "Silence") for name in NOISE)]
]


class Batch(NamedTuple):
    """Log-mels [n, 1, time, mel] and what they hold, [n, answers]; names as tokens [m, longest], which of
    these are real, and what they mean, [m, answers]; and the weight of which fits what, a scalar."""

    mel: Tensor
    heard: Tensor
    ids: Tensor
    real: Tensor
    meanings: Tensor
    weight: Tensor


class Learner(nn.Module):
    """The network and what is thrown away: where a cosine becomes a yes, and a classifier of each tower,
    by which both start: sounds cannot learn from names that all look alike, nor names from such sounds."""

    def __init__(self, network: ClapModel) -> None:
        super().__init__()
        self.network = network
        self.scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.threshold = nn.Parameter(torch.tensor(START_THRESHOLD))
        self.hearer = nn.Linear(network.config.audio_config.hidden_size, ANSWERS)
        self.reader = nn.Linear(network.config.text_config.hidden_size, ANSWERS)

    def forward(self, mel: Tensor, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of sounds against names [n, m], and of the answers in sounds and in names."""
        heard = self.network.audio_model(mel).pooler_output
        said = self.network.text_model(ids, attention_mask=real).pooler_output
        sounds = F.normalize(self.network.audio_projection(heard), dim=-1)
        names = F.normalize(self.network.text_projection(said), dim=-1)
        cosines = sounds @ names.T
        return self.scale.exp() * (cosines - self.threshold), self.hearer(heard), self.reader(said)


class ClapTask:
    """Implements `Task`."""

    name = "clap-tiny"

    def __init__(self, plan: Plan, pool: int = POOL) -> None:
        self.plan, self._size = plan, pool
        torch.manual_seed(plan.seed)
        self.network = clap.build(self.name)
        self.learner = Learner(self.network)
        self._ears = clap.tiny(clap.build(self.name))  # prepares sound and names, wherever the learner is
        self._strangers = strangers()
        self._pool: tuple[int, Pool] | None = None

    def batch(self, step: int) -> Batch:
        """Everything about it follows from the step."""
        rng = RandomState([self.plan.seed, 1, step])
        if step < REHEARSED * self.plan.steps:
            hardness = min(1.0, step / (EASY_PART * self.plan.steps))
            spectra, heard = self._pool_of(step).mixtures(rng, self.plan.batch, hardness)
        else:
            spectra, heard = self._played(rng)
        others = [self._strangers[number] for number in rng.randint(len(self._strangers), size=STRANGERS)]
        names = [worded(name, rng) for name in (*NAMES, *NOISE, *others)]
        ids, real = self._ears.tokens.batch(names)
        meanings = np.pad(MEANINGS, ((0, STRANGERS), (0, 0)))
        mel = self._ears.decibels(torch.from_numpy(spectra))
        weight = torch.tensor(0.0 if step < APART * self.plan.steps else 4.0)
        return Batch(mel, torch.from_numpy(heard), ids, real.long(), torch.from_numpy(meanings), weight)

    def _played(self, rng: RandomState) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Spectra and answers of seconds that are truly mixed; one of them is silence, or nearly so."""
        sound, heard = seconds(rng, self.plan.batch - 1, 0.0, CLAP_RATE)
        hush = resampled(mixed((), rng.uniform(*HUSHED), rng), RATE, CLAP_RATE)
        answers = np.eye(ANSWERS, dtype=np.float32)[[ANSWERS - 1] * self.plan.batch]
        answers[1:] = np.pad(heard, ((0, 0), (0, 1)))
        return self._powers(np.concatenate([hush[None], sound])), answers

    def _pool_of(self, step: int) -> Pool:
        """One at a time is kept."""
        number = step // POOL_STEPS
        if self._pool is None or self._pool[0] != number:
            rng = RandomState([self.plan.seed, 2, number])
            self._pool = number, Pool(self._powers, CLAP_RATE, self._size, rng)
        return self._pool[1]

    def _powers(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound as the network gets it, but in single precision, which is faster."""
        rounded = torch.from_numpy(quantised(sound))
        powers: NDArray[np.float32] = self._ears.power(rounded, torch.float32).mT.contiguous().numpy()
        return powers

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of a yes or no for each pair."""
        logits, sounds, names = self.learner(batch.mel, batch.ids, batch.real)
        fits = (batch.heard @ batch.meanings.T).clamp(max=1)
        ask = F.binary_cross_entropy_with_logits
        return {
            "pairs": batch.weight * ask(logits, fits),
            "sounds": ask(sounds, batch.heard),
            "names": ask(names, batch.meanings),
        }

    def scores(self) -> dict[str, float]:
        """`judged` on clips of the validation split."""
        return judged(self.network, *self._validation)

    @cached_property
    def _validation(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return seconds_of(SynthAVS("val", JUDGED))


def worded(name: str, rng: RandomState) -> str:
    """A name as somebody may write it: every second time alone, else in a sentence."""
    cased = (name, name.lower(), name.capitalize(), name.title())[rng.randint(4)]
    return cased if rng.random_sample() < 0.5 else TEMPLATES[rng.randint(len(TEMPLATES))].format(cased)


def strangers() -> list[str]:
    """Names of AudioSet that nothing in SynthAVS sounds like."""
    near = (*TIMBRE_NAMES, *(name.casefold() for name in NOISE))
    return [name for name in vocabulary("audioset") if not any(word in name.casefold() for word in near)]


def seconds_of(clips: SynthAVS) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The seconds of clips as CLAP gets them, float32 [n, samples], and which classes are heard in each."""
    sounds, classes = [], []
    for number in range(len(clips)):
        scene, track = clips.scene(number), clips.track(number)
        wave = resampled(mix(scene, track, clips.config), clips.config.rate, CLAP_RATE)
        sounds.append(whole_seconds(wave, CLAP_RATE, clips.config.seconds))
        classes += [audible(scene, track, second) for second in range(clips.config.seconds)]
    return np.concatenate(sounds), np.stack(classes)


def judged(
    network: ClapModel,
    sounds: NDArray[np.float32],
    classes: NDArray[np.bool_],
) -> dict[str, float]:
    """How well names fit sounds [n, samples] in which `classes` [n, c] are heard.

    `F1` of every name of a class or timbre at one `threshold`, the best; `top1`, how often the best name of a
    second with sources is right; `heard` and `still`, how often a name of a source wins over those of noise
    where it should, and the other way round; `strangers`, the largest cosine of a name that never sounds.
    """
    encoder = clap.tiny(network)
    rows = encoder.audio(sounds)
    names, noises, others = (
        (rows @ encoder.text(list(texts)).T).cpu().numpy() for texts in (NAMES, NOISE, strangers())
    )
    fits = np.tile(classes, 2)
    f1, threshold = best_f1(names, fits)
    active = classes.any(1)
    right = np.take_along_axis(fits, names.argmax(1)[:, None], 1)[:, 0]
    loud = names.max(1) >= noises.max(1)
    return {
        "F1": f1,
        "threshold": threshold,
        "top1": float(right[active].mean()),
        "heard": float(loud[active].mean()),
        "still": float(1 - loud[~active].mean()),
        "strangers": float(others.max()),
    }


def task(steps: int | None, seed: int) -> ClapTask:
    """The shipped network's way of learning, or a shorter one."""
    return ClapTask(replace(PLAN, steps=steps or PLAN.steps, seed=seed))
