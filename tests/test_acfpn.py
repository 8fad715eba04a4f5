"""AC-FPN: fusions, sizes, the authors' checkpoints, and the strategy on a window."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.acfpn import ACFPN, FUSIONS, AcFpnConfig, FusionName, load_acfpn
from models.batching import Batcher
from models.checkpoints import State, write_safetensors
from models.errors import WeightsInvalid
from models.key_rules import AC_FPN
from models.media import Window
from models.segments import AUDIOCLIP_RATE
from models.stages import measured
from models.strategies import STRATEGIES
from models.strategies.ac_fpn import AcFpn
from models.strategies.gate import SILENT, UNLIKELY
from models.strategies.options import AcFpnOptions, MaskThreshold
from models.training.losses import ms3_loss, s4_loss

MANIFESTS = Path(__file__).parent / "data/manifests"
SAMPLES = 8_000  # enough for the network; the strategy gets whole seconds


@pytest.fixture(scope="module")
def tiny() -> ACFPN:
    torch.manual_seed(0)
    return ACFPN(AcFpnConfig.tiny()).eval()


def authors(network: ACFPN) -> State:
    """The state as the authors' code saves it: both towers a second time, under their own names."""
    state = dict(network.state_dict())
    for prefix, tower in (("visual_encoder.", network.aclp.visual), ("audio_encoder.", network.aclp.audio)):
        state |= {prefix + key: tensor for key, tensor in tower.state_dict().items()}
    return state


def window(*loudness: float, size: tuple[int, int] = (120, 200)) -> Window:
    """A frame of noise and a second of a tone in noise of each loudness."""
    random = np.random.default_rng(0)
    count = len(loudness)
    sound = random.normal(size=(count, AUDIOCLIP_RATE)).astype(np.float32)
    sound += 3 * np.sin(2 * np.pi * 440 * np.arange(AUDIOCLIP_RATE) / AUDIOCLIP_RATE).astype(np.float32)
    return Window(
        index=0,
        size=size,
        timestamps=tuple(map(float, range(count))),
        indices=tuple(range(count)),
        audio_windows=tuple((float(i), i + 1.0) for i in range(count)),
        frames=random.integers(0, 256, (count, *size, 3), np.uint8),
        audio={AUDIOCLIP_RATE: sound * np.array(loudness, np.float32)[:, None]},
        has_audio=any(loudness),
    )


# --- the network


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_takes_the_authors_keys(fusion: FusionName) -> None:
    with torch.device("meta"):
        network = ACFPN(AcFpnConfig(fusion=fusion))
    manifest = json.loads((MANIFESTS / f"acfpn_manifest_{FUSIONS[fusion].reference}.json").read_text())
    theirs = {key: tuple(entry["shape"]) for key, entry in manifest["state_dict"].items()}
    assert len(theirs) == 1616
    assert {key: tuple(tensor.shape) for key, tensor in authors(network).items()} == theirs
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["meta"]["n_params"]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_logits_have_the_size_of_the_image(fusion: FusionName, size: tuple[int, int]) -> None:
    network = ACFPN(AcFpnConfig.tiny(fusion)).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, *size), torch.randn(2, 1, SAMPLES) * 0.1)
    assert logits.shape == (2, 1, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_sound_matters_to_every_fusion_but_none(fusion: FusionName) -> None:
    torch.manual_seed(1)
    network = ACFPN(AcFpnConfig.tiny(fusion)).eval()
    image, features = torch.randn(1, 3, 96, 96), torch.randn(2, network.config.audioclip.embed)
    with torch.inference_mode():
        first, second = network.segment(image.repeat(2, 1, 1, 1), features)
    assert torch.equal(first, second) == (fusion == "none")


def test_a_side_that_is_no_multiple_of_32_is_refused(tiny: ACFPN) -> None:
    with pytest.raises(ValueError, match=r"\(100, 96\) are not multiples of 32"):
        tiny(torch.randn(1, 3, 100, 96), torch.randn(1, 1, SAMPLES))


def test_a_batch_is_its_frames(tiny: ACFPN) -> None:
    images, sounds = torch.randn(3, 3, 96, 96), torch.randn(3, 1, SAMPLES) * 0.1
    with torch.inference_mode():
        batch = tiny(images, sounds)
        alone = torch.cat([tiny(images[[i]], sounds[[i]]) for i in range(3)])
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-4)


def test_the_losses_judge_what_is_annotated() -> None:
    logits, masks = torch.randn(10, 4, 4), (torch.rand(10, 4, 4) > 0.5).float()
    judged = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(ms3_loss(logits, masks), judged(logits, masks))
    torch.testing.assert_close(s4_loss(logits, masks[[0, 5]]), judged(logits[[0, 5]], masks[[0, 5]]))


# --- checkpoints


def test_a_checkpoint_of_the_authors_loads_and_ours_holds_each_tensor_once(
    tiny: ACFPN, tmp_path: Path
) -> None:
    path = tmp_path / "session_best.pth"
    torch.save({f"module.{key}": tensor for key, tensor in authors(tiny).items()}, path)
    network = load_acfpn(path, AcFpnConfig.tiny())
    ours = network.state_dict()
    assert not [key for key in ours if key.startswith(("visual_encoder", "audio_encoder"))]
    assert all(torch.equal(ours[key], tensor) for key, tensor in tiny.state_dict().items())


