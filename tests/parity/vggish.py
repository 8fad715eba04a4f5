"""vggish.npz: five seconds of sound, their log-mel examples, and what VGGish makes of these and of noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from models.vggish import Vggish, examples
from tests.parity.golden import Golden
from tests.parity.row import Row, exact, relative, statistics

PREFIX = "vggish."  # of the names that `det` knows the weights by
NOISE_SEED = 81
INT16 = 32_768.0
HALF = 2.0**-10  # relative: the file keeps the log-mel in half precision


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """From the wave on everything is ours."""
    want = golden.arrays("vggish")
    yield exact("wave_int16", want["wave_int16"].astype(np.int16), want["wave_int16"])  # input
    heard = examples(want["wave_int16"].astype(np.float32) / np.float32(INT16))
    yield relative("logmel", heard, want["logmel"], HALF)
    yield statistics("logmel_stats", golden.det.stats(heard), want["logmel_stats"])
    network = Vggish()
    golden.fill(network, PREFIX)
    yield relative("embedding", network(heard), want["embedding"])
    noise = golden.normal(NOISE_SEED, len(want["embedding_randn"]), *heard.shape[1:])
    yield relative("embedding_randn", network(noise), want["embedding_randn"])
