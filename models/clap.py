"""CLAP: sounds and sentences in one space. A dot product says how well a name fits what is heard.

The network is transformers' `ClapModel` (HTSAT-tiny and RoBERTa-base, no fusion). Sound is prepared as the
original does: rounded to 16 bits, repeated to fill ten seconds, a log-mel spectrogram from 50 Hz to 14 kHz.
The tiny network hears one second, for no more is asked of it, in longer windows: it tells chords apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import ClapConfig, ClapModel
from transformers.audio_utils import mel_filter_bank
from transformers.initialization import no_init_weights

from models.checkpoints import load_into, read_safetensors
from models.segments import quantised
from models.text_rows import TextRows
from models.text_tokens import TINY_BYTES, TextTokens, roberta, tiny_roberta
from models.weights import Weights

SAMPLE_RATE = 48_000  # Hz
FREQUENCIES = (50, 14_000)  # Hz; below 50 the original filters have nothing
MELS = 64
TEXT_TOKENS = 77  # the longest sentence, its two ends included
CLIPS_PER_BATCH = 16


@dataclass(frozen=True)
class Hearing:
    """What of a sound reaches the network: how many seconds, seen through windows of how many samples, and
    from which power on: below it is what rounding to 16 bits leaves."""

    seconds: int = 10
    window: int = 1024
    hop: int = 480
    floor: float = 1e-10


HEARING: Mapping[str, Hearing] = MappingProxyType(
    {"clap-630k-audioset-best": Hearing(), "clap-tiny": Hearing(seconds=1, window=2048, hop=760, floor=1e-6)}
)
CONFIGS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        # RoBERTa's own epsilon; transformers' CLAP assumes BERT's.
        "clap-630k-audioset-best": {"text_config": {"layer_norm_eps": 1e-5}},
        "clap-tiny": {
            "projection_dim": 64,
            "text_config": {
                "vocab_size": TINY_BYTES,
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "max_position_embeddings": 80,
                "layer_norm_eps": 1e-5,
                "initializer_factor": 3.0,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "projection_dim": 64,
            },
            # A second is 64 windows of 64 mel bands. Patches are as tall as all bands: the mean over patches
            # would forget which band a smaller one is from, and hearing takes far longer to learn then.
            "audio_config": {
                "spec_size": 64,
                "window_size": 1,
                "patch_size": [64, 24],
                "patch_stride": [64, 16],
                "hidden_size": 128,
                "patch_embeds_hidden_size": 128,
                "depths": [2],
                "num_attention_heads": [4],
                "hidden_dropout_prob": 0.0,
                "projection_dim": 64,
            },
        },
    }
)


def build(name: str, *, initialise: bool = True) -> ClapModel:
    """The network of a weight's name, in evaluation mode: random, or undefined when about to be loaded."""
    config = ClapConfig(**CONFIGS[name])
    if initialise:
        return ClapModel(config).eval()
    with no_init_weights():
        return ClapModel(config).eval()


def load(weights: Weights, device: torch.device | str = "cpu") -> Clap:
    """The installed CLAP, checked, on the device."""
    name = weights.resolve("clap")
    path = weights.path(name)
    network = build(name, initialise=False)
    load_into(network, read_safetensors(path), path.name)
    if name == "clap-tiny":
        return tiny(network.to(device))
    vocabulary, merges = weights.path("roberta-base-vocab"), weights.path("roberta-base-merges")
    return Clap(network.to(device), roberta(vocabulary, merges, TEXT_TOKENS))


def tiny(network: ClapModel) -> Clap:
    """The shipped size of it: spells, and hears a second."""
    return Clap(network, tiny_roberta(TEXT_TOKENS), hearing=HEARING["clap-tiny"])


class Clap:
    """Implements `SoundTextEncoder`. Safe to share between threads.

    `quantise` rounds sound to 16 bits first, as the original does for files and arrays; the paper's code
    hands over tensors, which it leaves alone.
    """

    def __init__(
        self,
        network: ClapModel,
        tokens: TextTokens,
        *,
        hearing: Hearing = HEARING["clap-630k-audioset-best"],
        quantise: bool = True,
        clips_per_batch: int = CLIPS_PER_BATCH,
    ) -> None:
        self.network, self.tokens, self.hearing, self._quantise = network, tokens, hearing, quantise
        self._clips_per_batch = clips_per_batch
        self._filters = torch.from_numpy(
            mel_filter_bank(
                num_frequency_bins=hearing.window // 2 + 1,
                num_mel_filters=MELS,
                min_frequency=FREQUENCIES[0],
                max_frequency=FREQUENCIES[1],
                sampling_rate=SAMPLE_RATE,
                norm="slaney",
                mel_scale="slaney",
            )
        ).T.to(self.device)
        self._rows = TextRows(self._text)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    @torch.inference_mode()
    def audio(self, sound: NDArray[np.float32]) -> Tensor:
        """Mono sound at 48 kHz, float32 [n, samples] in [-1, 1] -> unit rows [n, d].

        Hears the first seconds, as many as the network does.
        """
        rows = [
            self._audio(sound[i : i + self._clips_per_batch])
            for i in range(0, len(sound), self._clips_per_batch)
        ]
        return (
            torch.cat(rows)
            if rows
            else torch.empty(0, self.network.config.projection_dim, device=self.device)
        )

    def _audio(self, sound: NDArray[np.float32]) -> Tensor:
        heard = filled(quantised(sound) if self._quantise else sound, self.hearing.seconds)
        hidden = self.network.audio_model(self.log_mel(torch.from_numpy(heard).to(self.device))).pooler_output
        return F.normalize(self.network.audio_projection(hidden), dim=-1)

    def log_mel(self, sound: Tensor) -> Tensor:
        """Sound [n, samples] -> decibels [n, 1, time, mel], time in steps of the hop.

        In double precision: beside a loud tone, single precision's rounding would fill the silent bands.
        """
        return self.decibels(self.power(sound, torch.float64).mT)

    def power(self, sound: Tensor, precision: torch.dtype) -> Tensor:
        """Sound [n, samples] -> the power of its mel bands [n, mel, time]."""
        size, hop = self.hearing.window, self.hearing.hop
        window = torch.hann_window(size, dtype=precision, device=sound.device)
        spectrum = torch.stft(sound.to(precision), size, hop, window=window, return_complex=True)
        return self._filters.to(precision) @ (spectrum.real**2 + spectrum.imag**2)

    def decibels(self, power: Tensor) -> Tensor:
        """Powers [n, time, mel] -> what the network reads, [n, 1, time, mel]."""
        return 10 * power.clamp(min=self.hearing.floor).log10()[:, None].float()

    @torch.inference_mode()
    def text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit rows [n, d]. A sentence seen before is not computed again."""
        return self._rows(sentences)

    def _text(self, sentences: Sequence[str]) -> Tensor:
        ids, real = self.tokens.batch(sentences)
        outputs = self.network.text_model(ids.to(self.device), attention_mask=real.long().to(self.device))
        return F.normalize(self.network.text_projection(outputs.pooler_output), dim=-1)


def filled(sound: NDArray[np.float32], seconds: int) -> NDArray[np.float32]:
    """Repeated as often as it fits into so many seconds, silence after that; cut where it is longer."""
    length = seconds * SAMPLE_RATE
    whole = np.tile(sound[:, :length], (1, max(1, length // max(1, sound.shape[1]))))
    return np.pad(whole, ((0, 0), (0, length - whole.shape[1])))
