"""AVSBench from disk: round trips through its layouts, every trap of real copies, and checks."""

from __future__ import annotations

import csv
import errno
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from numpy.random import RandomState
from PIL import Image
from scipy.io import wavfile

from models.datasets import layouts
from models.datasets.__main__ import main
from models.datasets.avsbench import (
    LAYOUTS,
    SUBSETS,
    AVSBench,
    Reading,
    Row,
    Subset,
    find_home,
    padded,
    sample,
)
from models.datasets.clip import each
from models.datasets.labels import palette, read_classes, read_mask, read_wav
from models.datasets.layouts import Order, planned, write_layout
from models.errors import DatasetInvalid, InvalidOption
from models.segments import whole_seconds

CLIPS, SIZE = 8, 48


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three layouts, a few small clips each."""
    folder = tmp_path_factory.mktemp("avsbench")
    for subset in SUBSETS:
        write_layout(folder / subset, Order(subset, CLIPS, SIZE, videos=subset == "ms3"))
    return {subset: folder / subset for subset in SUBSETS}


@pytest.fixture
def copy(written: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Copies that a test may spoil."""
    yield {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in written.items()}


@pytest.mark.parametrize("subset", SUBSETS)
def test_what_is_written_is_read_again(written: dict[str, Path], subset: Subset) -> None:
    pieces = list(planned(Order(subset, CLIPS, SIZE)))
    for split in ("train", "val", "test"):
        data = AVSBench(written[subset], subset, split, reading=Reading(semantic=subset == "avss"))
        made = [piece for piece in pieces if piece.row.split == split]
        assert data.rows == [piece.row for piece in made] and len(data) == len(made)
        for clip, piece in zip(each(data), made, strict=True):
            drawn = piece.source[piece.index]
            wanted = drawn.truth if subset == "avss" else (drawn.truth != 0).astype(np.uint8)
            known = np.array(clip.annotated)
            assert np.array_equal(clip.truth[known], wanted[known]) and not clip.truth[~known].any()
            assert np.array_equal(clip.audio, drawn.audio) and clip.rate == 16_000
            close = 12 if subset == "avss" else 0  # AVSS keeps its frames as JPEG
            assert np.abs(clip.frames.astype(int) - drawn.frames).mean() <= close


def test_frames_and_masks_are_numbered_and_annotated_as_each_subset_does(written: dict[str, Path]) -> None:
    train, val = (AVSBench(written["s4"], "s4", split)[0] for split in ("train", "val"))
    assert train.annotated == (True, False, False, False, False) and all(val.annotated)
    assert all(AVSBench(written["ms3"], "ms3", "train")[0].annotated)
    avss = AVSBench(written["avss"], "avss", "train")
    assert {
        row.label: (sum(clip.annotated), len(clip.frames))
        for row, clip in zip(avss.rows, each(avss), strict=True)
    } == {
        "v1s": (1, 5),
        "v1m": (5, 5),
        "v2": (10, 10),
    }
    names = {
        subset: sorted(path.name for path in home.rglob("*.[pj][np]g")) for subset, home in written.items()
    }
    assert "synth_0_train_00000.mp4_1.png" in names["ms3"] and "synth_0_train_00000_1.png" in names["ms3"]
    assert "synth_0_train_00000_5.png" in names["s4"] and "synth_0_train_00000_0.png" not in names["s4"]
    assert "0.jpg" in names["avss"] and "9.jpg" in names["avss"] and "10.jpg" not in names["avss"]


def test_raw_videos_belong_to_their_frames(written: dict[str, Path]) -> None:
    data = AVSBench(written["ms3"], "ms3", "train")
    with av.open(data.home / f"ms3_data/raw_videos/{data.rows[0].name}.mp4") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # The preprocessing of AVSBench keeps frame int(second * fps + 15/16 * fps).
    for second, frame in enumerate(data[0].frames):
        assert np.abs(pictures[int(second * 25 + 15 / 16 * 25)].astype(int) - frame).mean() < 8


def test_a_subset_is_found_from_any_of_the_folders_above(written: dict[str, Path]) -> None:
    home = find_home(written["s4"], "s4")
    assert home == written["s4"] / "avsbench_data/Single-source"
    assert find_home(home, "s4") == home and find_home(home.parent, "s4") == home
    with pytest.raises(DatasetInvalid, match="holds no MS3 data"):
        find_home(written["s4"], "ms3")
    with pytest.raises(DatasetInvalid, match="is not a folder"):
        find_home(written["s4"] / "nowhere", "s4")


