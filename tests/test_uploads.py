"""A body streams to scratch files, counted and hashed; too much or malformed is refused and cleaned up."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request

from service import uploads
from service.errors import Refusal
from service.uploads import FIELD_BYTES, UploadLimits, received_form

LIMITS = UploadLimits(bytes_=1_000_000, files=20)
BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    names = f'name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {names}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def body_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def request_of(
    body: bytes,
    kind: str = MULTIPART,
    step: int = 1000,
    cut: bool = False,
    **more: str,
) -> Request:
    """A request whose body comes in pieces; `cut`: the client hangs up after them."""
    pieces = [body[begin : begin + step] for begin in range(0, len(body), step)]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b""})
    names = {"content-type": kind, **{name.replace("_", "-"): value for name, value in more.items()}}
    headers = [(name.encode(), value.encode()) for name, value in names.items() if value]
    waiting = iter(messages)

    async def receive():
        return next(waiting)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def received(request: Request, scratch: Path, limits: UploadLimits = LIMITS):
    """The form, and what its files held while they lived."""

    async def read():
        async with received_form(request, scratch, limits) as form:
            contents = {
                name: [(file.path, file.path.read_bytes(), file.sha256, file.size) for file in files]
                for name, files in form.files.items()
            }
            return form.fields, contents

    return anyio.run(read)


def refused(request: Request, scratch: Path, limits: UploadLimits = LIMITS) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        received(request, scratch, limits)
    assert [*scratch.iterdir()] == []
    return refusal.value


@pytest.mark.parametrize("step", [1, 7, 64 * 1024])
def test_a_file_arrives_whole_however_it_is_cut(tmp_path, step) -> None:
    clip = os.urandom(5_000)
    body = body_of(part("media", clip, "clip.mp4"), part("thresholds.mask", b"0.4"))
    fields, files = received(request_of(body, step=step), tmp_path)
    assert fields == [("thresholds.mask", "0.4")]
    [(_, content, sha256, size)] = files["media"]
    assert (content, sha256, size) == (clip, hashlib.sha256(clip).hexdigest(), 5_000)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..\\x", "a\x00b", "media"])
def test_no_name_of_the_client_reaches_a_path(tmp_path, name) -> None:
    _, files = received(request_of(body_of(part("media", b"clip", name))), tmp_path)
    [(path, *_)] = files["media"]
    assert path.parent.parent == tmp_path and path.name == "1"


def test_images_keep_their_order(tmp_path) -> None:
    body = body_of(*(part("frames[]", bytes([number]), "same.png") for number in range(12)))
    _, files = received(request_of(body), tmp_path)
    assert [content for _, content, *_ in files["frames"]] == [bytes([number]) for number in range(12)]


def test_the_limit_counts_what_comes_not_what_was_promised(tmp_path) -> None:
    refusal = refused(request_of(body_of(part("media", bytes(1_000_001)))), tmp_path)
    assert refusal.status == 413
    assert refusal.extra["allowed"] == 1_000_000 and refusal.extra["actual"] > 1_000_000


def test_a_promise_over_the_limit_is_refused_unread(tmp_path) -> None:
    request = request_of(b"", content_length="2000000")
    assert refused(request, tmp_path).status == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no multipart at all", 400),
        (body_of(part("media", b"clip"))[:-10], 400),
        (body_of(part("labels", b"\xff\xfe")), 400),
        (body_of(part("", b"x")), 400),
        (body_of(part("labels", bytes(FIELD_BYTES + 1))), 413),
        (body_of(*(part("frames[]", b"x", "x.png") for _ in range(21))), 413),
    ],
    ids=["no multipart", "broken off", "not UTF-8", "no name", "huge field", "too many frames"],
)
def test_bad_bodies_are_refused(tmp_path, body, status) -> None:
    assert refused(request_of(body), tmp_path).status == status


def test_a_client_that_vanishes_leaves_nothing_behind(tmp_path) -> None:
    body = body_of(part("media", bytes(50_000)))[:20_000]
    with pytest.raises(ClientDisconnect):
        received(request_of(body, cut=True), tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_client_that_stalls_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.05)

    async def never():
        await anyio.sleep(10)

    request = Request(
        {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]},
        never,
    )
    assert refused(request, tmp_path).status == 400


def test_json_and_forms_carry_the_options_of_an_upload(tmp_path) -> None:
    fields, _ = received(request_of(b'{"upload_id": "x"}', "application/json"), tmp_path)
    assert fields == [("params", '{"upload_id": "x"}')]
    fields, _ = received(request_of(b"upload_id=x&fps=2", "application/x-www-form-urlencoded"), tmp_path)
    assert fields == [("upload_id", "x"), ("fps", "2")]


def test_another_content_type_is_unsupported(tmp_path) -> None:
    assert refused(request_of(b"RIFF", "video/avi"), tmp_path).status == 415


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (body_of(part("file", b"\xff\xfe", "a.mp4")), MULTIPART, "`file` is no part for a file"),
        (body_of(part("file", bytes(FIELD_BYTES + 1), "a.mp4")), MULTIPART, "goes as `media`"),
        (body_of(part("media", b"/etc/passwd")), MULTIPART, "did you mean `-F media=@...`"),
        (body_of(part("frames[]", b"a.png")), MULTIPART, "did you mean `-F frames=@...`"),
        (bytes(8) + b"ftyp", "application/x-www-form-urlencoded", "`-F media=@clip.mp4`"),
        (b"\xff" * 1000, "application/x-www-form-urlencoded", "`-F media=@clip.mp4`"),
        (bytes(FIELD_BYTES * 2), "application/x-www-form-urlencoded", "`-F media=@clip.mp4`"),
    ],
    ids=["file", "large file", "no @", "no @ of a frame", "binary body", "not UTF-8", "large body"],
)
def test_a_clip_sent_the_wrong_way_is_told_the_right_one(tmp_path, body, kind, sentence) -> None:
    refusal = refused(request_of(body, kind), tmp_path)
    assert sentence in refusal.detail
    assert refusal.status in {400, 422}


def test_options_may_come_from_a_file_and_media_without_a_name(tmp_path) -> None:
    body = body_of(part("params", b'{"fps": 2}', "params.json"), part("media", b"\0\0\0\x18ftyp"))
    fields, files = received(request_of(body), tmp_path)
    assert fields == [("params", '{"fps": 2}')]
    assert files["media"][0][1] == b"\0\0\0\x18ftyp"
