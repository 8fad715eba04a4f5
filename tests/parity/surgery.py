"""surgery.npz: plain and v-v features, cosines with sounds, heat maps, and another image size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.audioclip.audioclip import unit
from models.audioclip.image import STRIDE
from models.heatmap import cosines, heatmaps
from tests.parity.golden import Arrays, Golden
from tests.parity.row import HEATMAP, Row, absolute, exact, relative

TILES = 5  # a second of sound is heard five times
LARGER_SEED = 11  # of the image of the other size
ADDED = "visual.attnpool.attn."  # what the original's first forward adds to the state dict


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """Image i is compared with sound i; the number of images is that of the stored sounds."""
    want, network = golden.arrays("surgery"), golden.audioclip
    sounds = unit(network.encode_audio(golden.waves[:, None].tile(TILES), "paper"))
    yield relative("audio_unit", sounds, want["audio_unit"])
    before = {key: tensor.clone() for key, tensor in network.visual.attnpool.state_dict().items()}
    images = golden.det.images(n=len(sounds), size=want["F5_plain"].shape[-1] * STRIDE)
    for kind in ("plain", "surgery"):
        features = network.visual(images, surgery=kind == "surgery")
        yield relative(f"F5_{kind}", features.maps[-1], want[f"F5_{kind}"])
        yield relative(f"global_{kind}", features.pooled, want[f"global_{kind}"])
        yield from maps(want, kind, features.maps[-1], sounds, images.shape[-1])
    yield from larger(golden, want)
    yield from untouched(golden, want, before)


def maps(want: Arrays, kind: str, features: Tensor, sounds: Tensor, size: int) -> Iterator[Row]:
    """Cosines before, and heat maps after, they are stretched and scaled up."""
    heat = {
        name: heatmaps(features, sounds, (size, size), reverse=name == "rev").numpy()
        for name in ("raw", "rev")
    }
    for i, cosine in enumerate(cosines(features, sounds).flatten(1)):
        yield absolute(f"cos49_{kind}_{i}", cosine, want[f"cos49_{kind}_{i}"], HEATMAP)
        for name, ours in heat.items():
            golden = want[f"heat224_{kind}_{name}_{i}"]
            step = size // len(golden)
            yield absolute(f"heat224_{kind}_{name}_{i}", sampled(ours[i], step), golden, HEATMAP)


def sampled(heat: np.ndarray, step: int) -> np.ndarray:
    """The pixel in the middle of each `step` x `step` square."""
    return heat[step // 2 :: step, step // 2 :: step]


def larger(golden: Golden, want: Arrays) -> Iterator[Row]:
    """One image whose grid is not the positional embedding's."""
    tower, side = golden.audioclip.visual, want["F5_448_sub"].shape[-1]
    features = tower(golden.det.images(1, side * STRIDE, LARGER_SEED), surgery=True)
    channels = features.maps[-1].shape[1] // want["F5_448_sub"].shape[1]
    yield relative("F5_448_sub", features.maps[-1][:, ::channels], want["F5_448_sub"])
    yield relative("global_448", features.pooled, want["global_448"])
    positions = tower.attnpool.positions(side, side)
    yield exact("posemb_448_shape", np.array(positions.shape), want["posemb_448_shape"])
    steps = [
        -(-ours // stored) for ours, stored in zip(positions.shape, want["posemb_448_sub"].shape, strict=True)
    ]
    yield relative("posemb_448_sub", positions[:: steps[0], :: steps[1]], want["posemb_448_sub"])


def untouched(golden: Golden, want: Arrays, before: dict[str, Tensor]) -> Iterator[Row]:
    """The original adds a module with copies of the pool's weights, and overwrites its positions. Ours uses
    the pool's own: none of those keys exists, and no value has changed."""
    pool = golden.audioclip.visual.attnpool.state_dict()
    kept = pool.keys() == before.keys() and all(torch.equal(pool[key], before[key]) for key in pool)
    without = [key for key in want["extra_keys"] if key.startswith(ADDED) and kept]
    yield exact("extra_keys", np.array(without), want["extra_keys"])