# Masks as they come


def saved(path: Path, picture: Image.Image) -> Path:
    picture.save(path)
    return path


SHAPE = np.zeros((6, 8), np.uint8)
SHAPE[2:5, 1:4] = 1


def test_a_mask_is_the_same_in_every_way_of_storing_it(tmp_path: Path) -> None:
    grey_palette = list(itertools.chain.from_iterable((value,) * 3 for value in range(256)))
    pictures = {
        "bits": Image.fromarray(SHAPE * 255).convert("1"),
        "full": Image.fromarray(SHAPE * 255),
        "ones": Image.fromarray(SHAPE),
        "colour": Image.fromarray(palette()[SHAPE * 5]),
        "white": Image.fromarray(np.repeat(SHAPE[..., None] * 255, 3, axis=2)),
        "alpha": Image.fromarray(np.dstack([SHAPE * 255] * 3 + [np.full_like(SHAPE, 255)])),
    }
    for name, index, colours in (
        ("palette", 1, palette().ravel().tolist()),
        ("high index", 70, palette().ravel().tolist()),
        ("grey palette, 0 and 255", 255, grey_palette),
        ("grey palette, 0 and 1", 1, grey_palette),
    ):
        pictures[name] = Image.fromarray(SHAPE * index)
        pictures[name].putpalette(colours)
    for name, picture in pictures.items():
        mask = read_mask(saved(tmp_path / "mask.png", picture))
        assert mask.dtype == np.uint8 and np.array_equal(mask, SHAPE), name


def test_stray_grey_values_fall_to_the_nearer_side(tmp_path: Path) -> None:
    stray = SHAPE * 255
    stray[0, 0], stray[0, 1], stray[3, 2] = 3, 90, 201
    assert np.array_equal(read_mask(saved(tmp_path / "mask.png", Image.fromarray(stray))), SHAPE)


def test_class_maps_are_indices_palettes_or_colours_and_strays_are_background(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 70], [12, 33, 0]], np.uint8)
    indexed = Image.fromarray(labels)
    indexed.putpalette(palette().ravel().tolist())
    for picture in (Image.fromarray(labels), indexed, Image.fromarray(palette()[labels])):
        assert np.array_equal(read_classes(saved(tmp_path / "labels.png", picture), 71), labels)
    odd = labels.copy()
    odd[0, 1] = 255
    colours = palette()[labels]
    colours[0, 1] = (1, 2, 3)
    for picture in (Image.fromarray(odd), Image.fromarray(colours)):
        read = read_classes(saved(tmp_path / "labels.png", picture), 71)
        assert read[0, 1] == 0 and read[1, 1] == 33


def test_avss_falls_back_on_its_coloured_labels(copy: dict[str, Path]) -> None:
    before = AVSBench(copy["avss"], "avss", "train", reading=Reading(semantic=True))[0]
    for folder in copy["avss"].glob("*/*/labels_semantic"):
        shutil.rmtree(folder)
    after = AVSBench(copy["avss"], "avss", "train", reading=Reading(semantic=True))[0]
    assert np.array_equal(before.truth, after.truth) and before.truth.any()


def test_binary_avss_forgets_the_classes(written: dict[str, Path]) -> None:
    data = AVSBench(written["avss"], "avss", "train")
    assert set(np.unique(data[1].truth)) == {0, 1}
    assert data.classes[0] == "background" and len(data.classes) == 13


# Sound as it comes


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1)])
def test_wavs_of_any_rate_and_number_of_channels_become_mono_at_the_rate_asked(
    tmp_path: Path, rate: int, channels: int
) -> None:
    noise = (RandomState(0).standard_normal((rate, channels)) * 4000).astype(np.int16)
    wavfile.write(tmp_path / "sound.wav", rate, noise)
    mono = (noise.astype(np.float64) / 32_768).mean(axis=1).astype(np.float32)
    plain, own = read_wav(tmp_path / "sound.wav")
    assert own == rate and np.array_equal(plain, mono)
    resampled, asked = read_wav(tmp_path / "sound.wav", 22_050)
    assert asked == 22_050 and len(resampled) == 22_050
    np.testing.assert_allclose(resampled, soxr.resample(mono, rate, 22_050, quality="HQ"), atol=1e-6)


