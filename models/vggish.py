"""VGGish: 0.96 s of sound -> 128 numbers. The ears of TPAVI, and never trained here.

sound at 16 kHz -> magnitudes of a Fourier transform -> 64 mel bands, logarithm -> examples of 96 frames
an example [1, 96, 64] -> six convolutions -> three layers -> 128 numbers from 0 on
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoints import load_into, read_checkpoint
from models.errors import WeightsInvalid
from models.key_rules import VGGISH
from models.weights import Weights

RATE = 16_000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
BANDS = 64
LOWEST, HIGHEST = 125.0, 7500.0  # Hz
OFFSET = 0.01  # under the logarithm
FRAMES = 96  # of an example: 0.96 s
CONVOLUTIONS = (0, 3, 6, 8, 11, 13)  # among the layers of `features`; the rest are ReLUs and pools
EXAMPLE = (FRAMES - 1) * HOP + WINDOW  # samples that an example is made of

Wave = NDArray[np.float32]


def examples(wave: Wave, count: int | None = None) -> Tensor:
    """Sound [samples] in [-1, 1] at RATE -> log-mel examples [n, 1, FRAMES, BANDS], one after another.

    As many as fit, or `count`: too many are cut off, and of too few the last is repeated, as AVSBench's
    loader does. Sound too short for one is repeated until it is one; no sound at all is silence.
    """
    if len(wave) < EXAMPLE:
        wave = np.resize(wave, EXAMPLE) if len(wave) else np.zeros(EXAMPLE, np.float32)
    frames = log_mel(wave)
    whole = frames[: len(frames) // FRAMES * FRAMES].reshape(-1, 1, FRAMES, BANDS)
    if count is not None:
        whole = whole[np.minimum(np.arange(count), len(whole) - 1)]
    return torch.from_numpy(whole.astype(np.float32))


def log_mel(wave: Wave) -> NDArray[np.float64]:
    """[samples] -> [frames, BANDS]; what does not fill a window at the end is left out."""
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * hann, FFT))
    return np.log(magnitudes @ mel_matrix() + OFFSET)


@cache
def mel_matrix() -> NDArray[np.float64]:
    """[bins, BANDS]: triangles that are linear in mel; the bin at 0 Hz belongs to none."""
    bins = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    matrix = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    matrix[0] = 0
    return matrix


def mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """HTK's mel scale."""
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))


@dataclass(frozen=True)
class VggishConfig:
    """Channels of the six convolutions, and the width of the two inner layers. The defaults are VGGish's."""

    channels: tuple[int, int, int, int, int, int] = (64, 128, 256, 256, 512, 512)
    hidden: int = 4096
    embed: int = 128

    @classmethod
    def tiny(cls) -> VggishConfig:
        """As many layers."""
        return cls(channels=(4, 8, 8, 8, 16, 16), hidden=64)


class Vggish(nn.Module):
    """Examples [n, 1, FRAMES, BANDS] -> [n, embed], none below 0."""

    def __init__(self, config: VggishConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VggishConfig()
        one, two, three, four, five, six = config.channels
        self.features = nn.Sequential(
            *(*convolution(1, one), pool()),
            *(*convolution(one, two), pool()),
            *(*convolution(two, three), *convolution(three, four), pool()),
            *(*convolution(four, five), *convolution(five, six), pool()),
        )
        places = (FRAMES // 16) * (BANDS // 16)
        self.embeddings = nn.Sequential(
            *(nn.Linear(places * six, config.hidden), nn.ReLU()),
            *(nn.Linear(config.hidden, config.hidden), nn.ReLU()),
            *(nn.Linear(config.hidden, config.embed), nn.ReLU()),
        )

    def forward(self, examples: Tensor) -> Tensor:
        x = self.features(examples)
        embedding: Tensor = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as trained
        return embedding


def convolution(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()


def pool() -> nn.Module:
    return nn.MaxPool2d(2)


def build(name: str) -> Vggish:  # noqa: ARG001
    """The published network, of which there is one size."""
    return Vggish()


def load_vggish(path: Path) -> Vggish:
    """From our file or the published one, for inference only; its sizes are those of its tensors."""
    state = VGGISH.apply(read_checkpoint(path))
    with torch.device("meta"):
        network = Vggish(config_of(path, state)).to_empty(device="cpu")
    load_into(network, state, path.name)
    return network.eval().requires_grad_(False)


def config_of(path: Path, state: Mapping[str, Tensor]) -> VggishConfig:
    """The widths of a file's layers."""
    try:
        one, two, three, four, five, six = (len(state[f"features.{i}.bias"]) for i in CONVOLUTIONS)
        hidden, embed = len(state["embeddings.0.bias"]), len(state["embeddings.4.bias"])
    except KeyError as missing:
        raise WeightsInvalid(f"{path.name} does not fit Vggish: {missing.args[0]} is missing.") from None
    return VggishConfig((one, two, three, four, five, six), hidden, embed)


def load(weights: Weights, device: torch.device | str = "cpu") -> Vggish:
    """The installed VGGish, checked, on the device."""
    return load_vggish(weights.path("vggish")).to(device)
