"""A finished job's frames, written as the client wants them: JSON, NDJSON, PNG, zip or COCO.

Every writer is a generator over the stored lines: a result of any length takes the memory of one frame.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pycocotools import mask as coco

from service.errors import Refusal
from service.masks import Rle, read_mask, to_png, to_rle
from service.records import JobRecord

CHUNK_BYTES = 64 * 1024
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date a zip can hold: equal masks give equal archives
SOUNDING = "sounding"  # the COCO category of a frame's union, where there are no instances

Lines = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Result:
    """A job's record, and a way to read its frames, each a line of JSON, in order, as often as needed."""

    record: JobRecord
    lines: Lines


@dataclass(frozen=True)
class Format:
    """One form of a result; `name` is what `?format=` takes."""

    name: str
    media_type: str
    write: Callable[[Result], Iterator[bytes]] | None  # None: rendered by a worker
    suffix: str


def as_json(result: Result) -> Iterator[bytes]:
    """The document of the contract: a header, the stored lines, a tail."""
    head, tail = head_and_tail(result.record)
    yield dumped(head)[:-1] + b',"frames":['
    yield from joined(line.rstrip() for line in result.lines())
    yield b"]," + dumped(tail)[1:]


def as_ndjson(result: Result) -> Iterator[bytes]:
    """A frame a line."""
    yield from result.lines()


def as_png(result: Result) -> Iterator[bytes]:
    """The one mask of a result of one frame."""
    frames = result.record.progress.frames_total
    if frames != 1:
        detail = (
            f"image/png holds one frame and this result has {frames}; ask for application/zip "
            "(`?format=zip`), or segment again with `max_frames=1`."
        )
        raise Refusal("not_acceptable", detail)
    yield to_png(read_mask(json.loads(next(result.lines()))["mask"]))


def as_zip(result: Result) -> Iterator[bytes]:
    """`masks/000030.png` for each frame, and `manifest.json`, which names the file of every frame."""
    flow = Outflow()
    with zipfile.ZipFile(flow, "w", zipfile.ZIP_STORED) as archive:
        for name, line in named(result.lines()):
            archive.writestr(entry(name), to_png(read_mask(json.loads(line)["mask"])))
            yield from flow.drained()
        with archive.open(entry("manifest.json"), "w") as manifest:
            for piece in manifest_of(result):
                manifest.write(piece)
                yield from flow.drained()
    yield from flow.drained()


def as_coco(result: Result) -> Iterator[bytes]:
    """COCO: an image a frame, an annotation an instance (or the union, where there are none)."""
    size = {key: result.record.job.clip.summary[key] for key in ("width", "height")}
    yield b'{"info":' + dumped(head_and_tail(result.record)[0]) + b',"images":['
    yield from joined(
        dumped({"id": number, "file_name": name, **size, "timestamp": json.loads(line)["timestamp"]})
        for number, (name, line) in enumerate(named(result.lines()), 1)
    )
    categories: dict[str, int] = {}
    yield b'],"annotations":['
    yield from joined(dumped(one) for one in coco_annotations(result.lines(), categories))
    names = [{"id": number, "name": name} for name, number in categories.items()]
    yield b'],"categories":' + dumped(names) + b"}"


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "json": Format("json", "application/json", as_json, "json"),
        "ndjson": Format("ndjson", "application/x-ndjson", as_ndjson, "ndjson"),
        "png": Format("png", "image/png", as_png, "png"),
        "zip": Format("zip", "application/zip", as_zip, "zip"),
        "coco": Format("coco", "application/vnd.coco+json", as_coco, "coco.json"),
        "mp4": Format("mp4", "video/mp4", None, "mp4"),
        "sheet": Format("sheet", "image/vnd.earshot.sheet+png", None, "sheet.png"),
    }
)


def negotiated(accept: str, wanted: str | None = None) -> Format:
    """The form the client likes best; `wanted` (`?format=`) wins, an empty `accept` means JSON."""
    if wanted is not None:
        found = FORMATS.get(wanted)
    elif not accept.strip():
        found = FORMATS["json"]
    else:
        found = favourite(ranges_of(accept))
    if found is None:
        possible = ", ".join(f"{one.media_type} (?format={one.name})" for one in FORMATS.values())
        raise Refusal("not_acceptable", f"A result can be had as {possible}.")
    return found