@pytest.mark.parametrize(("kind", "middle", "full"), [("u1", 128, 127), ("i4", 0, 2**31 - 1), ("f4", 0, 1)])
def test_wavs_of_any_depth_are_on_the_same_scale(tmp_path: Path, kind: str, middle: int, full: int) -> None:
    wave = np.sin(np.arange(8000) / 9) * 0.5
    wavfile.write(tmp_path / "sound.wav", 8000, (wave * full + middle).astype(kind))
    np.testing.assert_allclose(read_wav(tmp_path / "sound.wav")[0], wave, atol=0.015)


def test_a_wav_a_little_short_still_gives_five_seconds(copy: dict[str, Path]) -> None:
    data = AVSBench(copy["ms3"], "ms3", "train")
    rate, sound = wavfile.read(data.audio_path(data.rows[0]))
    wavfile.write(data.audio_path(data.rows[0]), rate, sound[:-700])
    clip = data[0]
    assert len(clip.audio) == 5 * 16_000 - 700
    assert whole_seconds(clip.audio, clip.rate).shape == (5, 16_000)


# Folders as they come


def test_hidden_files_disturb_nobody(copy: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = [clip.frames for clip in each(AVSBench(copy["ms3"], "ms3", "train"))]
    for folder in list(copy["ms3"].rglob("*")):
        if folder.is_dir():
            (folder / ".DS_Store").write_bytes(b"\0")
            (folder / "._synth_0_train_00000.mp4_1.png").write_bytes(b"\0")
    after = [clip.frames for clip in each(AVSBench(copy["ms3"], "ms3", "train"))]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert main(["check", str(copy["ms3"])]) == 0
    assert "hidden files" in capsys.readouterr().out


def test_padding_is_added_on_request_and_never_counts_as_background(written: dict[str, Path]) -> None:
    clip = AVSBench(written["avss"], "avss", "train")[1]
    assert clip.present == (True,) * 5
    long = padded(clip)
    assert long.frames.shape[0] == long.truth.shape[0] == 10 and not long.frames[5:].any()
    assert long.present == long.annotated == (True,) * 5 + (False,) * 5
    with pytest.raises(InvalidOption, match="cannot be padded to 4"):
        padded(clip, 4)


def test_pictures_are_squashed_or_cropped_to_the_size_asked(copy: dict[str, Path]) -> None:
    data = AVSBench(copy["s4"], "s4", "val")
    for path in [*data.frame_paths(data.rows[0]), *filter(None, data.mask_paths(data.rows[0]))]:
        wide = Image.new("RGB", (96, 48), (0, 0, 0))
        wide.paste((255, 255, 255), (48, 0, 96, 48))
        wide.save(path)
    squashed = AVSBench(copy["s4"], "s4", "val", reading=Reading(size=24))[0]
    cropped = AVSBench(copy["s4"], "s4", "val", reading=Reading(size=24, fit="crop"))[0]
    assert squashed.frames.shape == cropped.frames.shape == (5, 24, 24, 3)
    for clip in (squashed, cropped):
        assert clip.masks[:, :, 12:].all() and not clip.masks[:, :, :12].any()
        assert clip.frames[:, :, 15:].min() > 250


def test_a_part_of_a_split_is_the_part_that_pandas_takes() -> None:
    rows = [Row(str(number), "train") for number in range(3452)]
    # pandas 2.3.3: DataFrame.sample(frac=..., replace=False, random_state=0) of 3,452 rows.
    first = ["856", "2356", "1341", "1499", "3061", "1390"]
    for fraction, count in ((0.2, 690), (0.5, 1726)):
        part = sample(rows, fraction)
        assert len(part) == count and [row.name for row in part[:6]] == first
        assert len(set(part)) == count
    assert sample(rows, 1.0) == rows
    assert [row.name for row in sample(rows[:5], 0.5)] == ["2", "0"]
    for fraction in (0, 1.5, 1e-6):
        with pytest.raises(InvalidOption):
            sample(rows, fraction)


# What is missing, corrupt or odd


def spoilt(copy: dict[str, Path], how: str) -> tuple[Path, Path]:
    """A file of the S4 copy that is spoilt, and the copy."""
    data = AVSBench(copy["s4"], "s4", "train")
    row = data.rows[0]
    frame, mask, wav = data.frame_paths(row)[2], data.mask_paths(row)[0], data.audio_path(row)
    assert mask is not None
    path = {"frame": frame, "mask": mask, "wav": wav}[how.split()[-1]]
    if how.startswith("missing"):
        path.unlink()
    elif how.startswith("truncated"):
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.write_bytes(b"this is no media file, whatever its name says")
    return path, copy["s4"]


@pytest.mark.parametrize(
    "how",
    [f"{what} {which}" for what in ("missing", "foreign") for which in ("frame", "mask", "wav")]
    + ["truncated frame", "truncated mask"],
)
def test_a_bad_file_is_named_in_one_sentence(
    copy: dict[str, Path], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, root = spoilt(copy, how)
    with pytest.raises(DatasetInvalid) as caught:
        AVSBench(root, "s4", "train")[0]
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert main(["check", str(root)]) == 2
    said = capsys.readouterr()
    assert str(path) in said.out and "1 files or tables are missing or broken" in said.err


def test_tables_that_are_none_are_named(copy: dict[str, Path]) -> None:
    home = find_home(copy["s4"], "s4")
    table = home / "s4_meta_data.csv"
    lines = table.read_text().splitlines()
    for text, complaint in (
        ("\n".join([*lines, "lonely"]), "line 10 has 1 columns instead of 4"),
        ("", "not a readable table"),
        ("\n".join(lines[:1]), "no clip in the split 'train'"),
    ):
        table.write_text(text)
        with pytest.raises(DatasetInvalid, match=complaint):
            AVSBench(home, "s4", "train")
    classes = (copy["avss"] / "label2idx.json").read_text()
    (copy["avss"] / "label2idx.json").write_text('{"background": 0, "bell": 7}')
    with pytest.raises(DatasetInvalid, match="does not number its 2 classes"):
        AVSBench(copy["avss"], "avss", "train")
    (copy["avss"] / "label2idx.json").write_text('["background", "bell"]')
    with pytest.raises(DatasetInvalid, match="is no table of classes"):
        AVSBench(copy["avss"], "avss", "train")
    (copy["avss"] / "label2idx.json").write_text(classes)
    (copy["avss"] / "metadata.csv").write_text("video,split\na,train\n")
    with pytest.raises(DatasetInvalid, match="no column for name"):
        AVSBench(copy["avss"], "avss", "train")


def test_a_check_finds_what_is_odd(copy: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = AVSBench(copy["ms3"], "ms3", "train")
    first, second, third, *_ = data.rows
    mask = data.mask_paths(first)[1]
    assert mask is not None
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[0, :3], pixels[1, 0] = (7, 9, 200), 255
    Image.fromarray(pixels).save(mask)
    rate, sound = wavfile.read(data.audio_path(second))
    wavfile.write(data.audio_path(second), rate, sound[: 2 * rate])
    wavfile.write(data.audio_path(third), rate, np.zeros_like(sound))
    with (data.home / LAYOUTS["ms3"].table).open("a", newline="") as file:
        csv.writer(file).writerows([[first.name, "train"], ["somebody", "holdout"]])
    assert main(["check", str(copy["ms3"])]) == 0
    said = capsys.readouterr().out
    for words in (
        "stray values: 7, 9, 200",
        "lasts 2.00 s of 5",
        "silent throughout",
        "stands more than once in train",
        "split 'holdout' that nobody reads",
        "the published set has 296",
    ):
        assert words in said, words


def test_a_check_of_anything_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "holds no AVSBench data" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


# Writing


def test_the_command_writes_a_folder_that_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "s4"
    command = ["synth", str(out), "--clips", "3", "--size", "32", "--workers", "1"]
    assert main(command) == 0
    assert [path.name for path in out.parent.iterdir()] == ["s4"]
    assert main(["check", str(out)]) == 0
    assert "s4 test: 1 clips, 5 frames of 32x32, 5 masks" in capsys.readouterr().out
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--clips", "2"], "do not make three splits"),
        (["--size", "33"], "not an even number"),
        (["--seed", "-1"], "not a number from 0"),
    ],
)
def test_orders_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert main(["synth", str(tmp_path / "out"), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(layouts, "write_wav", full)
    assert main(["synth", str(tmp_path / "out"), "--clips", "3", "--size", "32", "--workers", "1"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_subsets_are_refused(written: dict[str, Path]) -> None:
    with pytest.raises(InvalidOption, match="no subset 's5'"):
        AVSBench(written["s4"], "s5", "train")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidOption, match="does not tell classes apart"):
        AVSBench(written["s4"], "s4", "train", reading=Reading(semantic=True))
