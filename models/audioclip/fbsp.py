"""FBSP: a bank of complex frequency B-spline wavelets in place of a Fourier transform's rows.

Three numbers a filter are learned: the order m, the bandwidth fb and the centre fc. At m = 0, fb = 1 and
fc = 0, 1, 2... the bank is the discrete Fourier transform, which is where training starts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-8


class FBSP(nn.Module):
    """Frames -> spectrum. The filters are kept per device while the parameters stay what they were."""

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        filters = n_fft // 2 + 1
        self.n_fft = n_fft
        self.m = nn.Parameter(torch.zeros(filters))
        self.fb = nn.Parameter(torch.ones(filters))
        self.fc = nn.Parameter(torch.arange(filters, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(0))  # holds nothing; AudioCLIP's checkpoint has the key
        self._kept: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, frames: Tensor, kernel: Tensor | None = None) -> Tensor:
        """Frames [n, T, length <= n_fft], centred in n_fft -> [n, 2, filters, T], real and imaginary."""
        kernel = self.kernel() if kernel is None else kernel
        pad = self.n_fft - frames.shape[-1]
        # Leaving out the taps that meet zeros would save a fifth of the product, but sum in another order: in
        # quiet bins, where all cancels, decibels would then be 1e-4 of their range off the reference's.
        spectrum = product(F.pad(frames, (pad // 2, pad - pad // 2)), kernel.flatten(1))
        return spectrum.reshape(*frames.shape[:2], 2, -1).permute(0, 2, 3, 1)

    def kernel(self) -> Tensor:
        """The filters [n_fft, 2, filters]: computed each time if they are learning, else once per device.

        What is kept is compared by the parameters' values, so it notices a change made in any way. Several
        threads may read and replace it: at worst two of them compute the same filters.
        """
        learning = [p for p in (self.m, self.fb, self.fc) if p.requires_grad and torch.is_grad_enabled()]
        if learning:
            for parameter in learning:
                even_out(parameter)
            return filters(self.m, self.fb, self.fc, self.n_fft)
        # Not an inference tensor: a later call may be one that records gradients of something else.
        with torch.inference_mode(False), torch.no_grad():
            values = torch.stack([self.m, self.fb, self.fc])
            kept = self._kept.get(values.device)
            # `equal` looks past the precision: filters of another one would not multiply.
            if kept is None or kept[0].dtype != values.dtype or not torch.equal(kept[0], values):
                kept = values, filters(values[0], values[1], values[2], self.n_fft)
                self._kept[values.device] = kept
        return kept[1]


def filters(m: Tensor, fb: Tensor, fc: Tensor, n_fft: int) -> Tensor:
    """The wavelets [n_fft, 2, filters]: sqrt(fb) sinc(fb t / m)^m exp(-i fc t) / sqrt(n_fft).

    The base of the power is real and its exponent too; where it is negative, the power is complex, with the
    angle pi m. Everything is in the order, the layout and the precision of the reference.
    """
    t = torch.pi * torch.linspace(-1, 1, n_fft, device=m.device, dtype=m.dtype) + EPSILON
    m, fb, fc = m[:, None], fb[:, None], fc[:, None]
    angle = fc * t
    z = fb * t / (m + EPSILON)
    sinc = torch.where(z == 0, 1.0, torch.sin(z) / torch.where(z == 0, 1.0, z))
    magnitude = sinc.square() ** (m / 2)
    turn = m * torch.atan2(torch.zeros_like(sinc), sinc)
    window_re, window_im = magnitude * torch.cos(turn), magnitude * torch.sin(turn)
    wave_re, wave_im = torch.cos(angle), -torch.sin(angle)
    real = window_re * wave_re - window_im * wave_im
    imaginary = window_re * wave_im + window_im * wave_re
    wavelets = fb.sqrt() * torch.stack([real, imaginary]) / math.sqrt(n_fft)
    return wavelets.permute(2, 0, 1).contiguous()


def product(frames: Tensor, kernel: Tensor) -> Tensor:
    """Frames times filters. A GPU may have been told to round float32 to TF32's ten bits, by a container's
    environment even, and quiet bins then drown: AC-FPN's mIoU+ fell from 0.787 to 0.495. Double is never
    rounded, and this product is small."""
    if frames.device.type != "cuda":
        return frames @ kernel
    return (frames.double() @ kernel.double()).to(frames.dtype)


def tightness(kernel: Tensor) -> Tensor:
    """How far the filters are from unit norm: the mean square of norm - 1. AudioCLIP's `loss_ttf`."""
    norms = torch.linalg.vector_norm(kernel, dim=(0, 1))
    return F.mse_loss(norms, torch.ones_like(norms))


def even_out(parameter: Tensor) -> None:
    """Hook `unit_gradient` to a parameter, once. A copied or replaced tensor has lost its hooks, so this is
    asked for whenever a gradient may come."""
    if unit_gradient not in (parameter._backward_hooks or {}).values():
        parameter.register_hook(unit_gradient)  # type: ignore[no-untyped-call]


def unit_gradient(gradient: Tensor) -> Tensor:
    """A gradient of at most one: the three parameters live on very different scales."""
    return gradient / (gradient.abs().max() + EPSILON)
