"""AudioCLIP as strategies ask it: unit features of sounds, sentences and pictures, and maps of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.audioclip.audio import AudioScale
from models.audioclip.audioclip import AudioCLIP, unit
from models.audioclip.tokenizer import Tokenizer
from models.text_rows import TextRows
from models.weights import Weights


class AudioClipEncoder:
    """Implements `SoundTextEncoder` for sound at 44.1 kHz. Safe to share between threads."""

    def __init__(self, network: AudioCLIP, tokenizer: Tokenizer) -> None:
        self.network, self._tokenizer = network, tokenizer
        self.resolution = network.config.image.resolution
        self.inverted = network.config.inverted
        self._rows = TextRows(self._text)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.text_projection.device

    @torch.inference_mode()
    def audio(
        self, sound: NDArray[np.float32], scale: AudioScale = "int16", repeats: int | None = None
    ) -> Tensor:
        """Mono sound [n, samples] in [-1, 1] -> unit rows [n, embed]. A second is heard as often as the
        network is used to, unless `repeats` says otherwise."""
        wave = torch.from_numpy(sound).to(self.device)[:, None].tile(repeats or self.network.config.repeats)
        return unit(self.network.encode_audio(wave, scale))

    @torch.inference_mode()
    def text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit rows [n, embed]. A sentence seen before is not computed again."""
        return self._rows(sentences)

    def _text(self, sentences: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(sentences, self.network.config.text.context)
        return unit(self.network.encode_text(tokens.to(self.device)))

    @torch.inference_mode()
    def pictures(self, images: Tensor) -> Tensor:
        """Images [n, 3, H, W] as `preprocess` makes them -> unit rows [n, embed]."""
        return unit(self.network.encode_image(images))

    @torch.inference_mode()
    def maps(self, images: Tensor, *, surgery: bool) -> tuple[Tensor, Tensor]:
        """Images -> what each place looks like [n, embed, h, w], and unit rows of the whole [n, embed].

        The rows are CLIP's own, whether the maps come by surgery or not: only the last layer runs twice.
        """
        tower = self.network.visual
        features = tower(images)
        places = tower.attnpool(features.maps[3], surgery=True)[0] if surgery else features.maps[4]
        return places, unit(features.pooled)


def tokenizer(weights: Weights) -> Tokenizer:
    """What the installed text tower reads: byte pairs, or bytes where it is the tiny one."""
    if weights.identity("audioclip").family == "tiny":
        return Tokenizer()
    return Tokenizer.from_file(weights.path("audioclip-bpe"))
