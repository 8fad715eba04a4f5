"""Contact sheets: the right frames, tinted where the masks are, however many there were."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from PIL import Image

from models.media import Limits, Media, probe
from service.decoding import Sandbox
from service.masks import to_rle
from service.sheet import CAPTION, GAP, MOST, TILE, SheetRequest, chosen, render_sheet
from tests.clips import Picture, make_clip


def frames_of(size: tuple[int, int], times: list[float]) -> list[dict]:
    """The left half is masked in every second frame, beginning with the first."""
    found = []
    for number, moment in enumerate(times):
        mask = np.zeros(size, bool)
        mask[:, : size[1] // 2] = number % 2 == 0
        found.append(
            {"index": number, "timestamp": moment, "sounding": number % 2 == 0, "mask": to_rle(mask)}
        )
    return found


def redness(sheet: Image.Image, number: int, size: tuple[int, int]) -> tuple[float, float]:
    """How much redder than blue the halves of a tile in the first row are; `size` is its width, height."""
    width, height = size
    left = GAP + number * (width + GAP)
    tile = np.asarray(sheet.crop((left, GAP, left + width, GAP + height))).astype(int)
    red = tile[..., 0] - tile[..., 2]
    return red[:, : width // 2].mean(), red[:, width // 2 :].mean()


@pytest.mark.parametrize(
    ("size", "picture"),
    [((64, 48), Picture()), ((65, 47), Picture(pix_fmt="yuv444p")), ((64, 48), Picture(rotation=90))],
    ids=["plain", "odd", "rotated"],
)
def test_each_frame_is_there_with_its_mask(tmp_path, size, picture) -> None:
    clip, target = tmp_path / "clip.mp4", tmp_path / "sheet.png"
    make_clip(clip, seconds=3, fps=10, size=size, video=picture)
    summary = probe(Media(video=clip))
    shape = (summary.height, summary.width)
    render_sheet(Media(video=clip), summary, frames_of(shape, [0, 1, 2]), target)
    with Image.open(target) as sheet:
        assert sheet.size == (GAP + 3 * (summary.width + GAP), GAP + summary.height + CAPTION + GAP)
        for number in range(3):
            left, right = redness(sheet, number, shape[::-1])
            assert (left > right + 30) == (number % 2 == 0)


def test_large_pictures_become_tiles_and_images_work_too(tmp_path) -> None:
    images, target = [tmp_path / f"{number}.png" for number in range(2)], tmp_path / "sheet.png"
    for image in images:
        av.VideoFrame.from_ndarray(np.full((600, 960, 3), 128, np.uint8)).to_image().save(image)
    media = Media(frames=tuple(images))
    render_sheet(media, probe(media), frames_of((600, 960), [0, 1]), target)
    with Image.open(target) as sheet:
        assert sheet.width == GAP + 2 * (TILE + GAP)
        assert redness(sheet, 0, (TILE, 150))[0] > 40 > redness(sheet, 1, (TILE, 150))[0]


def test_many_frames_are_thinned_out_from_the_first_to_the_last() -> None:
    lines = [b"%d" % number for number in range(1000)]
    kept = [*chosen(lines, len(lines))]
    assert len(kept) == MOST
    assert (kept[0], kept[-1]) == (b"0", b"999")
    assert [*chosen(lines[:3], 3)] == lines[:3]


def test_it_runs_in_the_sandbox(tmp_path, settings) -> None:
    clip, lines, target = (tmp_path / name for name in ("clip.mp4", "lines", "sheet"))
    make_clip(clip, seconds=1, size=(64, 48), fps=10)
    lines.write_text("".join(json.dumps(frame) + "\n" for frame in frames_of((48, 64), [0.0, 0.5])))
    media = Media(video=clip)
    request = SheetRequest(media, probe(media), lines, target, Limits())
    Sandbox(settings).ask(request, reads=[clip, lines], writes=[tmp_path])
    with Image.open(target) as sheet:
        assert sheet.format == "PNG"
        assert redness(sheet, 0, (64, 48))[0] > 40
