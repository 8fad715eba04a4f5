"""The networks in full size with random weights, on one clip of AVSBench: five frames, five seconds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from models.acfpn import ACFPN
from models.audioclip import AudioCLIP
from models.audioclip import fbsp as fbsp_module
from models.audioclip.audio import AudioConfig, AudioTower
from models.audioclip.image import ImageConfig, ImageTower
from models.heatmap import heatmaps
from tests.bench.timing import Timing, device, measure

FRAMES = 5
SIZE = 224
SAMPLES = 220_500  # 5 s at 44.1 kHz
EMBED = 1024


def images() -> Tensor:
    return torch.randn(FRAMES, 3, SIZE, SIZE, device=device())


def sounds() -> Tensor:
    return torch.randn(FRAMES, 1, SAMPLES, device=device()) * 0.1


@torch.inference_mode()
def audio_tower() -> Iterator[Timing]:
    """Five seconds of sound, each repeated to five, as one batch."""
    tower = AudioTower(AudioConfig(), EMBED).to(device()).eval()
    sound = sounds()
    yield measure("audio-tower", lambda: tower(sound), segments=FRAMES)


@torch.inference_mode()
def image_tower() -> Iterator[Timing]:
    """Five frames as one batch, plain."""
    tower = ImageTower(ImageConfig(), EMBED).to(device()).eval()
    frames = images()
    yield measure("image-tower", lambda: tower(frames), frames=FRAMES)


@torch.inference_mode()
def heat_map() -> Iterator[Timing]:
    """Image tower with surgery, audio tower, and the maps."""
    network = AudioCLIP().to(device()).eval()
    frames, sound = images(), sounds()

    def call() -> Tensor:
        features = network.visual(frames, surgery=True).maps[-1]
        return heatmaps(features, network.encode_audio(sound), (SIZE, SIZE), reverse=True)

    yield measure("heat-map", call, frames=FRAMES)


@torch.inference_mode()
def ac_fpn() -> Iterator[Timing]:
    """Five frames and five sounds in one call, and one by one for comparison."""
    network = ACFPN().to(device()).eval()
    frames, sound = images(), sounds()
    batches: list[int] = []
    hook = network.aclp.audio.conv1.register_forward_hook(
        lambda _m, inputs, _o: batches.append(len(inputs[0]))
    )
    network(frames, sound)
    hook.remove()
    yield measure("ac-fpn", lambda: network(frames, sound), frames=FRAMES, audio_batch=batches[0])
    one_by_one = [(frames[[i]], sound[[i]]) for i in range(FRAMES)]
    yield measure("ac-fpn-one-by-one", lambda: [network(*pair) for pair in one_by_one], frames=FRAMES)


@torch.inference_mode()
def fbsp_kernel() -> Iterator[Timing]:
    """The filters alone: `first_seconds` computes them, `seconds` finds them; `computed` counts all."""
    fbsp = fbsp_module.FBSP(AudioConfig().n_fft).to(device())
    computed = 0
    real = fbsp_module.filters

    def counted(m: Tensor, fb: Tensor, fc: Tensor, n_fft: int) -> Tensor:
        nonlocal computed
        computed += 1
        return real(m, fb, fc, n_fft)

    fbsp_module.filters = counted
    timing = measure("fbsp-kernel", fbsp.kernel)
    timing.details["computed"] = computed
    fbsp_module.filters = real
    yield timing
