"""AudioCLIP whole: three towers, a scale for each pair of them, and the contrastive loss.

Keys and shapes are those of `AudioCLIP-Full-Training.pt`; `tiny` is the same class with smaller numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.audioclip.audio import AudioConfig, AudioScale, AudioTower
from models.audioclip.fbsp import tightness
from models.audioclip.image import ImageConfig, ImageTower
from models.audioclip.text import TextConfig, Transformer
from models.checkpoints import load_into, read_checkpoint
from models.segments import SECONDS
from models.weights import Weights, is_tiny

LARGEST_SCALE = 100.0
BYTE_VOCABULARY = 514  # 256 bytes, the same at a word's end, and the two marks: a tokenizer without merges


@dataclass(frozen=True)
class AudioCLIPConfig:
    """Every size. The defaults are the published network: 134 million numbers."""

    embed: int = 1024
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    repeats: int = SECONDS
    """How often a second is heard over: the published towers have learnt from five seconds at a time."""
    inverted: bool = True
    """Whether the cosines of places are low where the sound is, as the published towers' are."""

    @classmethod
    def tiny(cls) -> AudioCLIPConfig:
        """About a million and a half numbers. Its text tower reads bytes, so it needs no vocabulary file."""
        return cls(
            embed=128,
            image=ImageConfig(resolution=224, layers=(1, 1, 2, 1), width=16),
            text=TextConfig(vocabulary=BYTE_VOCABULARY, width=64, heads=2, layers=2),
            audio=AudioConfig(n_fft=1024, hop=735, window=1024, layers=(1, 1, 1, 1), planes=8, groups=4),
            repeats=1,
            inverted=False,
        )


class Output(NamedTuple):
    """Unit features [n, embed], scaled cosines [n, n] of each pair, and the loss; None where not given."""

    audio: Tensor | None
    image: Tensor | None
    text: Tensor | None
    logits_ai: Tensor | None
    logits_at: Tensor | None
    logits_it: Tensor | None
    loss: Tensor | None


class AudioCLIP(nn.Module):
    """`visual`, `audio` and the text tower, whose parts have no prefix in the checkpoint."""

    def __init__(self, config: AudioCLIPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioCLIPConfig()
        text = config.text
        self.visual = ImageTower(config.image, config.embed)
        self.audio = AudioTower(config.audio, config.embed)
        self.transformer = Transformer(text)
        self.token_embedding = nn.Embedding(text.vocabulary, text.width)
        self.positional_embedding = nn.Parameter(torch.randn(text.context, text.width) * 0.01)
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.randn(text.width, config.embed) * text.width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        # Each is the logarithm of its factor.
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.logit_scale_ai = nn.Parameter(torch.tensor(math.log(LARGEST_SCALE)))
        self.logit_scale_at = nn.Parameter(torch.tensor(math.log(LARGEST_SCALE)))

    def encode_image(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, embed], not normalised. `visual` gives the maps as well."""
        pooled: Tensor = self.visual(images).pooled
        return pooled

    def encode_audio(self, wave: Tensor, audio_scale: AudioScale = "int16") -> Tensor:
        """Mono sound [n, 1, samples] in [-1, 1] at 44.1 kHz -> [n, embed], not normalised."""
        features: Tensor = self.audio(wave, audio_scale)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token numbers [n, context] -> [n, embed], not normalised: read off where the sentence ends."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x))
        end = tokens.argmax(dim=1)  # the end mark has the largest number
        ends: Tensor = x[torch.arange(len(x), device=x.device), end]
        return ends @ self.text_projection

    def forward(
        self,
        audio: Tensor | None = None,
        image: Tensor | None = None,
        text: Tensor | None = None,
        audio_scale: AudioScale = "int16",
    ) -> Output:
        """Any of the three, row i of each about the same thing: features, logits and the loss."""
        kernel = None if audio is None else self.audio.fbsp.kernel()
        a = None if audio is None else unit(self.audio(audio, audio_scale, kernel))
        i = None if image is None else unit(self.encode_image(image))
        t = None if text is None else unit(self.encode_text(text))
        ai = similarity(a, i, self.logit_scale_ai)
        at = similarity(a, t, self.logit_scale_at)
        it = similarity(i, t, self.logit_scale)
        loss = contrast([logits for logits in (ai, at, it) if logits is not None])
        if kernel is not None:
            loss = tightness(kernel) if loss is None else loss + tightness(kernel)
        return Output(a, i, t, ai, at, it, loss)


def unit(features: Tensor) -> Tensor:
    """Rows of length one."""
    length: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / length


def similarity(rows: Tensor | None, columns: Tensor | None, log_scale: Tensor) -> Tensor | None:
    """Cosines [rows, columns] times exp(log_scale), kept within 1 and 100."""
    if rows is None or columns is None:
        return None
    return log_scale.exp().clamp(1.0, LARGEST_SCALE) * rows @ columns.T


def contrast(pairs: list[Tensor]) -> Tensor | None:
    """Each row should find its column and the other way round, in every pair of towers.

    The sum is divided by the factorial of the number of pairs, as published: 1 for two towers, 6 for three.
    """
    if not pairs:
        return None
    own = torch.arange(len(pairs[0]), device=pairs[0].device)
    terms = [F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own) for logits in pairs]
    return torch.stack(terms).sum() / math.factorial(len(pairs))


def build(name: str) -> AudioCLIP:
    """The network that a weight's file must fit: `audioclip` or `audioclip-tiny`."""
    return AudioCLIP(AudioCLIPConfig.tiny() if is_tiny(name) else None)


def load_audioclip(path: Path, config: AudioCLIPConfig | None = None) -> AudioCLIP:
    """A network in evaluation mode from our file or `AudioCLIP-Full-Training.pt`; every key must fit."""
    with torch.device("meta"):  # no time goes into random numbers that the file replaces
        network = AudioCLIP(config).to_empty(device="cpu")
    load_into(network, read_checkpoint(path), path.name)
    return network.eval()


def load(weights: Weights, device: torch.device | str = "cpu") -> AudioCLIP:
    """The installed AudioCLIP, checked, on the device, for inference only."""
    tiny = weights.identity("audioclip").family == "tiny"
    network = load_audioclip(weights.path("audioclip"), AudioCLIPConfig.tiny() if tiny else None)
    return network.to(device).requires_grad_(False)
