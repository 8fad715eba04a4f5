"""The networks of a process: loaded once, whoever asks, and named by their weights."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch

from models.acfpn import ACFPN, AcFpnConfig
from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.checkpoints import write_safetensors
from models.errors import WeightsInvalid, WeightsMissing
from models.files import digest
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


# --- the second supplier


def test_the_setting_chooses_whose_code_runs(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of this test stands for the original packages: they need an environment of their own."""
    package = ModuleType("models.official")
    for network in ("sam", "grounding_dino", "clap"):
        vars(package)[f"load_{network}"] = lambda weights, device, name=network: (name, weights, device)
    monkeypatch.setitem(sys.modules, "models.official", package)
    second = Networks("cpu", networks.weights, supplier="official")
    assert second["sam"] == ("sam", networks.weights, torch.device("cpu"))
    assert second["grounding-dino"][0] == "grounding_dino"
    assert second["clap"][0] == "clap"
    assert isinstance(second["ac-fpn"], ACFPN)
    assert {name: second.supplier(name) for name in ("sam", "ac-fpn")} == {"sam": "official", "ac-fpn": None}
    assert networks.supplier("sam") is None


def test_without_the_original_packages_the_setting_says_how_to_get_them(networks: Networks) -> None:
    with pytest.raises(WeightsMissing, match=r"make \.venv-official/ready"):
        Networks("cpu", networks.weights, supplier="official")["sam"]


def test_the_original_packages_read_the_original_file(tmp_path: Path) -> None:
    weights = Weights(tmp_path, tiny=tmp_path / "none")
    original, ours = tmp_path / "sam_vit_b_01ec64.pth", tmp_path / "sam-vit-b.safetensors"
    original.write_bytes(b"as published")
    write_safetensors(ours, {}, {})
    record(tmp_path, "sam-vit-b", ours, source="u", source_sha256=digest(original), licence="Apache-2.0")
    assert weights.original("sam") == original
    original.write_bytes(b"another")
    with pytest.raises(WeightsInvalid, match="not what sam-vit-b was made from"):
        weights.original("sam")
    original.unlink()
    with pytest.raises(WeightsMissing, match="weights fetch sam-vit-b --keep"):
        weights.original("sam")


def test_the_original_packages_do_not_run_the_tiny_family(networks: Networks) -> None:
    with pytest.raises(WeightsMissing, match="cannot run audioclip-tiny"):
        networks.weights.original("audioclip")
