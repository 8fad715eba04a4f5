"""cavp.npz: CAVP's supervised contrast."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.training.losses import info_nce
from tests.parity.golden import Golden
from tests.parity.row import Row, exact, relative


def rows(golden: Golden) -> Iterator[Row]:
    """Features and labels are inputs."""
    want = golden.arrays("cavp")
    features, labels = torch.from_numpy(want["anchors"]), torch.from_numpy(want["labels"])
    yield exact("anchors", features, want["anchors"])
    yield exact("labels", labels, want["labels"])
    yield relative("info_nce", info_nce(features, labels.flatten()), want["info_nce"])
