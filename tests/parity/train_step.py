"""train_step.npz: one step of Adam in training mode, with the loss of S4 and that of MS3."""

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
from models.training.losses import ms3_loss, s4_loss
from tests.parity.acfpn import segments
from tests.parity.golden import Arrays, Golden
from tests.parity.row import FEATURES, GRADIENTS, LOGITS, Row, absolute, exact, relative

FRAMES = 5
IMAGE_SEED = 30
RATE, SLOW_RATE = 5e-5, 5e-6  # of neck and head; of everything under `aclp`
FROZEN = "aclp.audio."  # left out of the optimiser: gradients are computed, and nothing moves
LOSSES = {"s4": s4_loss, "ms3": ms3_loss}


def rows(golden: Golden) -> Iterator[Row]:
    """Both steps start from the same weights."""
    want = golden.arrays("train_step")
    size = int((want["gt_packed"].size * 8 / FRAMES) ** 0.5)
    truth = torch.from_numpy(np.unpackbits(want["gt_packed"].astype(np.uint8))).float()
    truth = truth.reshape(FRAMES, size, size)
    yield exact("gt_packed", np.packbits(truth.numpy() > 0), want["gt_packed"])
    yield relative("gt_frac", truth.mean((1, 2)), want["gt_frac"])
    for name in LOSSES:
        yield from step(golden, want, name, truth)


def step(golden: Golden, want: Arrays, name: str, truth: Tensor) -> Iterator[Row]:
    """One forward, backward and update; what the file holds of each."""
    network = ACFPN(AcFpnConfig(), deepcopy(golden.audioclip))
    golden.fill(network.neck, "neck.")
    golden.fill(network.head, "head.")
    network.train()
    before = {key: tensor.detach().clone() for key, tensor in network.named_parameters()}
    optimizer = torch.optim.Adam(groups(network))
    images = golden.det.images(FRAMES, truth.shape[-1], IMAGE_SEED)
    logits = network(images, segments(golden, FRAMES), "paper")[:, 0]
    loss = LOSSES[name](logits, truth)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    yield relative(f"{name}_loss", loss, want[f"{name}_loss"], LOGITS)
    stride = truth.shape[-1] // want[f"{name}_logits_train_sub"].shape[-1]
    seen = logits[:, ::stride, ::stride]
    yield relative(f"{name}_logits_train_sub", seen, want[f"{name}_logits_train_sub"], LOGITS)
    yield from gradients(network, before, want, name)
    yield from normalisation(network, want, name)


def groups(network: ACFPN) -> list[dict[str, object]]:
    """The optimiser's groups, as published: a slow one for AudioCLIP, without its audio tower."""
    named = [(key, tensor) for key, tensor in network.named_parameters() if not key.startswith(FROZEN)]
    slow = [tensor for key, tensor in named if key.startswith("aclp.")]
    fast = [tensor for key, tensor in named if not key.startswith("aclp.")]
    return [{"params": fast, "lr": RATE}, {"params": slow, "lr": SLOW_RATE}]


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
