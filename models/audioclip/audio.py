"""AudioCLIP's audio tower: a waveform through learned complex filters into a ResNeXt with attention gates.

The steps: scale, cut into frames, filter (FBSP: a Fourier transform whose windows are learned), split the
bins into three bands that become the channels of an image, decibels, ResNeXt. Mono sound at 44.1 kHz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.audioclip.fbsp import FBSP
from models.resnet import EXPANSION, stage

INT16_SCALE = 32_768.0  # what AudioCLIP's own training multiplied its waveforms in [-1, 1] by
BANDS = 3
SILENCE = 1e-18  # power, -180 dB: what an exact zero counts as
BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)

AudioScale = Literal["int16", "paper"]


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the audio tower. Lengths are in samples; `planes` is the inside of the first stage's blocks,
    before `group_width` scales it: a ResNeXt-50 32x4d."""

    n_fft: int = 2048
    hop: int = 561
    window: int = 1654
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    planes: int = 64
    groups: int = 32
    group_width: int = 4

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the four stages."""
        base = self.planes * EXPANSION
        return base, base * 2, base * 4, base * 8


class AudioTower(nn.Module):
    """Waveforms -> features. The window is a buffer, and part of the checkpoint."""

    window: Tensor

    def __init__(self, config: AudioConfig, embed: int) -> None:
        super().__init__()
        self.hop = config.hop
        self.register_buffer("window", blackman_harris(config.window))
        self.fbsp = FBSP(config.n_fft)
        one, two, three, four = config.channels
        self.conv1 = nn.Conv2d(BANDS, config.planes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.planes)
        self.layer1 = gated_stage(config, config.planes, 0)
        self.att1 = Gate(config.planes, one, (3, 1))
        self.layer2 = gated_stage(config, one, 1)
        self.att2 = Gate(one, two, (1, 5))
        self.layer3 = gated_stage(config, two, 2)
        self.att3 = Gate(two, three, (3, 1))
        self.layer4 = gated_stage(config, three, 3)
        self.att4 = Gate(three, four, (1, 5))
        self.att5 = Gate(four, four, (3, 5))
        self.fc = nn.Linear(four, embed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, wave: Tensor, audio_scale: AudioScale = "int16", kernel: Tensor | None = None
    ) -> Tensor:
        """[n, channels, samples] in [-1, 1] -> [n, embed], not normalised; channels are heard one by one and
        added. `kernel` is the filters' where the caller has them already."""
        x = self.decibels(self.fbsp(self.frames(scaled(wave, audio_scale)), kernel))
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        x = gated(x, self.layer1, self.att1)
        x = gated(x, self.layer2, self.att2)
        x = gated(x, self.layer3, self.att3)
        x = gated(x, self.layer4, self.att4)
        x = F.adaptive_avg_pool2d(x, 1) * self.att5(x, (1, 1))
        x = x.reshape(*wave.shape[:2], -1).sum(1)
        features: Tensor = self.fc(x)
        return features

    @torch.no_grad()
    def frames(self, wave: Tensor) -> Tensor:
        """[n, channels, samples] -> windowed frames [n * channels, T, window]; zeros fill both ends."""
        wave = wave.flatten(0, 1)
        size = self.window.numel()
        count = 1 + max(0, math.ceil((wave.shape[-1] - size) / self.hop))
        pad = (count - 1) * self.hop + size - wave.shape[-1]
        padded = F.pad(wave, (pad // 2, pad - pad // 2))
        frames: Tensor = padded.unfold(-1, size, self.hop) * self.window
        return frames

    @staticmethod
    def decibels(spectrum: Tensor) -> Tensor:
        """[n, 2, bins, T] real and imaginary -> dB [n, 3, bins // 3, T]: three bands as three channels."""
        power = spectrum.square().sum(1)
        bins = power.shape[1] // BANDS * BANDS
        power = torch.where(power > 0, power, SILENCE)[:, :bins]
        decibels = 10 * power.log10()
        return decibels.reshape(len(power), BANDS, bins // BANDS, -1)


def scaled(wave: Tensor, audio_scale: AudioScale) -> Tensor:
    """[-1, 1] -> what the tower expects. The order of operations is the reference's and has to be.

    The formula maps the range of int16 to [-1, 1]. Fed with +-1, as the paper's code does, the first sum
    rounds the sound to some 200 levels: any other order of the same sum gives other features.
    """
    if audio_scale == "int16":
        wave = wave * INT16_SCALE
    return (((wave - (-32768.0)) * 2.0) / 65535.0) + (-1.0)


def gated(x: Tensor, layer: nn.Module, gate: nn.Module) -> Tensor:
    """A stage's output times what the gate makes of its input."""
    y: Tensor = layer(x)
    weight: Tensor = gate(x, y.shape[-2:])
    return y * weight


class Gate(nn.Module):
    """Which places of a stage's output matter: pooled, filtered along time or frequency, sigmoid."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.conv_point = nn.Conv2d(channels, out, 1)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        pooled = F.adaptive_max_pool2d(x, size)
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))


def gated_stage(config: AudioConfig, channels: int, level: int) -> nn.Sequential:
    """The blocks of stage `level`: the first takes the stride, which every stage but the first has."""
    planes = config.planes * 2**level
    inside = planes * config.group_width // config.planes * config.groups
    stride = 1 if level == 0 else 2
    return stage(channels, planes, config.layers[level], stride, inside=inside, groups=config.groups)


def blackman_harris(size: int) -> Tensor:
    """The periodic four-term Blackman-Harris window, computed in double and rounded once."""
    phase = 2 * np.pi * np.arange(size) / size
    window = sum((-1) ** i * a * np.cos(i * phase) for i, a in enumerate(BLACKMAN_HARRIS))
    return torch.from_numpy(np.asarray(window, np.float32))
