"""On a GPU strategies answer as on the CPU, full memory halves batches, training learns. Else skipped."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.audioclip.audio import scaled
from models.batching import Batcher
from models.datasets.synthavs import SynthAVS
from models.errors import OutOfDeviceMemory
from models.media import Window
from models.networks import Networks
from models.strategies import STRATEGIES, FrameMasks
from models.training.judging import window_of
from models.training.train import Training
from models.weights import Weights
from tests.test_training import least, setup, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
READY = [name for name, strategy in STRATEGIES.items() if strategy.networks and name != "tpavi"]
AGREEMENT = {"best": 0.98, "paper": 0.8}  # of all pixels that either lights: `paper` hangs on single ones
SILENT = ("ac-fpn", "paper")  # the tiny one learned with sound of another scale: it hears nothing so


@pytest.fixture(scope="module")
def clips() -> list[Window]:
    return [window_of(SynthAVS("val")[index], {44_100, 48_000}) for index in range(4)]


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> list[Networks]:
    """The shipped networks, on the CPU and on the GPU."""
    shipped = Weights(tmp_path_factory.mktemp("none"))
    return [Networks(device, shipped) for device in ("cpu", "cuda")]


@pytest.fixture
def full_precision() -> Iterator[None]:
    """Convolutions round to TF32 else."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    ("name", "preset"), [(name, of) for name in READY for of in ("best", "paper") if (name, of) != SILENT]
)
def test_masks_are_those_of_the_cpu(
    families: list[Networks], clips: list[Window], name: str, preset: str
) -> None:
    strategy = STRATEGIES[name]
    build, options = import_module(strategy.module).build, strategy.presets[preset]
    here, there = (
        [frame for clip in clips for frame in build(networks)(clip, options)] for networks in families
    )
    assert [frame.reason for frame in there] == [frame.reason for frame in here]
    assert len(there) == sum(len(clip.timestamps) for clip in clips)
    assert agreement(here, there) >= AGREEMENT[preset]


def agreement(one: list[FrameMasks], other: list[FrameMasks]) -> float:
    """The intersection of all masks over their union."""
    both = sum(np.logical_and(a.mask, b.mask).sum() for a, b in zip(one, other, strict=True))
    either = sum(np.logical_or(a.mask, b.mask).sum() for a, b in zip(one, other, strict=True))
    assert either > 0
    return float(both / either)


def test_hearing_does_not_depend_on_how_the_gpu_rounds(request: pytest.FixtureRequest) -> None:
    """A loud tone beside near silence, while float32 is multiplied as TF32."""
    before = torch.get_float32_matmul_precision()
    request.addfinalizer(lambda: torch.set_float32_matmul_precision(before))
    torch.set_float32_matmul_precision("high")
    time = torch.arange(44_100) / 44_100
    wave = (
        torch.sin(2 * torch.pi * 440 * time) * (time < 0.5) + 1e-4 * torch.sin(2 * torch.pi * 3000 * time)
    ) / 2
    tower = AudioCLIP(AudioCLIPConfig.tiny()).eval().requires_grad_(False).audio
    frames = tower.frames(scaled(wave[None, None], "int16"))
    here = tower.decibels(tower.fbsp(frames))
    there = tower.to("cuda").decibels(tower.fbsp(frames.to("cuda"))).cpu()
    assert (here - there).abs().median() < 0.01


def test_a_batch_that_the_gpu_cannot_hold_is_halved() -> None:
    """With real allocations: each item wants a third of the memory that is free."""
    batcher, third, sizes = Batcher(), torch.cuda.mem_get_info()[0] // 3, []

    def hungry(items: list[int]) -> list[int]:
        sizes.append(len(items))
        torch.empty(third * len(items), dtype=torch.uint8, device="cuda")
        return items

    with batcher.window():
        assert batcher(hungry, [1, 2, 3, 4]) == [1, 2, 3, 4]
        assert sizes == [4, 2, 2]
        with pytest.raises(OutOfDeviceMemory):
            batcher(hungry, list(range(8)))


def test_training_learns_on_the_gpu(tmp_path: Path) -> None:
    Training(least(), setup(tmp_path / "run", device="cuda", save_every=2))()
    trained = weights(tmp_path / "run" / "weights.safetensors")
    assert all(torch.isfinite(value).all() for value in trained.values() if value.is_floating_point())
    assert (tmp_path / "run" / "curves.png").is_file()
