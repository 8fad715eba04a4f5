"""The networks of a process: loaded once, whoever asks, and named by their weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models.acfpn import ACFPN, AcFpnConfig
from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.checkpoints import write_safetensors
from models.errors import WeightsMissing
from models.networks import Networks
from models.strategies.ac_fpn import build
from models.weights import Weights, record


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    """A folder with nothing published in it, and a tiny family of random weights."""
    torch.manual_seed(0)
    tiny = {"audioclip": AudioCLIP(AudioCLIPConfig.tiny()), "ac-fpn": ACFPN(AcFpnConfig.tiny("scoremap"))}
    for name, network in tiny.items():
        path = tmp_path / f"{name}.safetensors"
        write_safetensors(path, network.state_dict(), {})
        record(tmp_path, f"{name}-tiny", path, source="this test", source_sha256="", licence="Apache-2.0")
    return Networks("cpu", Weights(tmp_path / "none", tiny=tmp_path))


def test_threads_get_one_network(networks: Networks) -> None:
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: networks["audioclip"], range(8)))
    assert len({id(network) for network in loaded}) == 1


def test_networks_come_ready_for_inference(networks: Networks) -> None:
    network = networks["ac-fpn"]
    assert isinstance(network, ACFPN)
    assert network.config.fusion == "scoremap"
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_identity_is_that_of_the_file(networks: Networks) -> None:
    identity = networks.identity("ac-fpn")
    assert (identity.id, identity.family) == ("ac-fpn-tiny", "tiny")
    assert len(identity.sha256) == 64


def test_the_strategy_is_built_from_it(networks: Networks) -> None:
    assert build(networks).size == 224


def test_what_is_not_there_says_so(networks: Networks) -> None:
    with pytest.raises(WeightsMissing, match="no network named resnet"):
        networks["resnet"]
    with pytest.raises(WeightsMissing, match="sam-vit-h are not installed"):
        networks["sam"]