def test_aliases_alone_are_enough_and_may_not_contradict(tiny: ACFPN, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    state = authors(tiny)
    torch.save({key: state[key] for key in state if not key.startswith("aclp.visual.")}, path)
    assert load_acfpn(path, AcFpnConfig.tiny()).config.fusion == "hadamard"
    state["audio_encoder.fc.bias"] = state["audio_encoder.fc.bias"] + 1
    torch.save(state, path)
    with pytest.raises(WeightsInvalid, match=r"two different tensors for aclp\.audio\.fc\.bias"):
        load_acfpn(path, AcFpnConfig.tiny())


@pytest.mark.parametrize(
    "key", ["neck.lateral_convs.3.weight", "head.seg_conv.bias", "aclp.visual.conv1.weight"]
)
def test_a_missing_key_is_named(tiny: ACFPN, tmp_path: Path, key: str) -> None:
    state = dict(tiny.state_dict())
    del state[key]
    write_safetensors(tmp_path / "torn.safetensors", state, {})
    with pytest.raises(WeightsInvalid, match=f"{key} is missing|missing .{key}"):
        load_acfpn(tmp_path / "torn.safetensors", AcFpnConfig.tiny())


@pytest.mark.parametrize(
    ("trained", "told", "expected"),
    [
        ("concat", None, "concat"),
        ("scoremap", None, "scoremap"),
        ("none", None, "none"),
        ("audio-only", "audio-only", "audio-only"),
        ("audio-only", "noprior", "audio-only"),
        ("audio-only", None, "hadamard"),  # as wide, and nothing says which
    ],
)
def test_the_fusion_is_read_from_the_file(
    tmp_path: Path, trained: FusionName, told: str | None, expected: str
) -> None:
    path = tmp_path / "ac-fpn.safetensors"
    state = ACFPN(AcFpnConfig.tiny(trained)).state_dict()
    write_safetensors(path, state, {"fusion": told} if told else {})
    assert load_acfpn(path, AcFpnConfig.tiny()).config.fusion == expected


def test_an_unknown_fusion_is_refused(tiny: ACFPN, tmp_path: Path) -> None:
    path = tmp_path / "ac-fpn.safetensors"
    write_safetensors(path, tiny.state_dict(), {"fusion": "guess"})
    with pytest.raises(WeightsInvalid, match="names the fusion guess"):
        load_acfpn(path, AcFpnConfig.tiny())


# --- the strategy


@pytest.fixture(scope="module")
def segment(tiny: ACFPN) -> AcFpn:
    return AcFpn(tiny.requires_grad_(False), Batcher(), torch.device("cpu"))


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_every_frame_gets_a_mask_of_its_size(segment: AcFpn, preset: str) -> None:
    options = STRATEGIES["ac-fpn"].presets[preset]
    frames = list(segment(window(0.1, 0.2, 0.3), options))
    assert [frame.mask.shape for frame in frames] == [(120, 200)] * 3
    assert all(frame.mask.dtype == bool and frame.mask.any() == (frame.reason is None) for frame in frames)


def test_a_frame_without_a_sure_pixel_says_so(segment: AcFpn) -> None:
    (frame,) = segment(window(0.1), AcFpnOptions(thresholds=MaskThreshold(mask=1.0)))
    assert (frame.mask.any(), frame.reason) == (False, UNLIKELY)


def test_a_silent_second_gives_an_empty_mask_and_says_why(segment: AcFpn) -> None:
    everything = AcFpnOptions(thresholds=MaskThreshold(mask=0.0))
    frames = list(segment(window(0.1, 0.0, 0.2), everything))
    assert [frame.mask.all() for frame in frames] == [True, False, True]
    assert not frames[1].mask.any()
    assert [frame.reason for frame in frames] == [None, SILENT, None]
    published = replace(everything, silent_is_empty=False)
    assert all(frame.mask.all() for frame in segment(window(0.0), published))


def test_a_window_without_sound_runs_nothing(segment: AcFpn) -> None:
    assert [frame.reason for frame in segment(window(0.0, 0.0), AcFpnOptions())] == [SILENT] * 2


def test_the_threshold_is_a_probability(segment: AcFpn) -> None:
    areas = [
        sum(int(f.mask.sum()) for f in segment(window(0.1), AcFpnOptions(thresholds=MaskThreshold(mask=t))))
        for t in (0.0, 0.3, 0.5, 0.7, 1.0)
    ]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] == 120 * 200
    assert areas[-1] == 0


def test_paper_decides_on_the_networks_grid(segment: AcFpn) -> None:
    (frame,) = segment(window(0.1, size=(448, 448)), STRATEGIES["ac-fpn"].presets["paper"])
    blocks = frame.mask.reshape(224, 2, 224, 2)
    assert (blocks.all((1, 3)) == blocks.any((1, 3))).all()


def test_the_alias_rules_leave_our_own_keys_alone(tiny: ACFPN) -> None:
    assert AC_FPN.apply(tiny.state_dict()).keys() == tiny.state_dict().keys()


def test_sound_picture_and_masks_are_timed_apart(segment: AcFpn) -> None:
    with measured() as seconds:
        list(segment(window(0.1, 0.0), STRATEGIES["ac-fpn"].presets["best"]))
    assert seconds.keys() == {"audio_encode", "image_encode", "mask_decode"}
    assert all(seconds.values())
