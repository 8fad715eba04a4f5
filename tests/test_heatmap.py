"""Heat maps of a small AudioCLIP, and the surgery of the whole one against golden values (slow)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.heatmap import cosines, heatmaps
from tests.parity import surgery
from tests.parity.golden import DEFAULT, Golden


@pytest.mark.slow
def test_golden_values() -> None:
    assert [str(row) for row in surgery.rows(Golden(DEFAULT)) if not row.ok] == []


def pair(frames: int = 3, side: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(frames, 16, side, side, generator=generator),
        torch.randn(frames, 16, generator=generator),
    )


def test_the_place_that_looks_like_the_sound_is_brightest_and_reversed_darkest() -> None:
    features, sounds = pair()
    features[:, :, 2, 5] = 3 * sounds
    assert torch.allclose(cosines(features, sounds)[:, 2, 5], torch.ones(3))
    for heat in heatmaps(features, sounds, (70, 140), reverse=False):
        assert divmod(int(heat.argmax()), 140) == (pytest.approx(25, abs=5), pytest.approx(110, abs=10))
    for heat in heatmaps(features, sounds, (7, 7), reverse=True):
        assert divmod(int(heat.argmin()), 7) == (2, 5)


def test_a_batch_equals_its_frames() -> None:
    features, sounds = pair()
    whole = heatmaps(features, sounds, (31, 50), reverse=True)
    for i in range(3):
        alone = heatmaps(features[i : i + 1], sounds[i : i + 1], (31, 50), reverse=True)
        assert torch.allclose(whole[i], alone[0], atol=1e-5)


def test_loudness_of_a_feature_does_not_matter() -> None:
    features, sounds = pair()
    louder = heatmaps(7 * features, 0.1 * sounds, (20, 20), reverse=False)
    assert torch.allclose(louder, heatmaps(features, sounds, (20, 20), reverse=False), atol=1e-5)


def test_all_places_alike_give_zeros() -> None:
    features, sounds = pair()
    flat = torch.ones_like(features)
    assert heatmaps(flat, sounds, (14, 14), reverse=False).abs().max() == 0


@torch.inference_mode()
def test_surgery_changes_no_weight_and_takes_any_grid() -> None:
    torch.manual_seed(0)
    tower = AudioCLIP(AudioCLIPConfig.tiny()).eval().visual
    before = {key: tensor.clone() for key, tensor in tower.state_dict().items()}
    images = torch.randn(1, 3, 224, 224)
    plain = tower(images).maps[-1]
    operated = tower(images, surgery=True).maps[-1]
    assert not torch.allclose(plain, operated)
    assert tower(torch.randn(1, 3, 288, 320), surgery=True).maps[-1].shape[-2:] == (9, 10)
    assert torch.equal(tower(images).maps[-1], plain)
    assert tower.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in tower.state_dict().items())
