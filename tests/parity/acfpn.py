"""acfpn.npz: every fusion's logits and neck for five frames and five sounds in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.acfpn import ACFPN, FUSIONS, AcFpnConfig, Upsampling
from tests.parity.golden import Arrays, Golden
from tests.parity.row import INPUTS, LOGITS, Row, exact, relative, statistics

IMAGE_SEED = 20
SECONDS = 5
FADE = 0.15  # each second is this much of the first one's loudness weaker than the last
LOGITS_PREFIX = "logits_"
NECK_OF = "concate"  # the variant whose neck maps the file holds


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """The variants are those whose logits the file holds."""
    want, encoder = golden.arrays("acfpn"), golden.audioclip
    count, size = len(want["imgs_sub"]), want["logits_concate"].shape[-1]
    images = golden.det.images(count, size, IMAGE_SEED)
    step = size // want["imgs_sub"].shape[-1]
    yield relative("imgs_sub", images[..., ::step, ::step], want["imgs_sub"], INPUTS)
    sound = encoder.encode_audio(segments(golden, count), "paper")
    yield relative("audio_features", sound, want["audio_features"])
    for name in want:
        if name.startswith(LOGITS_PREFIX):
            yield from variant(golden, want, name.removeprefix(LOGITS_PREFIX), images, sound)


def segments(golden: Golden, count: int) -> Tensor:
    """[count, 1, five seconds]: the waves in turn, each weaker, tiled."""
    waves = [golden.waves[i % len(golden.waves)] * (1 - FADE * i) for i in range(count)]
    return torch.stack(waves)[:, None].tile(SECONDS)


def build(golden: Golden, variant: str) -> ACFPN:
    """The network that the authors' code calls `variant`; it shares the golden AudioCLIP."""
    reference = variant.removesuffix("_nearest")
    fusion = next(name for name, entry in FUSIONS.items() if entry.reference == reference)
    upsampling: Upsampling = "bilinear" if reference == variant else "nearest"
    network = ACFPN(AcFpnConfig(fusion=fusion, upsampling=upsampling), golden.audioclip)
    golden.fill(network.neck, "neck.")
    golden.fill(network.head, "head.")
    return network.eval()


def variant(golden: Golden, want: Arrays, name: str, images: Tensor, sound: Tensor) -> Iterator[Row]:
    """One fusion: logits, and what else the file holds of it: neck, numbers of parameters."""
    network, necks = build(golden, name), []
    hook = network.neck.register_forward_hook(lambda _module, _inputs, output: necks.extend(output))
    logits = network.segment(images, sound)[:, 0]
    hook.remove()
    golden_logits = want[LOGITS_PREFIX + name]
    step = logits.shape[-1] // golden_logits.shape[-1]
    yield relative(LOGITS_PREFIX + name, logits[:, ::step, ::step], golden_logits, LOGITS)
    if (stored := f"neck_stats_{name}") in want:
        yield statistics(stored, np.stack([golden.det.stats(level) for level in necks]), want[stored])
    for stored, part in ((f"nparam_{name}", network), (f"nparam_frozen_{name}", network.aclp.audio)):
        if stored in want:
            yield exact(stored, parameters(part), want[stored])
    if name == NECK_OF:
        for i, level in enumerate(necks):
            kept = want[f"neck{i}_sub"]
            yield relative(f"neck{i}_sub", level[: len(kept), :: level.shape[1] // kept.shape[1]], kept)


def parameters(module: torch.nn.Module) -> np.ndarray[Any, Any]:
    """How many numbers it learns, each counted once."""
    return np.array(sum(parameter.numel() for parameter in module.parameters()))
