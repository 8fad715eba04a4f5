"""train_step.npz: one step of the trainer's own code, by the published recipes of S4 and of MS3."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.acfpn import ACFPN, AcFpnConfig
from models.training.batches import Batch
from models.training.learners import AcFpnLearner
from models.training.recipes import acfpn_ms3, acfpn_s4
from models.training.step import optimizer_for, update
from tests.parity.acfpn import segments
from tests.parity.golden import Arrays, Golden
from tests.parity.row import FEATURES, GRADIENTS, LOGITS, Row, absolute, exact, relative

FRAMES = 5
IMAGE_SEED = 30
RECIPES = {"s4": acfpn_s4(), "ms3": acfpn_ms3()}


def rows(golden: Golden) -> Iterator[Row]:
    """Both steps start from the same weights."""
    want = golden.arrays("train_step")
    size = int((want["gt_packed"].size * 8 / FRAMES) ** 0.5)
    truth = torch.from_numpy(np.unpackbits(want["gt_packed"].astype(np.uint8))).float()
    truth = truth.reshape(FRAMES, size, size)
    yield exact("gt_packed", np.packbits(truth.numpy() > 0), want["gt_packed"])
    yield relative("gt_frac", truth.mean((1, 2)), want["gt_frac"])
    for name in RECIPES:
        yield from step(golden, want, name, truth)


def step(golden: Golden, want: Arrays, name: str, truth: Tensor) -> Iterator[Row]:
    """One forward, backward and update; what the file holds of each."""
    recipe = RECIPES[name]
    assert isinstance(recipe.network, AcFpnConfig)
    network = ACFPN(recipe.network, deepcopy(golden.audioclip))
    golden.fill(network.neck, "neck.")
    golden.fill(network.head, "head.")
    learner = AcFpnLearner(network, recipe).train()
    before = {key: tensor.detach().clone() for key, tensor in network.named_parameters()}
    images = golden.det.images(FRAMES, truth.shape[-1], IMAGE_SEED)
    batch = Batch(images, segments(golden, FRAMES), truth, torch.ones(FRAMES, dtype=torch.bool))
    loss, logits = update(learner, optimizer_for(learner, recipe), batch, recipe)
    yield relative(f"{name}_loss", loss, want[f"{name}_loss"], LOGITS)
    stride = truth.shape[-1] // want[f"{name}_logits_train_sub"].shape[-1]
    seen = logits[:, ::stride, ::stride]
    yield relative(f"{name}_logits_train_sub", seen, want[f"{name}_logits_train_sub"], LOGITS)
    yield from gradients(network, before, want, name)
    yield from normalisation(network, want, name)


def gradients(network: ACFPN, before: dict[str, Tensor], want: Arrays, name: str) -> Iterator[Row]:
    """Norms of the named gradients, the largest change of each tensor, and who got no gradient."""
    after = dict(network.named_parameters())
    keys = [str(key) for key in want[f"{name}_grad_keys"]]
    yield exact(
        f"{name}_grad_keys", np.array([key for key in keys if key in after]), want[f"{name}_grad_keys"]
    )
    norms = [after[key].grad.norm().item() for key in keys if after[key].grad is not None]  # type: ignore[union-attr]
    yield relative_each(f"{name}_grad_norms", norms, want[f"{name}_grad_norms"])
    moved = [(after[key] - before[key]).abs().max().item() for key in keys]
    yield relative_each(f"{name}_delta_absmax", moved, want[f"{name}_delta_absmax"])
    idle = sorted(key for key, tensor in after.items() if tensor.grad is None)
    listed = want[f"{name}_nograd_keys"]
    yield exact(f"{name}_nograd_keys", np.array(idle[: len(listed)]), listed)
    yield exact(f"{name}_n_nograd", np.array(len(idle)), want[f"{name}_n_nograd"])


def relative_each(name: str, ours: list[float], golden: NDArray[Any]) -> Row:
    """Every number against itself: they belong to different tensors. A golden zero must be met exactly."""
    scale = np.where(golden == 0, np.finfo(np.float64).tiny, np.abs(golden))
    return replace(absolute(name, np.array(ours) / scale, golden / scale, GRADIENTS), kind="rel")


def normalisation(network: ACFPN, want: Arrays, name: str) -> Iterator[Row]:
    """Running statistics after the step: the "frozen" tower's drift too."""
    for tower, module in (("visual", network.aclp.visual), ("audio", network.aclp.audio)):
        for stored, tensor in (("mean", module.bn1.running_mean), ("var", module.bn1.running_var)):
            key = f"{name}_bn_{tower}_bn1_{stored}"
            if key in want:
                assert tensor is not None
                yield relative(key, tensor, want[key], FEATURES)
