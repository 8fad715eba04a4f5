"""Checkpoints that fit in name only: what they hold is looked at before a network takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.checkpoints import load_into, read_checkpoint
from models.errors import WeightsInvalid
from models.install import import_checkpoint
from models.weights import Weights


def test_a_checkpoint_that_holds_itself_ends(tmp_path: Path) -> None:
    ring: dict[str, object] = {}
    ring["state_dict"] = {"model": ring}
    torch.save(ring, tmp_path / "ring.pt")
    with pytest.raises(WeightsInvalid, match="holds no tensors"):
        read_checkpoint(tmp_path / "ring.pt")


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, "sparse"])
def test_numbers_of_another_kind_do_not_fit(kind: torch.dtype | str) -> None:
    network = torch.nn.Linear(2, 2)
    state = dict(network.state_dict())
    weight = state["weight"]
    state["weight"] = weight.to_sparse() if kind == "sparse" else weight.to(kind)
    with pytest.raises(WeightsInvalid, match=r"1 of another kind .weight.\.$"):
        load_into(network, state, "file")
    load_into(network, {key: tensor.half() for key, tensor in network.state_dict().items()}, "file")


def test_an_import_of_audioclip_must_fit_whole(tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "part.pt")
    weights = Weights(tmp_path / "folder")
    with pytest.raises(WeightsInvalid, match="does not fit AudioCLIP: 860 missing"):
        import_checkpoint(weights, "audioclip", tmp_path / "part.pt", trust=True)
    assert list(weights.folder.iterdir()) == []
