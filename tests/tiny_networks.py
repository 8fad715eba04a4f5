"""The tiny family with random weights, in a folder and loaded from it, and windows to try strategies on.

Random networks answer, but not as trained ones do: SAM's are made to see, and to give firm masks that it
thinks well of, and Grounding DINO's probabilities to spread, so that the steps behind them have something
to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import clap, grounding_dino_configs, sam
from models.acfpn import ACFPN, AcFpnConfig
from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.checkpoints import write_safetensors
from models.media import Window
from models.networks import Networks
from models.segments import AUDIOCLIP_RATE, CLAP_RATE
from models.tpavi import TPAVI, TpaviConfig, metadata_of
from models.vggish import RATE, Vggish, VggishConfig
from models.weights import Weights, record

FIRMNESS = 1e5  # what random mask logits, some ten-thousandths, are multiplied by
SIGHT = 0.02  # of an embedding's own size: another image then moves a fifth of a mask
OPINION = 0.95  # what SAM thinks of every mask, give or take


def tiny_networks(folder: Path, seed: int = 0) -> Networks:
    """Writes every tiny network to `folder` as the shipped ones are, and offers them from there."""
    torch.manual_seed(seed)
    family: dict[str, nn.Module] = {
        "audioclip": AudioCLIP(AudioCLIPConfig.tiny()),
        "ac-fpn": ACFPN(AcFpnConfig.tiny()),
        "tpavi": TPAVI(TpaviConfig.tiny()),
        "vggish": Vggish(VggishConfig.tiny()),
        "sam": firm(seeing(sam.build("sam-tiny"))),
        "grounding-dino": grounding_dino_configs.build("grounding-dino-tiny"),
        "clap": clap.build("clap-tiny"),
    }
    for name, network in family.items():
        path = folder / f"{name}.safetensors"
        told = metadata_of(network.config) if isinstance(network, TPAVI) else {}
        write_safetensors(path, dict(network.state_dict()), told)
        record(folder, f"{name}-tiny", path, source="this test", source_sha256="", licence="Apache-2.0")
    return Networks("cpu", Weights(folder / "none", tiny=folder))


def seeing(network: Any) -> Any:
    """SAM whose embeddings depend on the image: as transformers makes them, at 1e-10, all are nearly zero.
    Beside the prompt the image must say little, or random masks are speckles over the whole frame."""
    encoder = network.vision_encoder
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.02)
        encoder.neck.layer_norm2.weight.mul_(SIGHT)
    return network


def firm(network: Any) -> Any:
    """SAM with masks far from their threshold and a good opinion of them."""
    decoder = network.mask_decoder
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(FIRMNESS)
            head.proj_out.bias.mul_(FIRMNESS)
        decoder.iou_prediction_head.proj_out.bias.fill_(OPINION)
    return network


@contextmanager
def batches(module: nn.Module) -> Iterator[list[int]]:
    """The number of items in each call of a layer while the block runs."""
    sizes: list[int] = []
    hook = module.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        hook.remove()


def frames(count: int, size: tuple[int, int] = (72, 96), seed: int = 0) -> NDArray[np.uint8]:
    """RGB [count, *size, 3]: blocks of colour, another arrangement for each frame."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, 6, 8, 3), np.uint8)
    tall = blocks.repeat(-(-size[0] // 6), axis=1).repeat(-(-size[1] // 8), axis=2)
    return np.ascontiguousarray(tall[:, : size[0], : size[1]])


def window(
    *loudness: float, size: tuple[int, int] = (72, 96), pixels: NDArray[np.uint8] | None = None, seed: int = 0
) -> Window:
    """A frame of blocks and a second of a chord of each loudness: 0 is silence."""
    count = len(loudness)
    pixels = frames(count, size, seed) if pixels is None else pixels
    return Window(
        index=0,
        size=(pixels.shape[1], pixels.shape[2]),
        timestamps=tuple(map(float, range(count))),
        indices=tuple(range(count)),
        audio_windows=tuple((float(i), i + 1.0) for i in range(count)),
        frames=pixels,
        audio={rate: chords(loudness, rate, seed) for rate in (AUDIOCLIP_RATE, CLAP_RATE, RATE)},
        has_audio=any(loudness),
    )


def chords(loudness: tuple[float, ...], rate: int, seed: int) -> NDArray[np.float32]:
    """Seconds [n, rate] of three tones each, in [-1, 1]."""
    random = np.random.default_rng(seed)
    pitches = random.uniform(200, 4000, (len(loudness), 3, 1))
    tones = np.sin(2 * np.pi * pitches * np.arange(rate) / rate).mean(1)
    return (tones * np.array(loudness)[:, None]).astype(np.float32)
