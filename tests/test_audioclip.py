"""AudioCLIP: keys, the image tower at any size, the filters' cache and gradients, sound scales, the loss."""

from __future__ import annotations

import copy
import gzip
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audioclip import AudioCLIP, AudioCLIPConfig, load_audioclip
from models.audioclip import fbsp as fbsp_module
from models.audioclip.audio import INT16_SCALE, scaled
from models.audioclip.fbsp import FBSP, tightness
from models.audioclip.preprocess import CLIP, image_input
from models.audioclip.tokenizer import Tokenizer
from models.checkpoints import write_safetensors
from models.errors import InvalidOption, WeightsInvalid
from tests.parity.golden import vocabulary

MANIFEST = Path(__file__).parent / "data/manifests/audioclip_manifest.json"
RATE = 44_100


@pytest.fixture(scope="module")
def tiny() -> AudioCLIP:
    torch.manual_seed(0)
    return AudioCLIP(AudioCLIPConfig.tiny()).eval()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever filters are really computed."""
    calls: list[int] = []
    real = fbsp_module.filters
    monkeypatch.setattr(fbsp_module, "filters", lambda *sizes: calls.append(1) or real(*sizes))
    return calls


def wave(*loudness: float) -> torch.Tensor:
    """[n, 1, a fifth of a second]: a tone of each loudness."""
    tone = torch.sin(torch.arange(RATE // 5) * 2 * math.pi * 440 / RATE)
    return torch.stack([tone * each for each in loudness])[:, None]


# --- keys


def test_the_keys_shapes_and_kinds_are_those_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        network = AudioCLIP()
    parameters = dict(network.named_parameters())
    ours = {
        key: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "kind": "param" if key in parameters else "buffer",
        }
        for key, tensor in network.state_dict().items()
    }
    assert ours == json.loads(MANIFEST.read_text())["state_dict"]
    assert len(ours) == 861


def test_a_saved_network_loads_again_and_a_missing_key_is_named(tiny: AudioCLIP, tmp_path: Path) -> None:
    state = tiny.state_dict()
    write_safetensors(tmp_path / "whole.safetensors", state, {})
    again = load_audioclip(tmp_path / "whole.safetensors", AudioCLIPConfig.tiny())
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in state.items())
    assert not again.training
    del state["audio.fbsp.bias"]
    torch.save(state, tmp_path / "partial.pt")
    with pytest.raises(WeightsInvalid, match=r"1 missing .audio\.fbsp\.bias"):
        load_audioclip(tmp_path / "partial.pt", AudioCLIPConfig.tiny())


def test_tiny_is_small() -> None:
    numbers = sum(parameter.numel() for parameter in AudioCLIP(AudioCLIPConfig.tiny()).parameters())
    assert numbers < 2.5e6


# --- images


@pytest.mark.parametrize(("height", "width"), [(224, 224), (96, 96), (160, 256)])
@pytest.mark.parametrize("surgery", [False, True])
def test_the_image_tower_takes_any_multiple_of_32(
    tiny: AudioCLIP, height: int, width: int, surgery: bool
) -> None:
    before = tiny.visual.attnpool.positional_embedding.clone()
    with torch.inference_mode():
        maps, pooled = tiny.visual(torch.randn(2, 3, height, width), surgery=surgery)
    channels = (*tiny.config.image.channels, tiny.config.embed)
    strides = (4, 8, 16, 32, 32)
    assert [tuple(each.shape) for each in maps] == [
        (2, channel, height // stride, width // stride)
        for channel, stride in zip(channels, strides, strict=True)
    ]
    assert pooled.shape == (2, tiny.config.embed)
    assert torch.equal(before, tiny.visual.attnpool.positional_embedding)


def test_the_own_grid_uses_the_positional_embedding_itself(tiny: AudioCLIP) -> None:
    pool = tiny.visual.attnpool
    assert pool.positions(7, 7) is pool.positional_embedding
    assert not torch.equal(pool.positions(7, 8)[1:8], pool.positional_embedding[1:8])


def test_surgery_changes_the_map(tiny: AudioCLIP) -> None:
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        plain, cut = tiny.visual(image), tiny.visual(image, surgery=True)
    assert torch.equal(plain.maps[3], cut.maps[3])
    assert not torch.allclose(plain.maps[4], cut.maps[4])


def test_frames_are_cropped_or_squashed() -> None:
    frame = np.zeros((1, 100, 200, 3), np.uint8)
    frame[:, :, 50:150] = 255  # the middle, which is all that a crop keeps
    white = (1 - torch.tensor(CLIP.mean)) / torch.tensor(CLIP.deviation)
    crop, squash = image_input(frame, 64), image_input(frame, 64, fit="squash")
    assert crop.shape == squash.shape == (1, 3, 64, 64)
    # Away from the edge, where the bicubic filter swings.
    torch.testing.assert_close(crop[0, :, :, 4:-4].amin((1, 2)), white)
    assert (squash[0, 0, :, :12] < 0).all()


# --- sound


def test_the_audio_tower_hears_a_batch_as_it_hears_one(tiny: AudioCLIP) -> None:
    sounds = wave(0.1, 0.5, 0.0)
    with torch.inference_mode():
        batch = tiny.encode_audio(sounds)
        alone = torch.cat([tiny.encode_audio(sound[None]) for sound in sounds])
    assert torch.isfinite(batch).all()  # the third is silent
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-5)


def test_channels_are_heard_one_by_one_and_added(tiny: AudioCLIP) -> None:
    mono = wave(0.1, 0.5)
    with torch.inference_mode():
        stereo = tiny.encode_audio(mono.transpose(0, 1))
        left, right = tiny.encode_audio(mono)
    torch.testing.assert_close(stereo[0], left + right - tiny.audio.fc.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 1023, 1024, 1025, 44_100])
def test_any_length_is_framed_whole(tiny: AudioCLIP, samples: int) -> None:
    frames = tiny.audio.frames(torch.ones(1, 1, samples))
    config = tiny.config.audio
    expected = 1 + max(0, math.ceil((samples - config.window) / config.hop))
    assert frames.shape == (1, expected, config.window)


def test_int16_is_paper_on_the_range_of_int16(tiny: AudioCLIP) -> None:
    with torch.inference_mode():
        right = tiny.encode_audio(wave(0.3), "int16")
        assert torch.equal(right, tiny.encode_audio(wave(0.3) * INT16_SCALE, "paper"))
        assert not torch.allclose(right, tiny.encode_audio(wave(0.3), "paper"))


def test_the_paper_scale_quantises_as_float32_does_in_its_order() -> None:
    x = wave(0.3)
    y = x.numpy()
    expected = ((y - np.float32(-32768)) * np.float32(2)) / np.float32(65535) + np.float32(-1)
    np.testing.assert_array_equal(scaled(x, "paper").numpy(), expected)
    assert len(np.unique(expected)) < 400


# --- filters


def test_untrained_filters_have_unit_norm() -> None:
    assert tightness(FBSP(256).kernel()).item() == pytest.approx(0, abs=1e-6)


def test_untrained_filters_are_a_fourier_transform() -> None:
    fbsp = FBSP(256)
    k = 17
    t = torch.pi * torch.linspace(-1, 1, 256)
    power = fbsp(torch.cos(k * t)[None, None]).square().sum(1)[0, :, 0]
    assert power.argmax() == k
    assert power[k] > 100 * power[k + 2]


def test_filters_are_kept_between_calls(tiny: AudioCLIP, computed: list[int]) -> None:
    network = copy.deepcopy(tiny)
    network.audio.fbsp._kept.clear()
    with torch.inference_mode():
        network.encode_audio(wave(0.1))
        network.encode_audio(wave(0.2))
        network(audio=wave(0.2))
    assert len(computed) == 1


@pytest.mark.parametrize("change", ["in place", "data", "load", "step", "replace"])
def test_filters_are_computed_again_when_parameters_change(change: str) -> None:
    fbsp = FBSP(64)
    with torch.no_grad():
        before = fbsp.kernel()
        assert fbsp.kernel() is before
    if change == "in place":
        with torch.no_grad():
            fbsp.fc[3] += 0.5
    elif change == "data":
        fbsp.fc.data[3] += 0.5  # leaves the version counter alone
    elif change == "load":
        fbsp.load_state_dict({key: tensor + 0.5 for key, tensor in fbsp.state_dict().items()})
    elif change == "step":
        optimizer = torch.optim.Adam(fbsp.parameters(), lr=0.1)
        fbsp(torch.randn(1, 2, 64)).sum().backward()
        optimizer.step()
    else:
        fbsp.fc = torch.nn.Parameter(fbsp.fc.detach() + 0.5)
    with torch.no_grad():
        after = fbsp.kernel()
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, fbsp_module.filters(fbsp.m, fbsp.fb, fbsp.fc, 64).detach())


def test_filters_follow_the_precision_of_the_network() -> None:
    fbsp, frames = FBSP(64).requires_grad_(False), torch.randn(1, 2, 64)
    single = fbsp(frames)
    double = fbsp.double()(frames.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)


def test_autocast_leaves_the_filters_alone() -> None:
    fbsp, expected = FBSP(64).requires_grad_(False), FBSP(64).requires_grad_(False).kernel()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fbsp.kernel(), expected)


def test_threads_see_old_filters_or_new_ones_and_no_mixture() -> None:
    fbsp, done = FBSP(64).requires_grad_(False), threading.Event()
    values = [torch.full_like(fbsp.m, value) for value in (0.0, 1.0)]
    allowed = [fbsp_module.filters(m, fbsp.fb, fbsp.fc, 64) for m in values]

    def look() -> int:
        looks = 0
        while not done.is_set():
            assert any(torch.equal(fbsp.kernel(), kernel) for kernel in allowed)
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        for i in range(100):
            fbsp.m.data = values[i % 2]
        done.set()
        assert all(reader.result() for reader in readers)
    assert torch.equal(fbsp.kernel(), allowed[1])


def test_frozen_filters_are_kept_even_where_gradients_are_recorded(computed: list[int]) -> None:
    fbsp = FBSP(64).requires_grad_(False)
    with torch.inference_mode():
        fbsp.kernel()
    frames = torch.randn(1, 2, 64, requires_grad=True)
    fbsp(frames).sum().backward()
    assert frames.grad is not None
    assert len(computed) == 1


@pytest.mark.parametrize("copied", [False, True])
def test_gradients_flow_and_are_brought_to_one(copied: bool) -> None:
    fbsp = FBSP(64)
    with torch.no_grad():
        fbsp.m += 1  # at m = 0 the window does not depend on fb
    fbsp = copy.deepcopy(fbsp) if copied else fbsp
    for _ in range(2):  # a second pass must not normalise twice, nor see the first one's filters
        fbsp.zero_grad()
        fbsp(torch.randn(1, 2, 64)).square().sum().backward()
        for parameter in (fbsp.m, fbsp.fb, fbsp.fc):
            assert parameter.grad is not None
            assert parameter.grad.abs().max().item() == pytest.approx(1, abs=1e-4)
    assert fbsp.bias.grad is None


def test_threads_share_one_network(tiny: AudioCLIP) -> None:
    network = copy.deepcopy(tiny)
    network.audio.fbsp._kept.clear()
    with torch.inference_mode():
        expected = tiny.encode_audio(wave(0.2))

    def listen(_: int) -> bool:
        with torch.inference_mode():
            return torch.allclose(network.encode_audio(wave(0.2)), expected, rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(listen, range(8)))


# --- text, logits, loss


def test_features_have_unit_length_and_scales_are_clamped(tiny: AudioCLIP) -> None:
    network = copy.deepcopy(tiny)
    network.logit_scale.data.fill_(9.0)  # exp(9) is far above 100
    out = network(wave(0.1, 0.4), torch.randn(2, 3, 96, 96), Tokenizer()(["cat", "dog"]))
    for features in (out.audio, out.image, out.text):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(out.logits_it, 100 * out.image @ out.text.T)
    torch.testing.assert_close(out.logits_ai, 100 * out.audio @ out.image.T)


def test_the_loss_is_the_sum_over_pairs_by_the_factorial_and_the_filters(tiny: AudioCLIP) -> None:
    sound, image, text = wave(0.1, 0.4), torch.randn(2, 3, 96, 96), Tokenizer()(["cat", "dog"])

    def both(logits: torch.Tensor) -> torch.Tensor:
        own = torch.arange(2)
        cross = torch.nn.functional.cross_entropy
        return cross(logits, own) + cross(logits.T, own)

    with torch.no_grad():
        filters = tightness(tiny.audio.fbsp.kernel())
        three, two, none = tiny(sound, image, text), tiny(None, image, text), tiny(image=image)
        one = tiny(sound)
    pairs = both(three.logits_ai) + both(three.logits_at) + both(three.logits_it)
    torch.testing.assert_close(three.loss, pairs / 6 + filters)
    torch.testing.assert_close(two.loss, both(two.logits_it))
    torch.testing.assert_close(one.loss, filters)
    assert none.loss is None


def test_a_token_sees_only_what_came_before(tiny: AudioCLIP) -> None:
    tokens = Tokenizer()(["ab", "abcd"])
    x = tiny.token_embedding(tokens)
    out = tiny.transformer(x)
    torch.testing.assert_close(out[0, :2], out[1, :2])
    assert not torch.allclose(out[0, 3], out[1, 3])


def test_without_merges_every_byte_is_a_token() -> None:
    tokenizer = Tokenizer()
    assert len(tokenizer) == AudioCLIPConfig.tiny().text.vocabulary
    row = tokenizer(["Ab é"], context=8)[0].tolist()
    assert row[0] == 512
    assert row[row.index(513) :] == [513, 0, 0]
    assert row.index(513) == 5  # a, b, and the two bytes of é


def test_a_text_that_does_not_fit_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidOption, match="102 tokens; 77 fit"):
        Tokenizer()(["x" * 100])


def test_text_is_cleaned_as_clip_cleans_it() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.encode("A &amp;amp; b\n ") == tokenizer.encode("a & b")


def test_a_broken_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"merges\na b\n" * 9000)[:-20])
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"#version\na b\n"))
    for name in ("torn.gz", "short.gz"):
        with pytest.raises(WeightsInvalid, match=name):
            Tokenizer.from_file(tmp_path / name)


@pytest.mark.skipif(vocabulary() is None, reason="vocabulary missing")
def test_the_published_vocabulary_gives_clips_tokens() -> None:
    path = vocabulary()
    assert path is not None
    tokenizer = Tokenizer.from_file(path)
    assert len(tokenizer) == 49_408
    golden = np.load(Path(__file__).parent / "data/golden/audioclip_forward.npz")["tokens"]
    np.testing.assert_array_equal(tokenizer(["cat", "a photo of a dog."]), golden[:2])
