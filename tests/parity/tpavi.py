"""tpavi.npz: five frames and their sound through both backbones, one block alone, and AVSS's classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from models.tpavi import CLIP_FRAMES, TPAVI, BackboneName, TpaviConfig
from tests.parity.acfpn import parameters
from tests.parity.golden import Arrays, Golden
from tests.parity.row import INPUTS, LOGITS, Row, exact, relative, statistics

IMAGE_SEED, AUDIO_SEED, BLOCK_SEED = 40, 41, 42
SIZE = 224
BLOCK_SIDE, BLOCK_STEP = 7, 16  # of the block's input; which of its channels the file holds
AVSS_SLOTS, CLASS_STEP = 10, 8  # frames that AVSS pads a clip to; which of the classes the file holds
PREFIXES = {"resnet50": "resnet", "pvt-v2-b5": "pvt"}


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """Images and sound are the same throughout."""
    want = golden.arrays("tpavi")
    images = golden.det.images(CLIP_FRAMES, SIZE, IMAGE_SEED)
    sound = golden.normal(AUDIO_SEED, *want["audio"].shape).abs()
    yield relative("audio", sound, want["audio"], INPUTS)
    for backbone in get_args(BackboneName):
        yield from variant(golden, want, backbone, images, sound)
    yield semantic(golden, want, images, sound)


def build(golden: Golden, config: TpaviConfig) -> TPAVI:
    """A network with the folder's weights."""
    network = TPAVI(config)
    golden.fill(network)
    return network


def variant(
    golden: Golden, want: Arrays, backbone: BackboneName, images: Tensor, sound: Tensor
) -> Iterator[Row]:
    """One backbone: logits, the stages' maps and sound, a block alone, the number of parameters."""
    network, prefix = build(golden, TpaviConfig.of(backbone)), PREFIXES[backbone]
    answer = network(images, sound)
    yield relative(
        f"{prefix}_logits_sub", answer.logits[:, 0, ::4, ::4], want[f"{prefix}_logits_sub"], LOGITS
    )
    stats = np.stack([golden.det.stats(stage) for stage in answer.maps])
    yield statistics(f"{prefix}_map_stats", stats, want[f"{prefix}_map_stats"])
    yield exact(
        f"{prefix}_map_min", np.array([stage.min() for stage in answer.maps]), want[f"{prefix}_map_min"]
    )
    yield relative(f"{prefix}_a_fea", torch.stack(answer.audio), want[f"{prefix}_a_fea"])
    yield exact(f"{prefix}_nparam", parameters(network), want[f"{prefix}_nparam"])
    clip = golden.normal(BLOCK_SEED, 1, network.config.channels, CLIP_FRAMES, BLOCK_SIDE, BLOCK_SIDE)
    out, _ = network.tpavi_b4(clip[0].transpose(0, 1), sound, CLIP_FRAMES)
    kept = out.transpose(0, 1)[None, ::BLOCK_STEP]
    yield relative(f"{prefix}_tpavi_b4_out", kept, want[f"{prefix}_tpavi_b4_out"])


def semantic(golden: Golden, want: Arrays, images: Tensor, sound: Tensor) -> Row:
    """A clip of five seconds as AVSS pads it to ten: theirs are frames of zeros whose logits are made zero,
    ours never reach the network."""
    logits = build(golden, TpaviConfig.of("resnet50", semantic=True))(images, sound).logits
    padded = torch.zeros(AVSS_SLOTS, *logits.shape[1:])
    padded[:CLIP_FRAMES] = logits
    step = SIZE // want["avss_resnet_logits_sub"].shape[-1]
    seen = padded[:, ::CLASS_STEP, ::step, ::step]
    return relative("avss_resnet_logits_sub", seen, want["avss_resnet_logits_sub"], LOGITS)
