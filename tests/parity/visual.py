"""visual.npz: the image tower's five maps and its global feature on two images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tests.parity.golden import Golden
from tests.parity.row import INPUTS, Row, exact, relative, statistics

STEM_STRIDE = 4  # F1 has a quarter of the image's sides


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """Sizes and strides of the stored parts are read from the arrays."""
    want = golden.arrays("visual")
    batch, _, rows_, _ = (int(side) for side in want["F1_shape"])
    images = golden.det.images(n=batch, size=rows_ * STEM_STRIDE)
    grid = want["image_sub"].shape[-1]
    seen = images[..., :: images.shape[-2] // grid, :: images.shape[-1] // grid]
    yield relative("image_sub", seen, want["image_sub"], INPUTS)
    features = golden.audioclip.visual(images)
    for level, ours in enumerate(features.maps, start=1):
        name = f"F{level}"
        stored = name if name in want else f"{name}_sub"
        step = ours.shape[1] // want[stored].shape[1]
        yield exact(f"{name}_shape", np.array(ours.shape), want[f"{name}_shape"])
        yield relative(stored, ours[: len(want[stored]), ::step], want[stored])
        yield statistics(
            f"{name}_stats", np.stack([golden.det.stats(image) for image in ours]), want[f"{name}_stats"]
        )
    yield relative("global_", features.pooled, want["global_"])
