"""The overlay shows the mask where it is and when it is, and keeps the sound."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

from models.containers import Limits
from models.errors import UndecodableMedia
from models.media import Media, Sampling, probe, windows
from service.decoding import Sandbox
from service.masks import to_rle
from service.overlay import OverlayRequest, render_overlay
from tests.clips import Picture, Sound, make_clip


def lines_of(size: tuple[int, int], times: list[float]) -> list[bytes]:
    """The left half is masked in every second frame, beginning with the first."""
    found = []
    for number, moment in enumerate(times):
        mask = np.zeros(size, bool)
        mask[:, : size[1] // 2] = number % 2 == 0
        frame = {"index": number, "timestamp": moment, "mask": to_rle(mask)}
        found.append(json.dumps(frame).encode() + b"\n")
    return found


def redness(path, moment: float) -> tuple[float, float]:
    """How much redder than blue the halves of the frame at a moment are."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= moment - 1e-3:
                return halves(frame.to_ndarray(format="rgb24"))
    raise AssertionError("The overlay is too short.")


def halves(image) -> tuple[float, float]:
    red = image[..., 0].astype(int) - image[..., 2]
    half = image.shape[1] // 2
    return red[:, :half].mean(), red[:, half:].mean()


@pytest.mark.parametrize(
    ("size", "picture"),
    [
        ((64, 48), Picture()),
        ((65, 47), Picture(pix_fmt="yuv444p")),
        ((64, 48), Picture(rotation=90)),
    ],
    ids=["plain", "odd", "rotated"],
)
def test_the_mask_is_where_and_when_it_should_be(tmp_path, size, picture) -> None:
    clip, target = tmp_path / "clip.mp4", tmp_path / "overlay.mp4"
    make_clip(clip, seconds=3, fps=10, size=size, video=picture)
    summary = probe(Media(video=clip))
    render_overlay(Media(video=clip), summary, lines_of((summary.height, summary.width), [0, 1, 2]), target)
    [window] = windows(Media(video=clip), Sampling(fps=5))
    for moment, masked in ((0.2, True), (0.8, True), (1.4, False), (2.2, True)):
        left, right = redness(target, moment)
        plain_left, plain_right = halves(window.frames[round(moment * 5)])
        assert (left > plain_left + 30) == masked
        assert abs(right - plain_right) < 15
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert abs(container.duration / 1e6 - 3) < 0.2
        heard = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(heard / 44_100 - 3) < 0.1


def test_a_silent_clip_stays_silent(tmp_path) -> None:
    clip, target = tmp_path / "clip.mp4", tmp_path / "overlay.mp4"
    make_clip(clip, seconds=1, size=(64, 48), fps=10, audio=False)
    render_overlay(Media(video=clip), probe(Media(video=clip)), lines_of((48, 64), [0]), target)
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_images_with_sound_become_a_video(tmp_path) -> None:
    sound, target = tmp_path / "sound.wav", tmp_path / "overlay.mp4"
    make_clip(sound, seconds=2, video=False, audio=Sound(codec="pcm_s16le", rate=8000, layout="mono"))
    images = []
    for number in range(2):
        images.append(tmp_path / f"{number}.png")
        av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8)).to_image().save(images[-1])
    media = Media(frames=tuple(images), audio=sound)
    render_overlay(media, probe(media), lines_of((48, 64), [0, 1]), target)
    assert redness(target, 0)[0] > 40 > redness(target, 1)[0]


def test_it_runs_in_the_sandbox(tmp_path, settings) -> None:
    clip, lines, target = (tmp_path / name for name in ("clip.mp4", "lines", "overlay.mp4"))
    make_clip(clip, seconds=1, size=(64, 48), fps=10)
    lines.write_bytes(b"".join(lines_of((48, 64), [0])))
    media = Media(video=clip)
    request = OverlayRequest(media, probe(media), lines, target, Limits())
    Sandbox(settings).ask(request, reads=[clip, lines], writes=[tmp_path])
    assert redness(target, 0)[0] > 40
    clip.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(UndecodableMedia):
        Sandbox(settings).ask(request, reads=[clip, lines], writes=[tmp_path])