def favourite(ranges: Mapping[str, float]) -> Format | None:
    """The form with the highest quality; among equals, the first of the table."""
    rated = [(quality_of(one.media_type, ranges), one) for one in FORMATS.values()]
    quality, best = max(rated, key=lambda pair: pair[0])
    return best if quality > 0 else None


def ranges_of(accept: str) -> dict[str, float]:
    """`a/b;q=0.5, */*` as media range -> quality; an unreadable quality counts as 0."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            ranges[media_range] = min(max(float(quality), 0.0), 1.0)
        except ValueError:
            ranges[media_range] = 0.0
    return ranges


def quality_of(media_type: str, ranges: Mapping[str, float]) -> float:
    """The most specific range that covers a type decides."""
    family = media_type.partition("/")[0] + "/*"
    return next((ranges[one] for one in (media_type, family, "*/*") if one in ranges), 0.0)


def head_and_tail(record: JobRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands before and after the frames."""
    summary = record.job.clip.summary
    media = {key: summary.get(key) for key in ("width", "height", "fps", "duration", "rotation")}
    head = {
        "job_id": record.id,
        "strategy": record.job.strategy,
        "requested": record.job.requested or record.job.strategy,
        "models": record.models,
        "media": media,
    }
    return head, {"timing": record.timing, "warnings": [*record.warnings]}


def named(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each line with the file name of its mask; a source frame sampled twice gets a number."""
    last, again = None, 0
    for line in lines:
        index = json.loads(line)["index"]
        again = again + 1 if index == last else 0
        last = index
        yield f"masks/{index:06d}{f'-{again}' if again else ''}.png", line


def manifest_of(result: Result) -> Iterator[bytes]:
    """The JSON document again, with the name of a file where the mask was."""
    head, tail = head_and_tail(result.record)
    yield dumped(head)[:-1] + b',"frames":['
    yield from joined(
        dumped({**json.loads(line), "mask": {"format": "file", "name": name}})
        for name, line in named(result.lines())
    )
    yield b"]," + dumped(tail)[1:]


def coco_annotations(lines: Iterable[bytes], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    """COCO annotations of every frame; `categories` fills up with the labels met."""
    number = 0
    for image, line in enumerate(lines, 1):
        frame = json.loads(line)
        union = {"label": SOUNDING, "mask": frame["mask"], "score": 1.0}
        for instance in frame.get("instances") or ([union] if frame["sounding"] else []):
            number += 1
            category = categories.setdefault(instance["label"], len(categories) + 1)
            yield annotation(number, image, category, instance)


def annotation(number: int, image: int, category: int, instance: Mapping[str, Any]) -> dict[str, Any]:
    rle = rle_of(instance["mask"])
    segmentation = {"size": rle["size"], "counts": rle["counts"]}
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "area": int(coco.area(segmentation)),
        "bbox": [float(edge) for edge in coco.toBbox(segmentation)],
        "iscrowd": 0,
        "score": instance["score"],
    }


def rle_of(mask: Any) -> Rle:  # noqa: ANN401
    rle: Rle = mask if mask["format"] == "coco_rle" else to_rle(read_mask(mask))
    return rle


def entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, LONG_AGO)
    info.external_attr = 0o644 << 16
    return info


class Outflow(io.RawIOBase):
    """What zipfile writes to when there is no file: it cannot seek, and is emptied as it goes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        self.pieces.append(bytes(data))
        return len(data)

    def drained(self) -> Iterator[bytes]:
        pieces, self.pieces = self.pieces, []
        yield from pieces


def joined(documents: Iterable[bytes]) -> Iterator[bytes]:
    """JSON documents with commas between them."""
    for position, document in enumerate(documents):
        yield b"," + document if position else document


def dumped(document: Any) -> bytes:  # noqa: ANN401
    """Compact JSON in ASCII, so that nothing a client sent can fail to be encoded."""
    return json.dumps(document, separators=(",", ":")).encode()


def in_chunks(pieces: Iterable[bytes], size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The same bytes in pieces worth a write each."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= size:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
