"""CLAP: sounds and sentences in one space. A dot product says how well a name fits what is heard.

The network is transformers' `ClapModel` (HTSAT-tiny and RoBERTa-base, no fusion). Sound is prepared as the
original does: rounded to 16 bits, repeated to fill ten seconds, a log-mel spectrogram from 50 Hz to 14 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
SECONDS = 10  # what the network hears at a time
FREQUENCIES = (50, 14_000)  # Hz; below 50 the original filters have nothing
WINDOW, HOP = 1024, 480  # samples
MELS = 64
POWER_FLOOR = 1e-10  # -100 dB
TEXT_TOKENS = 77  # the longest sentence, its two ends included
CLIPS_PER_BATCH = 16

CONFIGS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        # RoBERTa's own epsilon; transformers' CLAP assumes BERT's.
        "clap-630k-audioset-best": {"text_config": {"layer_norm_eps": 1e-5}},
        "clap-tiny": {
            "projection_dim": 64,
            "text_config": {
                "vocab_size": TINY_BYTES,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "max_position_embeddings": 80,
                "layer_norm_eps": 1e-5,
                "projection_dim": 64,
            },
            "audio_config": {
                "hidden_size": 128,
                "patch_embeds_hidden_size": 16,
                "depths": [1, 1, 2, 1],
                "num_attention_heads": [1, 2, 4, 8],
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
        return Clap(network.to(device), tiny_roberta(TEXT_TOKENS))
    vocabulary, merges = weights.path("roberta-base-vocab"), weights.path("roberta-base-merges")
    return Clap(network.to(device), roberta(vocabulary, merges, TEXT_TOKENS))


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
        quantise: bool = True,
        clips_per_batch: int = CLIPS_PER_BATCH,
    ) -> None:
        self.network, self._tokens, self._quantise = network, tokens, quantise
        self._clips_per_batch = clips_per_batch
        self._filters = torch.from_numpy(
            mel_filter_bank(
                num_frequency_bins=WINDOW // 2 + 1,
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
        """Mono sound at 48 kHz, float32 [n, samples] in [-1, 1] -> unit rows [n, d]. Hears the first 10 s."""
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
        heard = filled(quantised(sound) if self._quantise else sound)
        hidden = self.network.audio_model(self.log_mel(torch.from_numpy(heard).to(self.device))).pooler_output
        return F.normalize(self.network.audio_projection(hidden), dim=-1)

    def log_mel(self, sound: Tensor) -> Tensor:
        """Sound [n, samples] -> decibels [n, 1, time, mel], time in steps of 10 ms.

        In double precision: beside a loud tone, single precision's rounding would fill the silent bands.
        """
        window = torch.hann_window(WINDOW, dtype=torch.float64, device=sound.device)
        spectrum = torch.stft(sound.double(), WINDOW, HOP, window=window, return_complex=True)
        power = self._filters @ (spectrum.real**2 + spectrum.imag**2)
        return 10 * power.clamp(min=POWER_FLOOR).log10().mT[:, None].float()

    @torch.inference_mode()
    def text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit rows [n, d]. A sentence seen before is not computed again."""
        return self._rows(sentences)

    def _text(self, sentences: Sequence[str]) -> Tensor:
        ids, real = self._tokens.batch(sentences)
        outputs = self.network.text_model(ids.to(self.device), attention_mask=real.long().to(self.device))
        return F.normalize(self.network.text_projection(outputs.pooler_output), dim=-1)


def filled(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Repeated as often as it fits into ten seconds, silence after that; cut where it is longer."""
    length = SECONDS * SAMPLE_RATE
    whole = np.tile(sound[:, :length], (1, max(1, length // max(1, sound.shape[1]))))
    return np.pad(whole, ((0, 0), (0, length - whole.shape[1])))
