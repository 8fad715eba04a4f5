"""Other sounds and other layouts of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.random import RandomState

from models.datasets.avsbench import AVSBench
from models.datasets.layouts import Order, write_layout
from models.datasets.views import NEGATIVES, Composite, NegativeAudio, derangement, strangers
from models.errors import InvalidOption

CLIPS, SIZE = 8, 48


@pytest.fixture(scope="module")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small clips on disk."""
    folder = tmp_path_factory.mktemp("avsbench") / "s4"
    write_layout(folder, Order("s4", CLIPS, SIZE, videos=False))
    return folder


@pytest.mark.parametrize("kind", NEGATIVES)
def test_negative_audio_changes_the_sound_and_nothing_else(s4: Path, kind: str) -> None:
    plain = AVSBench(s4, "s4", "train")
    view = NegativeAudio(plain, kind)
    assert len(view) == len(plain)
    for index in range(len(plain)):
        before, after = plain[index], view[index]
        assert np.array_equal(before.frames, after.frames) and np.array_equal(before.truth, after.truth)
        assert not np.array_equal(before.audio, after.audio) and len(before.audio) == len(after.audio)
        assert np.array_equal(after.audio, view[index].audio)
        assert after.audio.any() == (kind != "silence")
        if kind == "swap":
            same = plain.categories(index) == plain.categories(view.donor(index))
            assert after.negative != same
        else:
            assert after.negative and not after.expected.any()
        if kind == "offscreen":
            assert not plain.categories(index) & plain.categories(view.donor(index))


def test_every_clip_gets_another_ones_sound_when_sounds_are_dealt_out() -> None:
    for count in (2, 3, 10):
        order = derangement(count, RandomState(0))
        assert sorted(order) == list(range(count)) and all(
            place != given for place, given in enumerate(order)
        )


def test_a_composite_of_a_data_set_on_disk(s4: Path) -> None:
    plain = AVSBench(s4, "s4", "train")
    composite = Composite(plain)
    for index in range(len(plain)):
        clip, place = composite[index], composite.place(index)
        row, column = divmod(place, 2)
        half = SIZE // 2
        quarter = np.s_[:, row * half : (row + 1) * half, column * half : (column + 1) * half]
        assert clip.frames.shape == plain[index].frames.shape
        assert clip.truth[quarter].sum() == clip.truth.sum() > 0
        assert np.array_equal(clip.audio, plain[index].audio)
        assert np.array_equal(clip.truth[quarter], plain[index].truth[:, 1::2, 1::2])


def test_views_refuse_what_they_cannot_do(s4: Path) -> None:
    one = AVSBench(s4, "s4", "val")
    with pytest.raises(InvalidOption, match="no negative audio 'hum'"):
        NegativeAudio(one, "hum")
    with pytest.raises(InvalidOption, match="two clips"):
        NegativeAudio(one, "swap")
    with pytest.raises(InvalidOption, match="four clips"):
        Composite(one)
    with pytest.raises(InvalidOption, match="needs 3 of other classes"):
        strangers(one, 0, 3, RandomState(0))
