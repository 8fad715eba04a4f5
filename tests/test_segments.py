"""Segments as the published loaders cut them."""

from __future__ import annotations

import numpy as np
import pytest

from models.segments import AUDIOCLIP_RATE, CLAP_RATE, whole_seconds
from tests.parity import data
from tests.parity.data import segments_44k, segments_48k
from tests.parity.golden import DEFAULT, Golden


def test_golden_values() -> None:
    assert [str(row) for row in data.rows(Golden(DEFAULT)) if not row.ok] == []


def wave(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate)) / 4
    return samples.astype(np.float32)


@pytest.mark.parametrize("seconds", [1.0, 3.25, 5.0, 6.5])
def test_a_short_clip_ends_with_its_last_second(seconds: float) -> None:
    sound = wave(seconds, 100)
    cut = whole_seconds(sound, 100)
    kept = min(5, int(seconds))
    assert np.array_equal(cut[:kept].ravel(), sound[: kept * 100])
    assert all(np.array_equal(second, sound[-100:]) for second in cut[kept:])


def test_less_than_a_second_is_repeated_and_nothing_is_silence() -> None:
    sound = wave(0.3, 100)
    assert np.array_equal(whole_seconds(sound, 100)[2, 30:60], sound)
    assert not whole_seconds(np.zeros(0, np.float32), 100).any()
    for cut, length in ((segments_44k, 5 * AUDIOCLIP_RATE), (segments_48k, CLAP_RATE)):
        assert cut(np.zeros(0, np.float32), 16_000).shape == (5, 1, length)


def test_audioclip_hears_each_second_five_times() -> None:
    cut = segments_44k(wave(5, AUDIOCLIP_RATE), AUDIOCLIP_RATE)
    assert cut.shape == (5, 1, 5 * AUDIOCLIP_RATE)
    assert np.array_equal(cut[:, :, :AUDIOCLIP_RATE], cut[:, :, -AUDIOCLIP_RATE:])


def test_clap_hears_levels_of_int16() -> None:
    cut = segments_48k(8 * wave(5, CLAP_RATE), CLAP_RATE)
    assert cut.dtype == np.float32
    assert abs(cut).max() == 1.0  # clipped
    assert np.allclose(cut * 32_767, np.rint(cut * 32_767), atol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_channels_are_averaged_and_pitch_stays(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(5 * rate) / rate).astype(np.float32)
    stereo = np.stack([tone, np.zeros_like(tone)], axis=1)
    spectrum = np.abs(np.fft.rfft(segments_44k(stereo, rate)[2, 0, :AUDIOCLIP_RATE]))
    assert spectrum.argmax() == 440
    assert spectrum[440] == pytest.approx(AUDIOCLIP_RATE / 4, rel=0.01)  # half of a full tone
