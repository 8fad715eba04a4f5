"""Clips of every kind become the right frames and the right sound, and what is no clip is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import wave
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from PIL import Image

from models.errors import MediaTooLarge, UndecodableMedia, UnsupportedMedia
from models.media import (
    Limits,
    Media,
    Sampling,
    Window,
    WindowPlan,
    plan,
    probe,
    read_window,
    windows,
)
from tests.clips import Picture, Sound, clip_bytes, drawn, make_clip, square_at, tone
from tests.parity.data import segments_44k

ROOT = Path(__file__).resolve().parent.parent
SIZE = (160, 120)
BOMB_BYTES = 64 * 1024 * 1024

# Kind of clip -> how it is made. Each is five seconds of 25 frames a second unless it says otherwise.
KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "b-frames": {"video": Picture(b_frames=3, gop=40)},
    "open-gop": {"video": Picture(b_frames=3, gop=20, options={"x264-params": "open-gop=1:scenecut=0"})},
    "one-key-frame": {"video": Picture(gop=1000)},
    "10-bit": {"video": Picture(codec="libx265", pix_fmt="yuv420p10le")},
    "odd-size": {"size": (161, 121), "video": Picture(pix_fmt="yuv444p")},
    "grey": {"video": Picture(pix_fmt="gray")},
    "av1": {"video": Picture(codec="libsvtav1", options={"preset": "8"}), "seconds": 3},
    "5.1": {"container": "mov", "audio": Sound("pcm_s16le", 48_000, "5.1")},
    "8-khz": {"audio": Sound(rate=8000, layout="mono", bit_rate=24_000)},
    "mp3": {"audio": Sound(codec="libmp3lame")},
    "noisy": {"audio": Sound(noise=0.1, bit_rate=48_000)},  # makes AAC's decoder draw random numbers
    "mkv": {"container": "matroska", "video": Picture(b_frames=2)},
    "mkv-flac": {"container": "matroska", "audio": Sound(codec="flac")},
    "webm-vp8": {"container": "webm", "video": Picture(codec="libvpx"), "audio": Sound("libopus", 48_000)},
    "webm-vp9": {
        "container": "webm",
        "video": Picture(codec="libvpx-vp9"),
        "audio": Sound("libopus", 48_000),
    },
    "mov-pcm": {"container": "mov", "audio": Sound(codec="pcm_s24le")},
    "avi-mpeg4": {
        "container": "avi",
        "video": Picture(codec="mpeg4"),
        "audio": Sound("pcm_s16le", 16_000, "mono"),
    },
    "avi-h264": {"container": "avi", "video": Picture(b_frames=2), "audio": Sound("libmp3lame")},
    "avi-png": {"container": "avi", "video": Picture(codec="png", pix_fmt="rgba"), "audio": False},
    "ts": {"container": "mpegts", "video": Picture(b_frames=2)},
    "fragments": {"container": "ismv"},
}


@cache
def clip(kind: str) -> bytes:
    return clip_bytes(**{"size": SIZE, **KINDS[kind]})


def best_match(image: np.ndarray, size: tuple[int, int], frames: int = 150) -> int:
    """The number of the frame that was drawn like this."""
    drawings = all_drawn(size, frames)
    return int(np.abs(drawings - image.astype(np.int16)).mean(axis=(1, 2, 3)).argmin())


@cache
def all_drawn(size: tuple[int, int], frames: int) -> np.ndarray:
    return np.stack([drawn(frame, size) for frame in range(frames)]).astype(np.int16)


def same(one: Window, other: Window) -> bool:
    """Bit for bit."""
    assert one.frames is not None and other.frames is not None
    return (
        replace(one, frames=None, audio={}) == replace(other, frames=None, audio={})
        and np.array_equal(one.frames, other.frames)
        and one.audio.keys() == other.audio.keys()
        and all(np.array_equal(one.audio[rate], other.audio[rate]) for rate in one.audio)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_alone_equals_the_whole_pass(kind: str) -> None:
    media = Media(video=clip(kind))
    summary = probe(media)
    sampling = Sampling(fps=7)
    whole = list(windows(media, sampling, rates=(16_000, 44_100)))
    plans = plan(summary, sampling)
    assert len(plans) == len(whole) > 1
    # Backwards, so that no window profits from the one before it.
    for window, moments in reversed(list(zip(whole, plans, strict=True))):
        assert same(window, read_window(media, summary, moments, rates=(16_000, 44_100)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_moment_alone_equals_the_same_moment_among_others(kind: str) -> None:
    media = Media(video=clip(kind))
    summary = probe(media)
    dense = [
        (window, k)
        for window in windows(media, Sampling(fps=10), rates=(16_000,))
        for k in range(len(window.indices))
    ]
    for number in (3, 11, 19, 27):
        among, k = dense[number]
        alone = read_window(media, summary, WindowPlan(0, (number / 10,)), rates=(16_000,))
        assert among.frames is not None and alone.frames is not None
        assert alone.timestamps[0] == among.timestamps[k]
        assert np.array_equal(alone.frames[0], among.frames[k])
        assert np.array_equal(alone.audio[16_000][0], among.audio[16_000][k])


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"avi-h264", "avi-mpeg4", "grey"}))
def test_frames_are_those_that_were_drawn(kind: str) -> None:
    size = KINDS[kind].get("size", SIZE)
    for window in windows(Media(video=clip(kind)), Sampling(fps=4)):
        assert window.frames is not None
        assert window.size == window.frames.shape[1:3] == size[::-1]
        for image, index, timestamp in zip(window.frames, window.indices, window.timestamps, strict=True):
            assert best_match(image, size) == index
            assert abs(timestamp - index / 25) < 0.5 / 25
            left, top, side = square_at(index, size)
            inside = image[top + 2 : top + side - 2, left + 2 : left + side - 2]
            assert inside.min() > 200


@pytest.mark.parametrize(
    "kind", sorted(KINDS.keys() - {"avi-png", "noisy", "avi-h264", "8-khz", "mp3", "fragments"})
)
def test_sound_is_that_which_was_played(kind: str) -> None:
    media = Media(video=clip(kind))
    rate = probe(media).audio_rate
    assert rate is not None
    expected = tone(5, rate)
    window = next(windows(media, rates=(rate,)))
    for (start, _), sound in zip(window.audio_windows, window.audio[rate], strict=True):
        assert sound.dtype == np.float32 and sound.shape == (rate,)
        begin, middle = round(start * rate), slice(rate // 4, rate // 2)
        # Matroska's times are whole milliseconds, hence the slack of one to either side.
        slack = rate // 1000 if "webm" in kind else 0
        errors = [
            np.abs(sound[middle] - expected[begin + shift :][middle]).max()
            for shift in range(-slack if begin else 0, slack + 1)
        ]
        assert min(errors) < 0.05


@pytest.mark.parametrize("kind", ["b-frames", "open-gop", "10-bit", "ts", "webm-vp9"])
def test_pixels_equal_a_plain_decode(kind: str) -> None:
    data = clip(kind)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        plain = {
            round(float((frame.pts - stream.start_time) * stream.time_base), 3): frame.to_ndarray(
                format="rgb24"
            )
            for frame in container.decode(stream)
        }
    for window in windows(Media(video=data), Sampling(fps=25)):
        assert window.frames is not None
        for timestamp, image in zip(window.timestamps, window.frames, strict=True):
            assert np.array_equal(image, plain[round(timestamp, 3)])


def test_resampling_by_the_second_equals_resampling_at_once() -> None:
    data = clip_bytes(size=SIZE, container="mov", audio=Sound(codec="pcm_s16le", rate=48_000, noise=0.2))
    with av.open(io.BytesIO(data)) as container:
        source = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)])
    at_once = soxr.resample(source.mean(axis=1, dtype=np.float32) / 32768, 48_000, 16_000, quality="HQ")
    window = next(windows(Media(video=data), Sampling(fps=3, end=3.5), rates=(16_000,)))
    for (start, _), sound in zip(window.audio_windows, window.audio[16_000], strict=True):
        begin = round(start * 16_000)
        assert np.abs(sound - at_once[begin : begin + 16_000]).max() < 2e-4


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(rotation: int, turns: int) -> None:
    media = Media(video=clip_bytes(seconds=1, size=SIZE, video=Picture(rotation=rotation)))
    summary = probe(media)
    upright = np.rot90(drawn(0, SIZE), turns)
    window = next(windows(media))
    assert (summary.height, summary.width) == window.size == upright.shape[:2]
    assert summary.rotation == -rotation % 360
    assert window.frames is not None
    assert np.abs(window.frames[0].astype(int) - upright).mean() < 8


def test_variable_rate_shows_the_frame_on_the_screen() -> None:
    times = [0, 0.04, 0.1, 0.5, 1.7, 1.8, 2.0, 3.3, 4.9]
    media = Media(video=clip_bytes(size=SIZE, video=Picture(times=times)))
    window = next(windows(media))
    assert window.timestamps == pytest.approx([0, 0.5, 2.0, 2.0, 3.3])
    assert window.frames is not None
    assert [best_match(image, SIZE) for image in window.frames] == [0, 3, 6, 6, 7]


def test_a_late_start_of_the_picture_moves_the_sound_with_it() -> None:
    picture = Picture(times=[0.5 + frame / 25 for frame in range(75)])
    media = Media(
        video=clip_bytes(size=SIZE, container="mov", video=picture, audio=Sound("pcm_s16le", seconds=4))
    )
    summary = probe(media)
    assert summary.duration == pytest.approx(3.0)
    window = next(windows(media, rates=(44_100,)))
    assert window.timestamps == pytest.approx((0, 1, 2))
    assert np.abs(window.audio[44_100][1] - tone(4, 44_100)[66_150:110_250]).max() < 1e-3


def test_non_monotonic_timestamps_are_answered() -> None:
    data = bytearray(clip_bytes(size=SIZE, video=Picture(b_frames=2)))
    # The offsets between decoding and showing, shuffled: frames go back and forth in time.
    table = data.index(b"ctts")
    (count,) = struct.unpack_from(">I", data, table + 8)
    entries = [data[table + 12 + 8 * k : table + 20 + 8 * k] for k in range(count)]
    data[table + 12 : table + 12 + 8 * count] = b"".join(entries[::-1])
    media = Media(video=bytes(data))
    summary = probe(media)
    for moments, window in zip(plan(summary, Sampling(fps=5)), windows(media, Sampling(fps=5)), strict=True):
        assert all(
            stamp <= time + 0.001
            for stamp, time in zip(window.timestamps[1:], moments.times[1:], strict=True)
        )
        assert same(window, read_window(media, summary, moments))


def test_a_clip_of_one_frame() -> None:
    for container in ("mp4", "matroska"):
        media = Media(video=clip_bytes(seconds=0.04, size=SIZE, container=container, audio=False))
        window = next(windows(media, rates=(16_000,)))
        assert window.timestamps == (0.0,) and not window.has_audio
        assert window.audio_windows[0] == pytest.approx((0, 0.04), abs=0.01)
        assert not window.audio[16_000].any()


def test_sound_shorter_than_a_second_is_repeated() -> None:
    media = Media(
        video=clip_bytes(seconds=0.4, size=SIZE, container="mov", audio=Sound("pcm_s16le", 16_000, "mono"))
    )
    window = next(windows(media, rates=(16_000,)))
    assert window.audio[16_000].shape == (1, 16_000)
    assert np.abs(window.audio[16_000][0] - np.resize(tone(0.4, 16_000), 16_000)).max() < 1e-3


def test_the_last_second_is_whole() -> None:
    media = Media(
        video=clip_bytes(seconds=2.6, size=SIZE, container="mov", audio=Sound("pcm_s16le", 16_000, "mono"))
    )
    window = next(windows(media, rates=(16_000,)))
    assert np.allclose(window.audio_windows, [(0, 1), (1, 2), (1.6, 2.6)])
    assert np.abs(window.audio[16_000][2] - tone(2.6, 16_000)[-16_000:]).max() < 1e-3


@pytest.mark.parametrize("seconds", [1.5, 8.0])
def test_sound_shorter_or_longer_than_the_picture(seconds: float) -> None:
    media = Media(video=clip_bytes(size=SIZE, audio=Sound(seconds=seconds)))
    window = next(windows(media, rates=(16_000,)))
    assert len(window.timestamps) == 5
    assert window.audio[16_000][3].any() == (seconds > 5)


def test_no_audio_is_silence() -> None:
    window = next(windows(Media(video=clip_bytes(size=SIZE, audio=False)), rates=(16_000, 44_100)))
    assert not window.has_audio
    assert {rate: sound.shape for rate, sound in window.audio.items()} == {
        16_000: (5, 16_000),
        44_100: (5, 44_100),
    }
    assert not any(sound.any() for sound in window.audio.values())


@pytest.mark.parametrize("kind", ["b-frames", "open-gop", "ts", "mkv", "avi-h264"])
def test_without_pixels_the_moments_are_the_same(kind: str) -> None:
    media, sampling = Media(video=clip(kind)), Sampling(fps=6)
    for full, bare in zip(windows(media, sampling), windows(media, sampling, pixels=False), strict=True):
        assert bare.frames is None
        assert replace(full, frames=None) == bare


def test_a_size_that_changes_on_the_way_is_brought_to_the_first() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        output.start_encoding()
        for number, size in enumerate([SIZE, (200, 100)]):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuvj420p"
            encoder.time_base = Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(drawn(number, size), format="rgb24")
            for packet in [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode(None)]:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = number
                output.mux(packet)
    window = next(windows(Media(video=buffer.getvalue()), Sampling(fps=25)))
    assert window.frames is not None and window.frames.shape == (2, SIZE[1], SIZE[0], 3)
    assert window.frames[1].any()


def sound_file(path: Path, codec: str, **options: object) -> Path:
    make_clip(path, video=False, audio=Sound(codec=codec, rate=48_000, **options))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame"),
        ("a.m4a", "aac"),
        ("a.ogg", "libopus"),
        ("a.aac", "aac"),
        ("a.mka", "pcm_f32le"),
    ],
)
def test_a_video_with_a_sound_file(tmp_path: Path, name: str, codec: str) -> None:
    sound = sound_file(tmp_path / name, codec, seconds=20)
    media = Media(video=clip_bytes(seconds=20, size=(32, 32), audio=False), audio=sound)
    summary = probe(media)
    assert summary.has_audio and summary.audio_rate == 48_000
    whole = list(windows(media, rates=(48_000,), pixels=False))
    sounds = np.concatenate([window.audio[48_000] for window in whole])
    alone = read_window(media, summary, plan(summary, Sampling())[-1], rates=(48_000,), pixels=False)
    assert np.array_equal(alone.audio[48_000], whole[-1].audio[48_000])
    expected = tone(20, 48_000).reshape(20, 48_000)
    # ADTS has no field for the encoder's run-in of 1,024 samples.
    late = 1024 if name == "a.aac" else 0
    middle = slice(12_000, 24_000)
    assert np.abs(np.roll(sounds, -late, axis=1)[1:, middle] - expected[1:, middle]).max() < 0.1


def test_floats_that_are_no_numbers_become_sound_in_range() -> None:
    samples = tone(2, 8000)
    samples[100:200], samples[300:400], samples[500] = np.nan, np.inf, 3e38
    head = b"RIFF" + struct.pack("<I", 36 + samples.nbytes) + b"WAVEfmt "
    data = (
        head
        + struct.pack("<IHHIIHH", 16, 3, 1, 8000, 32_000, 4, 32)
        + b"data"
        + struct.pack("<I", samples.nbytes)
    )
    media = Media(frames=(image_bytes(0),), audio=data + samples.tobytes())
    sound = next(windows(media, rates=(16_000,))).audio[16_000]
    assert np.isfinite(sound).all() and np.abs(sound).max() <= 1 and sound.any()


def image_bytes(
    frame: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = SIZE, **options
) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawn(frame, size)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def test_images_with_a_sound_file(tmp_path: Path) -> None:
    media = Media(
        frames=tuple(image_bytes(frame) for frame in range(20)),
        audio=sound_file(tmp_path / "a.wav", "pcm_s16le", seconds=20),
    )
    summary = probe(media)
    assert (summary.width, summary.height, summary.frames, summary.duration) == (*SIZE, 20, 20.0)
    for fps in (1.0, 2.0):
        sampling = Sampling(fps=fps, start=2.0, max_frames=17)
        found = list(windows(media, sampling, rates=(48_000,)))
        first = round(2 * fps)
        numbers = [index for window in found for index in window.indices]
        assert numbers == list(range(first, 20))[:17]
        images = np.concatenate([window.frames for window in found])
        for number, image in zip(numbers, images, strict=True):
            assert np.array_equal(image, drawn(number, SIZE))
        assert found[0].audio_windows[1] == pytest.approx(((first + 1) / fps, (first + 1) / fps + 1))
        assert np.abs(found[0].audio[48_000][0] - tone(20, 48_000)[96_000:144_000]).max() < 1e-3
        again = read_window(media, summary, plan(summary, sampling)[-1], rates=(48_000,))
        assert same(found[-1], again)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "P"),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "I;16"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGBA"),
    ],
)
def test_image_modes(kind: str, mode: str) -> None:
    buffer = io.BytesIO()
    image = (
        Image.fromarray(drawn(3, SIZE))
        if mode != "I;16"
        else Image.fromarray(np.full(SIZE[::-1], 40_000, "u2"))
    )
    (image if mode == "I;16" else image.convert(mode)).save(buffer, kind)
    window = next(windows(Media(frames=(buffer.getvalue(),))))
    assert window.frames is not None and window.frames.shape == (1, SIZE[1], SIZE[0], 3)
    if mode == "I;16":
        assert (window.frames == 40_000 >> 8).all()


def test_the_orientation_of_a_photograph_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    media = Media(frames=(image_bytes(0, "JPEG", exif=exif, quality=95),))
    window = next(windows(media))
    assert window.size == SIZE and window.frames is not None
    assert np.abs(window.frames[0].astype(int) - np.rot90(drawn(0, SIZE), -1)).mean() < 8


def test_images_of_different_sizes_are_refused() -> None:
    media = Media(frames=(image_bytes(0), image_bytes(1, size=(60, 40))))
    with pytest.raises(UndecodableMedia, match="60 x 40"):
        list(windows(media))


def test_the_sampling_of_the_benchmark(tmp_path: Path) -> None:
    media = Media(
        video=clip_bytes(seconds=5, size=SIZE, fps=29.97, audio=False),
        audio=sound_file(tmp_path / "a.wav", "pcm_s16le", seconds=3.4),
    )
    (window,) = windows(media, Sampling(mode="avsbench"), rates=(48_000,))
    # int(second * 30 + 15 / 16 * 30), the last one cut to the last frame of 150.
    assert window.indices == (28, 58, 88, 118, 148)
    assert window.frames is not None
    assert [best_match(image, SIZE) for image in window.frames] == [28, 58, 88, 118, 148]
    heard = tone(3.4, 48_000)
    expected = np.stack([*heard[: 3 * 48_000].reshape(3, 48_000), heard[-48_000:], heard[-48_000:]])
    assert np.abs(window.audio[48_000] - expected).max() < 1e-3


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/data/golden/wav").glob("*.wav")), ids=lambda path: path.stem
)
def test_the_benchmarks_sound_equals_its_loader(path: Path) -> None:
    with wave.open(str(path)) as file:
        rate, channels = file.getframerate(), file.getnchannels()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels)
    expected = segments_44k(samples.astype(np.float32) / 32768, rate)
    media = Media(frames=(image_bytes(0),) * 5, audio=path)
    (window,) = windows(media, Sampling(mode="avsbench"), rates=(44_100,))
    assert np.abs(window.audio[44_100] - expected[:, 0, :44_100]).max() < 1e-5


@pytest.mark.parametrize(
    ("limits", "sampling", "name"),
    [
        (Limits(bytes_=1000), Sampling(), "size"),
        (Limits(pixels=100), Sampling(), "frame size"),
        (Limits(duration=2), Sampling(), "duration"),
        (Limits(frames=3), Sampling(), "number of sampled frames"),
        (Limits(tracks=1), Sampling(), "number of tracks"),
        (Limits(index=50), Sampling(), "number of frames in the header"),
        (Limits(key_frame_distance=5), Sampling(fps=9), "distance from a key frame to a sampled one"),
        (Limits(audio_rate=8000), Sampling(), "audio sample rate"),
        (Limits(channels=1), Sampling(), "number of audio channels"),
    ],
)
def test_limits_are_named(limits: Limits, sampling: Sampling, name: str) -> None:
    with pytest.raises(MediaTooLarge) as caught:
        list(windows(Media(video=clip("plain")), sampling, limits=limits))
    assert caught.value.limit == name


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n",
        b"GIF89a" + bytes(100),
        b"hello, this is no clip",
        bytes(1000),
    ],
)
def test_what_is_no_clip_is_unsupported_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UnsupportedMedia, match="MP4"):
        probe(Media(video=path))


@pytest.mark.parametrize("length", [0, 1, 7, 100, 2000])
@pytest.mark.parametrize("kind", ["plain", "mkv", "avi-h264", "ts"])
def test_stumps_of_files(kind: str, length: int) -> None:
    with pytest.raises((UndecodableMedia, UnsupportedMedia)) as caught:
        list(windows(Media(video=clip(kind)[:length])))
    assert str(caught.value).endswith(".")


def test_a_clip_cut_short_after_its_header_says_where_it_ends(tmp_path: Path) -> None:
    path, fast = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_clip(path, seconds=20, size=SIZE, audio=False)
    # The index first, as files for the web have it; then the half of the frames.
    with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    data = fast.read_bytes()
    media = Media(video=data[: len(data) // 2])
    summary = probe(media)
    first, second = plan(summary, Sampling())
    assert read_window(media, summary, replace(first, times=first.times[:3])).frames is not None
    with pytest.raises(UndecodableMedia, match="cut short"):
        read_window(media, summary, second)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "No such file"),
        (".", "directory"),
        ("pipe", "no ordinary file"),
        ("a\0b", "its name is none"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, name: str, reason: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer that never comes
    source = tmp_path / name
    for media in (Media(video=source), Media(frames=(source,)), Media(video=clip("plain"), audio=source)):
        with pytest.raises(UndecodableMedia, match=reason):
            probe(media)


def test_neither_picture_nor_video_track(tmp_path: Path) -> None:
    sound = sound_file(tmp_path / "a.wav", "pcm_s16le")
    for media in (Media(), Media(audio=sound), Media(video=sound), Media(video=tmp_path / "absent.mp4")):
        with pytest.raises(UndecodableMedia):
            probe(media)
    with pytest.raises(UndecodableMedia, match="no audio track"):
        probe(Media(video=clip("plain"), audio=clip_bytes(size=SIZE, audio=False)))


def patched(data: bytes, marker: bytes, offset: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, data.index(marker) + offset, *values)
    return bytes(changed)


def with_tracks(count: int) -> bytes:
    """An MP4 whose first track is there `count` times more."""
    data = clip_bytes(seconds=1, size=SIZE, audio=False)
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    (moov_size,), (trak_size,) = struct.unpack_from(">I", data, moov), struct.unpack_from(">I", data, trak)
    copies = data[trak : trak + trak_size] * count
    return (
        data[:moov]
        + struct.pack(">I", moov_size + len(copies))
        + data[moov + 4 : trak]
        + copies
        + data[trak:]
    )


def matroska_with_tracks(count: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        for _ in range(count):
            output.add_stream("pcm_s16le", rate=8000, layout="mono")
        output.start_encoding()
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(output.streams[0].encode(frame))
    return buffer.getvalue()


BOMBS = {
    "a billion frames by size": lambda: Media(patched(clip("plain"), b"stsz", 8, ">II", 1, 10**9)),
    "a billion frames by time": lambda: Media(patched(clip("plain"), b"stts", 12, ">I", 10**9)),
    "a billion frames in a fragment": lambda: Media(patched(clip("fragments"), b"trun", 8, ">I", 10**9)),
    "a billion frames of AVI": lambda: Media(patched(clip("avi-mpeg4"), b"strh", 40, "<I", 10**9)),
    "a thousand tracks of MP4": lambda: Media(with_tracks(1000)),
    "a thousand tracks of Matroska": lambda: Media(matroska_with_tracks(1000)),
    "a wide MP4": lambda: Media(patched(clip("plain"), b"stsd", 44, ">HH", 65_535, 65_535)),
    "a wide AVI": lambda: Media(patched(clip("avi-mpeg4"), b"strf", 12, "<ii", 100_000, 100_000)),
    "a wide Matroska": lambda: Media(
        patched(
            clip_bytes(1, (320, 256), container="matroska"), b"\xb0\x82", 2, ">HHH", 65_535, 0xBA82, 65_535
        )
    ),
    "a wide PNG": lambda: Media(frames=(patched(image_bytes(0), b"IHDR", 4, ">II", 100_000, 100_000),)),
    "a wide WebP": lambda: Media(frames=(b"RIFF\0\0\1\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6,)),
    "a wide JPEG": lambda: Media(
        frames=(patched(image_bytes(0, "JPEG"), b"\xff\xc0", 5, ">HH", 65_535, 65_535),)
    ),
}
WATCH = """
import pickle, resource, sys, time
from models.errors import EarshotError
from models.media import probe
media = pickle.load(sys.stdin.buffer)
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    probe(media)
    caught = "nothing"
except EarshotError as error:
    caught = type(error).__name__
growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(caught, time.perf_counter() - begin, growth)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once_and_in_little_memory(name: str) -> None:
    watch = subprocess.run(
        [sys.executable, "-c", WATCH],
        input=pickle.dumps(BOMBS[name]()),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    caught, seconds, growth = watch.stdout.split()
    assert caught == b"MediaTooLarge"
    assert float(seconds) < 1.0 and int(growth) < BOMB_BYTES
