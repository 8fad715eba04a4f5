"""TPAVI and VGGish: names, shapes, time, the authors' checkpoints, and the strategy on odd clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from models.batching import Batcher
from models.checkpoints import weights_of, write_safetensors
from models.errors import WeightsInvalid, WeightsMissing
from models.install import import_checkpoint
from models.media import Window
from models.networks import Networks
from models.pvt import Pvt, PvtConfig
from models.sampling import Sampling, Summary, plan
from models.strategies import STRATEGIES
from models.strategies.gate import SILENT, UNLIKELY
from models.strategies.options import MaskThreshold, TpaviOptions
from models.strategies.tpavi import Tpavi, build, sounds
from models.tpavi import TPAVI, BackboneName, TpaviConfig, config_of, load_tpavi, metadata_of, sounding
from models.vggish import EXAMPLE, FRAMES, HOP, RATE, Vggish, VggishConfig, examples, load_vggish, mel_matrix
from models.weights import Weights
from tests.tiny_networks import tiny_networks, window

MANIFESTS = Path(__file__).parent / "data/manifests"
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
REFERENCE = {"resnet50": "resnet", "pvt-v2-b5": "pvt"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(backbone: BackboneName = "pvt-v2-b5") -> TPAVI:
    """Random numbers; its attention is made to matter, which it learns from nothing."""
    torch.manual_seed(0)
    network = TPAVI(TpaviConfig.tiny(backbone)).eval()
    for block in (network.tpavi_b1, network.tpavi_b2, network.tpavi_b3, network.tpavi_b4):
        torch.nn.init.ones_(block.W_z[1].weight)  # type: ignore[arg-type]
    return network


def manifest(name: str) -> dict:
    return json.loads((MANIFESTS / f"{name}.json").read_text())


def shapes(network: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in network.state_dict().items()}


# --- the networks


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_names_and_shapes_are_the_authors(backbone: BackboneName, semantic: bool) -> None:
    with torch.device("meta"):
        network = TPAVI(TpaviConfig.of(backbone, semantic=semantic))
    theirs = manifest(f"tpavi_manifest_{REFERENCE[backbone]}{'_avss' * semantic}")
    assert shapes(network) == {key: entry["shape"] for key, entry in theirs["state_dict"].items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == theirs["meta"]["n_params"]


def test_vggish_has_the_published_names() -> None:
    with torch.device("meta"):
        network = Vggish()
    theirs = manifest("vggish_manifest")["state_dict"]
    assert shapes(network) == {key: entry["shape"] for key, entry in theirs.items()}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_logits_have_the_size_of_the_image(backbone: BackboneName, frames: int) -> None:
    network = small(backbone)
    with torch.inference_mode():
        answer = network(torch.randn(2 * frames, 3, 64, 96), torch.rand(2 * frames, 128), frames)
    assert answer.logits.shape == (2 * frames, 1, 64, 96)
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(stage.shape) for stage in answer.maps] == [(2 * frames, 16, *size) for size in sizes]
    assert [tuple(heard.shape) for heard in answer.audio] == [(2 * frames, 16)] * 4
    assert min(stage.min() for stage in answer.maps) >= 0


def test_a_side_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(100, 96\) are not multiples of 32"):
        small()(torch.randn(5, 3, 100, 96), torch.rand(5, 128))


def test_frames_of_a_clip_hear_each_other_and_clips_do_not() -> None:
    network = small()
    images, sound = torch.randn(10, 3, 32, 32), torch.rand(10, 128)
    other = sound.clone()
    other[4] += 5
    with torch.inference_mode():
        before, after = network(images, sound).logits, network(images, other).logits
    changed = [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert changed == [True] * 5 + [False] * 5


def test_one_frame_is_five_alike() -> None:
    """Attention is a mean over time: a clip of one second needs no filling."""
    network = small()
    image, sound = torch.randn(1, 3, 32, 32), torch.rand(1, 128)
    with torch.inference_mode():
        alone = network(image, sound, 1).logits
        five = network(image.expand(5, -1, -1, -1), sound.expand(5, -1)).logits
    torch.testing.assert_close(five[:1], alone, rtol=1e-4, atol=1e-4)


def test_attention_is_the_published_product_of_all_pairs() -> None:
    network = small()
    block, frames = network.tpavi_b2, 3
    x, sound = torch.randn(2 * frames, 16, 4, 5), torch.rand(2 * frames, 128)
    with torch.inference_mode():
        ours, aligned = block(x, sound, frames)
        seen = x.reshape(2, frames, 16, 4, 5).transpose(1, 2)
        heard = aligned.reshape(2, frames, 16, 1, 1).transpose(1, 2).expand_as(seen)
        theta, phi, g = (
            layer(of).flatten(2) for layer, of in ((block.theta, seen), (block.phi, heard), (block.g, seen))
        )
        pairs = theta.transpose(1, 2) @ phi / theta.shape[2]
        y = (pairs @ g.transpose(1, 2)).transpose(1, 2).reshape(2, 8, frames, 4, 5)
        z = (block.W_z(y) + seen).permute(0, 2, 3, 4, 1)
        theirs = block.norm_layer(z).permute(0, 1, 4, 2, 3).flatten(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_blocks_are_skipped_in_training_alone_and_never_the_first() -> None:
    torch.manual_seed(0)
    network = Pvt(PvtConfig(**{**vars(PvtConfig.tiny()), "drop": 0.5}))
    image = torch.randn(4, 3, 32, 32)
    assert network.block1[0].drop == 0
    assert network.block4[0].drop == 0.5
    network.train()
    assert not torch.equal(network(image)[3], network(image)[3])
    network.eval()
    assert torch.equal(network(image)[3], network(image)[3])


def test_of_classes_all_but_the_background_sound() -> None:
    logits = torch.randn(3, 5, 4, 4)
    expected = 1 - logits.softmax(1)[:, 0]
    torch.testing.assert_close(sounding(logits).sigmoid(), expected)
    assert torch.equal(sounding(logits[:, :1]), logits[:, 0])


# --- the front end


def test_five_seconds_are_five_examples_and_ten_are_ten() -> None:
    for seconds in (5, 10):
        assert examples(np.zeros(seconds * RATE, np.float32)).shape == (seconds, 1, FRAMES, 64)


def test_examples_too_few_or_too_many() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 3 * RATE).astype(np.float32)
    three = examples(wave)
    five = examples(wave, 5)
    assert torch.equal(five[:3], three)
    assert torch.equal(five[3], three[2]) and torch.equal(five[4], three[2])
    assert torch.equal(examples(wave, 2), three[:2])
    assert torch.equal(examples(wave[:EXAMPLE]), three[:1]), "an example is heard from no more than this"
    short = examples(wave[: RATE // 2], 2)
    assert torch.equal(short[0], short[1])
    assert short.std() > 0.1, "sound too short is repeated"
    assert torch.equal(examples(wave[:0], 1), examples(np.zeros(RATE, np.float32), 1))


def test_a_tone_lights_its_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    loudest = int(examples(tone)[0, 0].mean(0).argmax())
    bin_of_tone = round(1000 / (RATE / 512))
    assert mel_matrix()[bin_of_tone].argmax() == loudest
    assert HOP * FRAMES == 0.96 * RATE


# --- checkpoints


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_file_says_what_it_is(backbone: BackboneName, tmp_path: Path) -> None:
    network = small(backbone)
    path = tmp_path / "run.safetensors"
    write_safetensors(path, weights_of(network), metadata_of(network.config))
    loaded = load_tpavi(path)
    assert loaded.config == network.config
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_authors_checkpoint_is_told_by_its_keys(backbone: BackboneName, semantic: bool) -> None:
    theirs = manifest(f"tpavi_manifest_{REFERENCE[backbone]}{'_avss' * semantic}")["state_dict"]
    state = {key: torch.empty(entry["shape"], device="meta") for key, entry in theirs.items()}
    assert config_of(Path("S4_best.pth"), state) == TpaviConfig.of(backbone, semantic=semantic)


def test_import_keeps_the_sizes(tmp_path: Path) -> None:
    network = small("resnet50")
    path = tmp_path / "run.safetensors"
    write_safetensors(path, weights_of(network), metadata_of(network.config) | {"earshot": "tpavi"})
    weights = Weights(tmp_path / "weights", tiny=tmp_path)
    import_checkpoint(weights, "tpavi", path)
    assert load_tpavi(weights.path("tpavi")).config == network.config


def test_what_is_no_tpavi_is_refused(tmp_path: Path) -> None:
    network, path = small(), tmp_path / "torn.safetensors"
    torn = {key: tensor for key, tensor in network.state_dict().items() if key != "output_conv.4.weight"}
    write_safetensors(path, torn, {})
    with pytest.raises(WeightsInvalid, match=r"torn.safetensors does not fit TPAVI: output_conv.4.weight"):
        load_tpavi(path)
    write_safetensors(path, torn, metadata_of(network.config))
    with pytest.raises(WeightsInvalid, match=r"1 missing .output_conv.4.weight"):
        load_tpavi(path)


def test_vggish_loads_strictly(tmp_path: Path) -> None:
    state = dict(Vggish(VggishConfig.tiny()).state_dict())
    torch.save(state, tmp_path / "vggish.pth")
    network = load_vggish(tmp_path / "vggish.pth")
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network(examples(np.zeros(RATE, np.float32))).shape == (1, 128)
    assert network.config == VggishConfig.tiny()
    torn = {"features.3.weight": "1 missing .features.3.weight", "embeddings.4.bias": "4.bias is missing"}
    for key, said in torn.items():
        torch.save({k: t for k, t in state.items() if k != key}, tmp_path / "vggish.pth")
        with pytest.raises(WeightsInvalid, match=said):
            load_vggish(tmp_path / "vggish.pth")


# --- the strategy


@pytest.fixture(scope="module")
def segment() -> Tpavi:
    torch.manual_seed(1)
    ears = Vggish(VggishConfig.tiny()).eval().requires_grad_(False)
    torch.nn.init.uniform_(ears.embeddings[4].bias, 0, 1)  # type: ignore[arg-type]
    return Tpavi(small().requires_grad_(False), ears, Batcher(), torch.device("cpu"))


def stretch(clip: Window, first: int, end: int) -> Window:
    """Some frames of a window, as a window."""
    assert clip.frames is not None
    return replace(
        clip,
        timestamps=clip.timestamps[first:end],
        indices=clip.indices[first:end],
        audio_windows=clip.audio_windows[first:end],
        frames=clip.frames[first:end],
        audio={rate: sound[first:end] for rate, sound in clip.audio.items()},
    )


def logits_of(segment: Tpavi, clip: Window) -> torch.Tensor:
    """What masks are decided from, [n, 224, 224]."""
    count = len(clip.timestamps)
    groups = [range(count)[i : i + 5] for i in range(0, count, 5)]
    answers = segment.logits_of(clip, groups, TpaviOptions())
    return torch.stack([answers[i] for i in range(count)])


@pytest.mark.parametrize("preset", ["best", "paper"])
@pytest.mark.parametrize("count", [1, 5, 7])
def test_every_frame_gets_a_mask_of_its_size(segment: Tpavi, preset: str, count: int) -> None:
    options = STRATEGIES["tpavi"].presets[preset]
    frames = list(segment(window(*[0.3] * count, size=(50, 70)), options))
    assert [frame.mask.shape for frame in frames] == [(50, 70)] * count
    assert all(frame.mask.dtype == bool and frame.reason is None for frame in frames)


def test_the_sound_and_the_other_frames_matter(segment: Tpavi) -> None:
    clip = window(*[0.3] * 5)
    louder = replace(clip, audio={RATE: clip.audio[RATE] * np.array([1, 1, 1, 1, 3], np.float32)[:, None]})
    before, after = logits_of(segment, clip), logits_of(segment, louder)
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert not torch.allclose(before[:1], logits_of(segment, stretch(clip, 0, 1)), atol=1e-5)


def test_windows_are_the_clip_in_one_piece(segment: Tpavi) -> None:
    """A clip of 17 frames as `plan` cuts it for this strategy."""
    clip = window(*np.linspace(0.1, 0.9, 17))
    whole = logits_of(segment, clip)
    summary = Summary(width=96, height=72, fps=1.0, duration=17.0)
    windows = plan(summary, Sampling(), together=STRATEGIES["tpavi"].together)
    assert [len(each.times) for each in windows] == [15, 2]
    parts = [stretch(clip, each.first, each.first + len(each.times)) for each in windows]
    torch.testing.assert_close(
        torch.cat([logits_of(segment, part) for part in parts]), whole, rtol=1e-4, atol=1e-4
    )


def test_windows_of_frames_too_large_for_five_hold_what_they_can() -> None:
    huge = Summary(width=8192, height=4096, fps=1.0, duration=7.0)
    assert [len(each.times) for each in plan(huge, Sampling(), together=5)] == [2, 2, 2, 1]


def test_silence_is_empty_in_best_and_costs_nothing_where_a_group_is_silent(segment: Tpavi) -> None:
    everything = TpaviOptions(thresholds=MaskThreshold(mask=0.0))
    seen: list[int] = []
    hook = segment.network.output_conv.register_forward_hook(lambda *_: seen.append(1))
    frames = list(segment(window(0.2, 0.0, 0.2, 0.2, 0.2, *[0.0] * 5), everything))
    assert [bool(frame.mask.all()) for frame in frames] == [True, False, True, True, True, *[False] * 5]
    assert [frame.reason for frame in frames] == [None, SILENT, None, None, None, *[SILENT] * 5]
    assert seen == [1]
    assert [frame.reason for frame in segment(window(0.0, 0.0), everything)] == [SILENT] * 2
    assert seen == [1]
    hook.remove()
    published = replace(everything, silent_is_empty=False)
    assert all(frame.mask.all() and frame.reason is None for frame in segment(window(0.0), published))
    nowhere = TpaviOptions(thresholds=MaskThreshold(mask=1.0))
    assert [frame.reason for frame in segment(window(0.2, 0.0), nowhere)] == [UNLIKELY, SILENT]


def test_paper_hears_the_seconds_in_one_piece() -> None:
    """As AVSBench's loader does: examples of 0.96 s, one after another."""
    seconds = window(*[0.3] * 5).audio[RATE]
    paper, own = (sounds(seconds, TpaviOptions(seconds=how)) for how in ("paper", "own"))
    assert torch.equal(paper, examples(seconds.reshape(-1)))
    assert torch.equal(paper[0], own[0])
    assert not torch.equal(paper[1], own[1])


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    networks = Networks("cpu", Weights(tmp_path, tiny=tmp_path))
    with pytest.raises(WeightsMissing, match=r"python -m service weights import tpavi FILE"):
        build(networks)


def test_it_is_built_from_installed_networks(tmp_path: Path) -> None:
    networks = tiny_networks(tmp_path)
    (frame,) = build(networks)(window(0.5), TpaviOptions())
    assert frame.mask.shape == (72, 96)
