"""One result in every form: equal bit for bit, in the memory of one frame, chosen by q-values."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from pycocotools.coco import COCO

from service.clips import Clip
from service.errors import Refusal
from service.masks import Outputs, frame_line, from_png, read_mask, to_png
from service.records import Job, JobRecord, JobStatus, Progress
from service.results import (
    FORMATS,
    Result,
    as_coco,
    as_json,
    as_ndjson,
    as_png,
    as_zip,
    in_chunks,
    negotiated,
)
from tests.handwork import square
from tests.test_masks import window as window_of

SIZE = (24, 32)


def lines_of(count: int, outputs: Outputs = Outputs()) -> list[bytes]:  # noqa: B008 (frozen)
    window = window_of(SIZE)
    lines = [frame_line(window, 0, square(*SIZE, number + 1), outputs) for number in range(count)]
    return [line.replace(b'"index":0', b'"index":%d' % number) for number, line in enumerate(lines)]


def result_of(lines: list[bytes]) -> Result:
    summary = {"width": 32, "height": 24, "fps": 30.0, "duration": 2.0, "rotation": 0}
    job = Job(id="j", tenant="t", strategy="full-mask", clip=Clip(id="c", tenant="t", summary=summary))
    progress = Progress("done", len(lines), len(lines), 1, 1)
    rest = {"queue_position": None, "attempt": 1, "max_attempts": 3, "error": None, "result_expires_at": None}
    record = JobRecord(
        job=job,
        status=JobStatus.SUCCEEDED,
        progress=progress,
        created_at=0.0,
        started_at=0.0,
        finished_at=1.0,
        timing={"queue_ms": 1.0},
        models={"sam": {"id": "s", "sha256": "0"}},
        warnings=("No sound.",),
        **rest,
    )
    return Result(record, lambda: iter(lines))


def whole(pieces) -> bytes:
    return b"".join(in_chunks(pieces))


def test_json_has_the_shape_of_the_contract() -> None:
    document = json.loads(whole(as_json(result_of(lines_of(2)))))
    assert [*document] == [
        *("job_id", "strategy", "requested", "models", "media", "frames", "timing", "warnings")
    ]
    assert document["media"] == {"width": 32, "height": 24, "fps": 30.0, "duration": 2.0, "rotation": 0}
    assert len(document["frames"]) == 2 and document["warnings"] == ["No sound."]


def test_a_result_without_frames_is_still_json() -> None:
    assert json.loads(whole(as_json(result_of([]))))["frames"] == []


@pytest.mark.parametrize("form", ["rle", "png"])
def test_rle_png_and_zip_agree_bit_for_bit(form) -> None:
    lines = lines_of(2, Outputs(mask=form))
    masks = [read_mask(json.loads(line)["mask"]) for line in lines]
    archive = zipfile.ZipFile(io.BytesIO(whole(as_zip(result_of(lines)))))
    manifest = json.loads(archive.read("manifest.json"))
    for mask, frame in zip(masks, manifest["frames"], strict=True):
        stored = archive.read(frame["mask"]["name"])
        assert stored == to_png(mask)
        assert np.array_equal(from_png(stored), mask)
    assert whole(as_png(result_of(lines[:1]))) == to_png(masks[0])
    assert whole(as_ndjson(result_of(lines))) == b"".join(lines)


def test_equal_masks_give_equal_archives() -> None:
    first, second = (whole(as_zip(result_of(lines_of(3)))) for _ in range(2))
    assert first == second


def test_a_frame_sampled_twice_is_two_files() -> None:
    line = lines_of(1)[0]
    archive = zipfile.ZipFile(io.BytesIO(whole(as_zip(result_of([line, line])))))
    assert archive.namelist() == ["masks/000000.png", "masks/000000-1.png", "manifest.json"]


def test_pycocotools_loads_the_coco_form() -> None:
    document = json.loads(whole(as_coco(result_of(lines_of(3)))))
    loaded = COCO()
    loaded.dataset = document
    loaded.createIndex()
    assert len(loaded.getImgIds()) == 3
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == ["dog"]
    [annotation] = loaded.loadAnns(loaded.getAnnIds(imgIds=[2]))
    assert annotation["bbox"] == [0, 0, 2, 2] and annotation["area"] == 4
    assert loaded.annToMask(annotation).sum() == 4


def test_coco_falls_back_to_the_union() -> None:
    document = json.loads(whole(as_coco(result_of(lines_of(1, Outputs(instances=False))))))
    assert document["categories"] == [{"id": 1, "name": "sounding"}]


def test_one_png_holds_one_frame() -> None:
    with pytest.raises(Refusal, match="application/zip") as refused:
        whole(as_png(result_of(lines_of(2))))
    assert refused.value.status == 406


@pytest.mark.parametrize("write", [as_json, as_zip, as_coco], ids=lambda write: write.__name__)
def test_a_long_result_takes_the_memory_of_a_frame(write) -> None:
    line = lines_of(1, Outputs())[0]
    line = line[:-2] + b',"padding":"' + b"x" * 50_000 + b'"}\n'
    result = result_of([])
    result = Result(result.record, lambda: (line for _ in range(400)))
    tracemalloc.start()
    written = sum(len(chunk) for chunk in in_chunks(write(result)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert written > 50_000


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("image/png", "png"),
        ("application/zip;q=0.5, application/x-ndjson;q=0.9", "ndjson"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("application/*;q=0.2, application/json;q=0, video/mp4;q=0.1", "ndjson"),
        ("APPLICATION/ZIP", "zip"),
        ("application/json;q=broken, image/*", "png"),
    ],
)
def test_the_form_is_negotiated(accept, name) -> None:
    assert negotiated(accept) is FORMATS[name]


def test_what_nobody_can_write_is_refused_with_what_is_possible() -> None:
    for accept, wanted in (("text/html", None), ("application/json;q=0", None), ("*/*", "gif")):
        with pytest.raises(Refusal, match="video/mp4") as refused:
            negotiated(accept, wanted)
        assert refused.value.status == 406
    assert negotiated("text/html", "zip") is FORMATS["zip"]
