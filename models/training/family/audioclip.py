"""The tiny AudioCLIP: three towers that meet in one space, taught with all that SynthAVS knows.

AudioCLIP was trained on pairs alone. A scene of SynthAVS has several things and several sounds, all of them
known: every cosine of a batch has a right answer, not only those of a pair. A sigmoid a cosine asks whether
- a sentence names what a sound is, or what a picture shows;
- a sound comes from something in a picture (so that the gate can tell what is off-screen);
- a sentence names, or a sound comes from, what one place of the picture shows (so that heat maps work).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor, nn

from models.audioclip.audioclip import AudioCLIP, AudioCLIPConfig, unit
from models.audioclip.image import AttentionPool
from models.audioclip.preprocess import image_input
from models.audioclip.tokenizer import Tokenizer
from models.datasets.drawing import draw
from models.datasets.kinds import CLASSES, KINDS
from models.datasets.scenes import Scene, SynthConfig, compose
from models.datasets.synthavs import SynthAVS
from models.segments import AUDIOCLIP_RATE, resampled, whole_seconds
from models.training.family.sounds import seconds
from models.training.family.task import Plan
from models.vocabularies import NOISE, vocabulary

SOUNDS = 32  # seconds of a step


class Stage(NamedTuple):
    """Pictures of a step: their side, scenes, and objects cut out; and the sizes that scenes are drawn at."""

    side: int
    scenes: int
    crops: int
    sizes: tuple[int, ...]


# At 224 pixels a picture costs five times what it costs at 96: shapes are learnt small, then seen large.
SMALL, LARGE = Stage(96, 28, 6, (96,)), Stage(224, 8, 3, (96, 96, 128, 192))
# Hearing is the slower to learn and the cheaper to teach: it goes first, alone but for the names of sounds.
HEARING_PART = 0.4  # of the steps
SMALL_PART = 0.8  # of the steps, hearing among them
EASY_PART = 0.1  # in which noise rises to its full level
TEMPLATES = ("{}", "{}", "a {}", "the sound of a {}", "a picture of a {}", "Look! Object of {}")
STRANGERS = 8  # sentences of a step that name nothing of SynthAVS
JUDGED = 30  # clips of a validation
FINEST = 8  # pixels of a side of the smallest places asked about
VISIBLE = 0.1  # of a place: a class that fills so much of one is in view


class Sentences(NamedTuple):
    """Tokens [k, context], and which of the classes (or noise, the last column) each names: float [k, 13]."""

    tokens: Tensor
    names: Tensor


class Pictures(NamedTuple):
    """Images [n, 3, s, s], and the share of each place that shows a class, or none: [n, 13, s/8, s/8]."""

    images: Tensor
    places: Tensor


class Batch(NamedTuple):
    """Pictures, or None while hearing is learnt; sounds [m, 1, samples] and whether each class, or nothing
    but noise, sounds: [m, 13]; and sentences."""

    pictures: Pictures | None
    sounds: Tensor
    heard: Tensor
    tokens: Tensor
    names: Tensor


def task(steps: int | None = None, seed: int = 0) -> AudioClipTask:
    """About three quarters of an hour of one core."""
    return AudioClipTask(
        Plan(steps=steps or 4500, batch=SOUNDS, best="mean", rate=2.5e-3, validate_every=300, seed=seed)
    )


class Learner(nn.Module):
    """AudioCLIP, and what turns its cosines into answers: a bias a question, a scale where it has none."""

    def __init__(self, network: AudioCLIP) -> None:
        super().__init__()
        self.network = network
        network.audio.fbsp.requires_grad_(False)
        for scale in (network.logit_scale, network.logit_scale_ai, network.logit_scale_at):
            nn.init.constant_(scale, float(np.log(10.0)))
        self.biases = nn.ParameterDict({name: nn.Parameter(torch.tensor(-4.0)) for name in QUESTIONS})
        self.hints = Hints(network.config.image.channels)
        self.hearer = nn.Linear(network.config.embed, CLASSES + 1)  # sounds do not wait for words either
        self.place_scale = nn.Parameter(torch.tensor(float(np.log(10.0))))

    def scale(self, question: str) -> Tensor:
        """The factor of a question's cosines."""
        network = self.network
        known = {"at": network.logit_scale_at, "it": network.logit_scale, "ai": network.logit_scale_ai}
        factor: Tensor = known.get(question, self.place_scale).exp()
        return factor

    def logits(self, question: str, cosines: Tensor) -> Tensor:
        """Of the answer yes."""
        answer: Tensor = self.scale(question) * cosines + self.biases[question]
        return answer


