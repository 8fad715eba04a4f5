"""CLAP at tiny size, random weights: batches equal single calls, sentences are encoded once, keys map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import ClapFeatureExtractor

from models import clap
from models.checkpoints import check_fit
from models.clap import HEARING, SAMPLE_RATE, Clap, Hearing
from models.errors import InvalidOption
from models.install import install_trained
from models.key_rules import RULES
from models.segments import quantised
from models.text_tokens import roberta, tiny_roberta
from models.weights import Weights

MANIFEST = Path(__file__).parent / "data/manifests/clap_manifest.json"
SENTENCES = ["dog", "a man speaking", "Church bell, ringing", "ünïcode ♫"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return clap.build("clap-tiny")


@pytest.fixture
def encoder(network: Any) -> Clap:
    return clap.tiny(network)


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """Three seconds of sound, one a row: a tone, noise, silence."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(size=SAMPLE_RATE) * 0.1
    return np.stack([np.sin(2 * np.pi * 440 * time), noise, 0 * time]).astype(np.float32)


def test_sounds_together_are_as_each_alone(encoder: Clap, sound: NDArray[np.float32]) -> None:
    together = encoder.audio(sound)
    assert together.shape == (3, 64)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    alone = torch.cat([encoder.audio(sound[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert encoder.audio(sound[:0]).shape == (0, 64)


@pytest.mark.parametrize("hearing", HEARING.values(), ids=HEARING.keys())
def test_sound_is_repeated_to_fill_what_is_heard(hearing: Hearing) -> None:
    length = hearing.seconds * SAMPLE_RATE
    piece = np.arange(1, 2 * length // 5, dtype=np.float32)[None]
    heard = clap.filled(piece, hearing.seconds)
    assert heard.shape == (1, length)
    np.testing.assert_array_equal(heard, np.pad(np.tile(piece, 2), ((0, 0), (0, length - 2 * piece.size))))
    whole = np.tile(piece, 4)
    np.testing.assert_array_equal(clap.filled(whole, hearing.seconds), whole[:, :length])


def test_what_is_beyond_is_not_heard(encoder: Clap, sound: NDArray[np.float32]) -> None:
    longer = np.concatenate([sound, sound[:, ::-1]], 1)
    torch.testing.assert_close(encoder.audio(longer), encoder.audio(sound), atol=TOLERANCE, rtol=0)


def test_rounding_to_16_bits_is_that_of_the_original() -> None:
    wave = np.array([[0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 1 / 32767, 0.9 / 32767]], np.float32)
    expected = np.array([[0, 32767, -32767, 32767, 16383, -16383, 1, 0]], np.float32) / 32767
    np.testing.assert_array_equal(quantised(wave), expected.astype(np.float32))


def test_rounding_can_be_left_out(network: Any, encoder: Clap, sound: NDArray[np.float32]) -> None:
    quiet = sound * np.float32(3e-5)
    exact = Clap(network, tiny_roberta(clap.TEXT_TOKENS), hearing=HEARING["clap-tiny"], quantise=False)
    assert (exact.audio(quiet) - encoder.audio(quiet)).abs().max() > 1e-4


def test_sentences_together_are_as_each_alone(network: Any, encoder: Clap) -> None:
    together = encoder.text(SENTENCES)
    alone = torch.cat([clap.tiny(network).text([sentence]) for sentence in SENTENCES])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    assert (together[0] - together[1]).abs().max() > 1e-4


def reference_mel(sound: NDArray[np.float32], hearing: Hearing) -> torch.Tensor:
    """What transformers' own extractor makes of it, a frame at a time, with the original's settings."""
    extractor = ClapFeatureExtractor(
        frequency_min=50,
        truncation="rand_trunc",
        padding="repeatpad",
        fft_window_size=hearing.window,
        hop_length=hearing.hop,
        max_length_s=hearing.seconds,
    )
    features = extractor(list(quantised(sound)), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    mel: torch.Tensor = features["input_features"].float()
    return mel.clamp(min=10 * np.log10(hearing.floor))


@pytest.mark.parametrize("hearing", HEARING.values(), ids=HEARING.keys())
@pytest.mark.parametrize("samples", [SAMPLE_RATE, 7 * SAMPLE_RATE // 2, 1000])
def test_the_spectrogram_is_that_of_the_reference(
    network: Any, sound: NDArray[np.float32], samples: int, hearing: Hearing
) -> None:
    piece = np.tile(sound[:2], (1, 4))[:, : min(samples, hearing.seconds * SAMPLE_RATE)]
    heard = torch.from_numpy(clap.filled(quantised(piece), hearing.seconds))
    mel = Clap(network, tiny_roberta(77), hearing=hearing).log_mel(heard)
    torch.testing.assert_close(mel, reference_mel(piece, hearing), atol=1e-4, rtol=0)  # dB


def test_the_embeddings_are_those_of_the_whole_network(
    network: Any, encoder: Clap, sound: NDArray[np.float32]
) -> None:
    """Against `ClapModel.forward`, fed by transformers' own feature extractor."""
    ids, real = tiny_roberta(77).batch(SENTENCES)
    with torch.inference_mode():
        mel = reference_mel(sound, HEARING["clap-tiny"])
        expected = network(input_ids=ids, attention_mask=real.long(), input_features=mel)
    torch.testing.assert_close(encoder.text(SENTENCES), expected.text_embeds, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(encoder.audio(sound), expected.audio_embeds, atol=TOLERANCE, rtol=0)


def test_a_vocabulary_is_encoded_once(network: Any, encoder: Clap) -> None:
    batches: list[int] = []
    hook = network.text_model.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    try:
        first = encoder.text(SENTENCES)
        again = encoder.text([*SENTENCES[::-1], "cat", "cat"])
    finally:
        hook.remove()
    assert batches == [4, 1]
    assert torch.equal(again[:4], first.flip(0))
    assert torch.equal(again[4], again[5])


def test_odd_sentences_have_embeddings_and_no_vocabulary_is_refused(encoder: Clap) -> None:
    assert torch.isfinite(encoder.text(["", "x" * 10_000])).all()
    with pytest.raises(InvalidOption, match="vocabulary is empty"):
        encoder.text([])


def test_byte_pairs_merge_as_their_file_says(tmp_path: Path) -> None:
    """Merges apply in the order of the file, within words; the space before a word belongs to it."""
    vocabulary = {
        "<s>": 0,
        "<pad>": 1,
        "</s>": 2,
        "l": 3,
        "o": 4,
        "w": 5,
        "Ġ": 6,
        "lo": 7,
        "low": 8,
        "Ġlow": 9,
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w\nĠ low\n", encoding="utf-8")
    tokens = roberta(tmp_path / "vocab.json", tmp_path / "merges.txt", limit=6)
    assert tokens(["low low", "ol", "low" * 9]) == [[0, 8, 9, 2], [0, 4, 3, 2], [0, 8, 8, 8, 8, 2]]
    ids, real = tokens.batch(["low low", "low"])
    assert ids.tolist() == [[0, 8, 9, 2], [0, 8, 2, 1]]
    assert real.tolist() == [[True] * 4, [True, True, True, False]]


def test_saved_weights_load_to_the_same_embeddings(
    network: Any, encoder: Clap, sound: NDArray[np.float32], tmp_path: Path
) -> None:
    weights = Weights(tmp_path / "weights", tiny=tmp_path / "tiny")
    install_trained(weights, "clap-tiny", network.state_dict(), source="random")
    loaded = clap.load(weights)
    assert torch.equal(loaded.audio(sound), encoder.audio(sound))
    assert torch.equal(loaded.text(SENTENCES), encoder.text(SENTENCES))


def test_the_published_layout_fits_the_network_key_for_key() -> None:
    name = "clap-630k-audioset-best"
    published = json.loads(MANIFEST.read_text())[name]
    state = {key: torch.zeros(shape) for key, shape in published.items()}
    state |= {"text_branch.embeddings.position_ids": torch.zeros(1)}
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    state |= dict.fromkeys(counters, torch.zeros((), dtype=torch.int64))
    with torch.device("meta"):
        network = clap.build(name)
    check_fit(network, RULES["clap"].apply(state), name)
