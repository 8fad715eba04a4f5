"""The networks as they train. Each kind is one class with the same face: what it answers to a batch, which of
its numbers move how fast, what is saved of it and what that says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import acfpn, tpavi
from models.acfpn import ACFPN, AcFpnConfig
from models.audioclip.audio import AudioScale
from models.datasets.kinds import CLASSES
from models.tpavi import TPAVI, TpaviConfig
from models.training.recipes import NetworkConfig, Recipe
from models.training.starts import Files, ears, start_acfpn, start_tpavi
from models.vggish import Vggish
from models.weights import Weights

AUDIO, BACKBONE = "aclp.audio.", "aclp."  # how the names of AudioCLIP's parameters begin
NEW_LAYER = "aclp.audio.fc."  # what ESResNeXt's file does not have, and so learns at the full rate


class Group(NamedTuple):
    """Parameters that learn at one rate."""

    parameters: list[nn.Parameter]
    rate: float


class Matched(NamedTuple):
    """What the matching loss compares: of each stage the sound [n, C] and the map [n, C, h, w]."""

    audio: tuple[Tensor, ...]
    maps: tuple[Tensor, ...]


class Answer(NamedTuple):
    """Logits of the masks [n, H, W]; and, while there are hints, of what is heard [n, classes] and of what
    every place shows, [n, 1 + classes, h, w] for each map that is asked. `matched` is TPAVI's."""

    logits: Tensor
    heard: Tensor | None = None
    seen: tuple[Tensor, ...] = ()
    matched: Matched | None = None


class AcFpnLearner(nn.Module):
    """AC-FPN as it trains: the sound never in half precision.

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

    def train(self, mode: bool = True) -> AcFpnLearner:
        """A truly frozen tower keeps its statistics; one that is merely left out does not."""
        super().train(mode)
        if self.frozen:
            self.network.aclp.audio.eval()
        return self

    @property
    def described(self) -> dict[str, str]:
        """What a file of its weights says of itself."""
        return {"earshot": "ac-fpn"} | acfpn.metadata_of(self.network.config)

    def groups(self, recipe: Recipe) -> list[Group]:
        """Neck and head at the full rate, AudioCLIP at a part of it, its audio tower perhaps not at all."""
        fast: list[nn.Parameter] = list(self.hints.parameters()) if self.hints else []
        slow: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            new = recipe.audio_start == "esresnext" and name.startswith(NEW_LAYER)
            if new or not name.startswith(BACKBONE):
                fast.append(parameter)
            elif recipe.audio == "trained" or not name.startswith(AUDIO):
                slow.append(parameter)
        return [Group(fast, recipe.rate), Group(slow, recipe.rate * recipe.backbone)]

    def forward(self, images: Tensor, sound: Tensor) -> Answer:
        """Sound [n, 1, samples]."""
        with torch.autocast(images.device.type, enabled=False):
            heard = self.network.aclp.encode_audio(sound.float(), self.scale)
        maps = self.network.aclp.visual(images).maps
        logits = self.network.decode(maps, heard)[:, 0].float()
        return Answer(logits, *(self.hints(maps, heard) if self.hints and self.training else ()))


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


class TpaviLearner(nn.Module):
    """TPAVI as it trains: what it hears with is no part of `network`, never trained and never saved."""

    hints = None

    def __init__(self, network: TPAVI, ears: Vggish) -> None:
        super().__init__()
        self.network, self.ears = network, ears.requires_grad_(False)

    def train(self, mode: bool = True) -> TpaviLearner:
        """VGGish stays as it is."""
        super().train(mode)
        self.ears.eval()
        return self

    @property
    def described(self) -> dict[str, str]:
        """What a file of its weights says of itself."""
        return {"earshot": "tpavi"} | tpavi.metadata_of(self.network.config)

    def groups(self, recipe: Recipe) -> list[Group]:
        """Everything at one rate."""
        return [Group(list(self.network.parameters()), recipe.rate)]

    def forward(self, images: Tensor, sound: Tensor) -> Answer:
        """Sound as VGGish's examples [n, 1, 96, 64]."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            heard = self.ears(sound.float())
        logits, maps, audio = self.network(images, heard)
        matched = Matched(tuple(a.float() for a in audio), tuple(m.float() for m in maps))
        return Answer(logits[:, 0].float(), matched=matched)


Learner = AcFpnLearner | TpaviLearner


def new_acfpn(recipe: Recipe, files: Files, weights: Weights) -> AcFpnLearner:
    """From AudioCLIP, or from what the ablations take in its place."""
    assert isinstance(recipe.network, AcFpnConfig)
    network = ACFPN(recipe.network)
    start_acfpn(network, recipe, files, weights)
    return AcFpnLearner(network, recipe)


def new_tpavi(recipe: Recipe, files: Files, weights: Weights) -> TpaviLearner:
    """From a backbone that knows ImageNet."""
    assert isinstance(recipe.network, TpaviConfig)
    network = TPAVI(recipe.network)
    start_tpavi(network, recipe, files, weights)
    return TpaviLearner(network, ears(files, weights))


LEARNERS: Mapping[type[NetworkConfig], Callable[[Recipe, Files, Weights], Learner]] = MappingProxyType(
    {AcFpnConfig: new_acfpn, TpaviConfig: new_tpavi}
)


def learner_for(recipe: Recipe, files: Files, weights: Weights) -> Learner:
    """What the recipe trains, before its first step."""
    return LEARNERS[type(recipe.network)](recipe, files, weights)