class Hints(nn.Module):
    """What each place of the maps below the last shows, asked directly: without it, sight waits for words."""

    MAPS = (1, 2, 3)

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels[i], CLASSES + 1, 1) for i in self.MAPS)

    def forward(self, maps: tuple[Tensor, ...], places: Tensor) -> Tensor:
        """The mean cross-entropy."""
        total = places.new_zeros(())
        for i, layer in zip(self.MAPS, self.layers, strict=True):
            answer = F.log_softmax(layer(maps[i]), dim=1)
            total = total - (F.adaptive_avg_pool2d(places, answer.shape[-1]) * answer).sum(1).mean()
        return total / len(self.MAPS)


# Of audio, image, text and place, two by two: what each counts.
QUESTIONS = MappingProxyType({"at": 4.0, "it": 1.0, "ai": 1.0, "pt": 24.0, "pa": 6.0})


class AudioClipTask:
    """Implements `Task`."""

    name = "audioclip-tiny"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        torch.manual_seed(plan.seed)
        self.network = AudioCLIP(AudioCLIPConfig.tiny())
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub omits it; a tenth faster
        self.learner = Learner(self.network)
        self.tokenizer = Tokenizer()
        self.side = self.network.config.image.resolution
        clean = vocabulary("audioset")
        words = {word for kind in KINDS for word in (*kind.name.split(), kind.timbre)}
        self.strangers = [
            name for name in clean if name not in NOISE and not words & set(name.lower().split())
        ]

    def batch(self, step: int) -> Batch:
        """Pictures and sounds that know nothing of each other: which belong together, their classes tell."""
        rng = RandomState([self.plan.seed, 1, step])
        pictures = None
        if step >= HEARING_PART * self.plan.steps:
            pictures = shown(rng, SMALL if step < SMALL_PART * self.plan.steps else LARGE)
        easy = max(0.0, 1 - step / (EASY_PART * self.plan.steps))
        waves, heard = seconds(rng, SOUNDS, easy, AUDIOCLIP_RATE)
        sounds = torch.from_numpy(waves)[:, None]
        return Batch(pictures, sounds, torch.from_numpy(heard), *self.sentences(rng))

    def sentences(self, rng: RandomState) -> Sentences:
        """Each class once, by its name or its timbre's; the names of noise; and some that name nothing."""
        texts, names = list[str](), np.zeros((CLASSES + len(NOISE) + STRANGERS, CLASSES + 1), np.float32)
        for number, kind in enumerate(KINDS):
            word = kind.timbre if rng.random_sample() < 0.3 else kind.name
            texts.append(TEMPLATES[rng.randint(len(TEMPLATES))].format(word))
            names[number, number] = 1
        texts += NOISE
        names[CLASSES : CLASSES + len(NOISE), CLASSES] = 1
        texts += [self.strangers[i] for i in rng.randint(len(self.strangers), size=STRANGERS)]
        return Sentences(self.tokenizer(texts, self.network.config.text.context), torch.from_numpy(names))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """A cross-entropy a question."""
        text = unit(self.network.encode_text(batch.tokens))
        heard = self.network.encode_audio(batch.sounds)
        sound = unit(heard)
        named = (batch.heard @ batch.names.T).clamp(max=1)
        return {
            "at": self.asked("at", sound @ text.T, named),
            "heard": F.binary_cross_entropy_with_logits(self.learner.hearer(heard), batch.heard),
        } | (self.seen(batch.pictures, batch, sound, text) if batch.pictures else {})

    def seen(self, pictures: Pictures, batch: Batch, sound: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Whatever is asked of pictures."""
        images = pictures.images.to(memory_format=torch.channels_last)
        features = self.network.visual(images, surgery=True)
        image, place = unit(features.pooled), F.normalize(features.maps[4], dim=1)
        share = F.adaptive_avg_pool2d(pictures.places[:, :CLASSES], place.shape[-1])
        share = F.pad(share, (0, 0, 0, 0, 0, 1))  # no place shows noise
        visible = (share.amax((2, 3)) > VISIBLE).float()
        of_text = torch.einsum("nchw,kc->nkhw", share, batch.names).clamp(max=1)
        of_sound = torch.einsum("nchw,mc->nmhw", share, batch.heard).clamp(max=1)
        return {
            "it": self.asked("it", image @ text.T, (visible @ batch.names.T).clamp(max=1)),
            "ai": self.asked("ai", image @ sound.T, (visible @ batch.heard.T).clamp(max=1)),
            "pt": self.asked("pt", torch.einsum("nehw,ke->nkhw", place, text), of_text),
            "pa": self.asked("pa", torch.einsum("nehw,me->nmhw", place, sound), of_sound),
            "hints": self.learner.hints(features.maps, pictures.places),
        }

    def asked(self, question: str, cosines: Tensor, answer: Tensor) -> Tensor:
        """The weighted cross-entropy of a question."""
        logits = self.learner.logits(question, cosines)
        return QUESTIONS[question] * F.binary_cross_entropy_with_logits(logits, answer)

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """On clips of the validation split, by the cosines alone.

        top: of the classes in view, the one that fits a second best sounds; noise: a name of noise fits noise
        best; tells: the gate's cosine is higher with something in view that sounds than without; heat: the
        hottest place of a heat map sounds; agree and far: the gate's cosines themselves.
        """
        tie(self.network.visual.attnpool)
        text = self.text([kind.name for kind in KINDS])
        noise = self.text(list(NOISE))
        rows: dict[str, list[NDArray[np.float64]]] = {
            name: [] for name in ("top", "noise", "agree", "heat", "far")
        }
        probes = {probe: SynthAVS("val", probe=probe) for probe in (None, "offscreen", "noise")}
        for number in range(JUDGED):
            for probe, clips in probes.items():
                self.count(clips, number, probe, text, noise, rows)
        means = {name: float(np.concatenate(values).mean()) for name, values in rows.items() if values}
        near, far = np.concatenate(rows["agree"]), np.concatenate(rows["far"])
        means["agree"], means["far"] = float(near.mean()), float(far.mean())
        means["tells"] = float(
            (near[:, None] > far[None]).mean()
        )  # how often the gate's cosine ranks them rightly
        means["mean"] = float(np.mean([means[name] for name in ("top", "noise", "tells", "heat")]))
        return means

    def count(
        self,
        clips: SynthAVS,
        number: int,
        probe: str | None,
        text: Tensor,
        noise: Tensor,
        rows: dict[str, list[NDArray[np.float64]]],
    ) -> None:
        """One clip into the rows."""
        clip = clips[number]
        waves = whole_seconds(
            resampled(clip.audio, clip.rate, AUDIOCLIP_RATE), AUDIOCLIP_RATE, len(clip.frames)
        )
        sound = unit(self.network.encode_audio(torch.from_numpy(waves)[:, None]))
        images = image_input(clip.frames, self.side, fit="squash", antialias=True)
        features = self.network.visual(images, surgery=True)
        agree = (unit(features.pooled) * sound).sum(1).numpy()
        named, hushed = (sound @ text.T).numpy(), (sound @ noise.T).numpy().max(1)
        if probe == "noise":
            rows["noise"].append((hushed > named.max(1)).astype(np.float64))
        if probe is not None:
            rows["far"].append(agree)
            return
        on = np.array([clip.expected[i].any() for i in range(len(clip.frames))])
        if not on.any():
            return
        truth = np.array(
            [[(clip.expected[i] == c + 1).any() for c in range(CLASSES)] for i in range(len(on))]
        )
        shown = np.isin([kind.name for kind in KINDS], clip.things)
        best = np.where(shown, named, -2.0).argmax(1)
        rows["top"].append(truth[np.arange(len(on)), best][on].astype(np.float64))
        rows["agree"].append(agree[on])
        heat = torch.einsum("nehw,ne->nhw", F.normalize(features.maps[4], dim=1), sound)
        heat = F.interpolate(heat[:, None], clip.frames.shape[1:3], mode="bilinear")[:, 0].flatten(1)
        hottest = heat.argmax(1).numpy()
        lit = clip.expected.reshape(len(on), -1)[np.arange(len(on)), hottest] > 0
        rows["heat"].append(lit[on].astype(np.float64))

    def text(self, sentences: list[str]) -> Tensor:
        """Unit rows."""
        return unit(self.network.encode_text(self.tokenizer(sentences, self.network.config.text.context)))


def tie(pool: AttentionPool) -> None:
    """Queries and keys become what values are: CLIP's own attention is then that of surgery, with which alone
    the network has learnt. Its map is in tune with sounds, which AC-FPN needs."""
    for projection in (pool.q_proj, pool.k_proj):
        projection.load_state_dict(pool.v_proj.state_dict())


def shown(rng: RandomState, stage: Stage) -> Pictures:
    """The pictures of a step."""
    scenes = [scene_of(rng, stage) for _ in range(stage.scenes)]
    images, places = zip(*scenes, *(cut(rng, stage) for _ in range(stage.crops)), strict=True)
    return Pictures(torch.cat(images), torch.cat(places))


def scene_of(rng: RandomState, stage: Stage) -> tuple[Tensor, Tensor]:
    """A frame as the heat maps see it [1, 3, s, s], and what its places show [1, 13, s/8, s/8]."""
    scene, frame, instances = drawn(rng, stage)
    return image_input(frame, stage.side, fit="squash", antialias=True), shares(scene, instances, stage.side)


def cut(rng: RandomState, stage: Stage) -> tuple[Tensor, Tensor]:
    """The same of one object on black, as No-Prompt cuts it out."""
    scene, frame, instances = drawn(rng, stage)
    shown = np.unique(instances[instances > 0])
    mask = instances[0] == shown[rng.randint(len(shown))]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    where = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    crop, seen = frame[0][where] * mask[where][..., None], instances[0][where] * mask[where]
    short = min(seen.shape)  # the middle square, as `image_input` cuts it
    top, left = ((length - short) // 2 for length in seen.shape)
    square = seen[None, top : top + short, left : left + short]
    return image_input(crop[None], stage.side, antialias=True), shares(scene, square, stage.side)


def drawn(rng: RandomState, stage: Stage) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene at some moment: its pixels [1, h, w, 3], and which thing each shows [1, h, w]."""
    config = SynthConfig(size=stage.sizes[rng.randint(len(stage.sizes))])
    scene = compose(config, rng)
    return scene, *draw(scene, config, [config.seconds * rng.random_sample()])


def shares(scene: Scene, instances: NDArray[np.uint8], side: int) -> Tensor:
    """Uint8 [1, h, w] -> the share of each place that shows a class, or none (last): [1, 13, s/8, s/8]."""
    kinds = np.array([CLASSES, *(thing.kind for thing in scene.things)], np.int64)
    shown = F.one_hot(torch.from_numpy(kinds[instances]), CLASSES + 1).permute(0, 3, 1, 2).float()
    return F.interpolate(shown, (side // FINEST,) * 2, mode="area")
