"""A request body on its way in: each part streams to a scratch file while it is counted and hashed.

Nothing of a clip is held in memory, no name that the client chose becomes a path, and the scratch folder goes
in every case: an answer, a refusal, a client that vanished.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors import NAME_CHARACTERS, Refusal, invalid, too_large

FILE_PARTS = ("media", "video", "audio", "frames")  # `frames[]` is `frames`
FIELD_BYTES = 256 * 1024  # all plain fields together
PART_OVERHEAD = 512  # bytes of headers and boundary that a part may add to the body
FIELDS = 3000  # of a form: a thousand for each of two lists, and the other options
PIECE_BYTES = 512 * 1024  # of a body that is hashed and written at once
TEXT_BYTES = 1000  # a part without a file's name, no longer than this, may be a path whose @ was forgotten
NO_FORM = (
    "The body is a file, not a form: send the clip as multipart/form-data, with curl `-F media=@clip.mp4`."
)
TOO_MANY_FIELDS = (
    f"The form has too many fields; the limit is {FIELDS}. Send a list as one field, a line for each of it."
)
STALL_SECONDS = 30.0  # a client that sends nothing for so long is gone
SHORT_FORMS = ("application/json", "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class ReceivedFile:
    """A part on the scratch disk; `sha256` is hexadecimal."""

    path: Path
    size: int
    sha256: str


@dataclass
class Form:
    """A request body: options as (name, value) pairs in order, and files by part name."""

    fields: list[tuple[str, Any]] = field(default_factory=list)
    files: dict[str, list[ReceivedFile]] = field(default_factory=dict)


@dataclass(frozen=True)
class UploadLimits:
    """Bytes of all files together, and how many files one request may bring."""

    bytes_: int
    files: int


@asynccontextmanager
async def received_form(request: Request, scratch: Path, limits: UploadLimits) -> AsyncIterator[Form]:
    """Read the body of a request; its files live as long as the context."""
    refuse_by_length(request, limits)
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        yield await read_without_files(request, kind.decode("latin-1"))
        return
    folder = Path(tempfile.mkdtemp(prefix="upload-", dir=scratch))
    try:
        yield await read_multipart(request, parameters.get(b"boundary", b""), folder, limits)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def refuse_by_length(request: Request, limits: UploadLimits) -> None:
    """413 before a byte is read, where the client says how much will come."""
    length = request.headers.get("content-length", "")
    slack = FIELD_BYTES + PART_OVERHEAD * limits.files
    if length.isdecimal() and int(length) > limits.bytes_ + slack:
        raise too_large("upload", limits.bytes_, int(length), "bytes")


async def read_without_files(request: Request, kind: str) -> Form:
    """A body of options only; a request without a body is an empty form."""
    if kind in SHORT_FORMS:
        return read_short(kind, await read_small_body(request))
    if not kind and not await read_small_body(request):
        return Form()
    raise Refusal(
        "unsupported_content_type",
        "Send multipart/form-data with the clip (with curl `-F media=@clip.mp4`), or application/json with "
        "an `upload_id`.",
    )


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; a client that stalls is refused."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"The body stopped coming: nothing arrived for {STALL_SECONDS:g} seconds."
            raise Refusal("malformed_request", detail) from None
        yield chunk


async def gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces worth a thread's time."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def read_small_body(request: Request) -> bytes:
    """A body without files, bounded."""
    body = bytearray()
    async for chunk in chunks(request):
        body += chunk
        if b"\0" in chunk:  # which neither a form nor JSON has
            raise Refusal("malformed_request", NO_FORM)
        if len(body) > FIELD_BYTES:
            raise too_large("size of the fields", FIELD_BYTES, len(body), "bytes")
    return bytes(body)


def read_short(kind: str, body: bytes) -> Form:
    """The options of a request that brings no file."""
    text = decoded(body, NO_FORM)
    if kind == "application/json":
        return Form(fields=[("params", text)] if text.strip() else [])
    try:
        return Form(fields=[*parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS)])
    except ValueError:
        raise Refusal("malformed_request", TOO_MANY_FIELDS) from None


def decoded(value: bytes, otherwise: str) -> str:
    """As UTF-8; `otherwise` says what is wrong where it is none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refusal("malformed_request", otherwise) from None


async def read_multipart(request: Request, boundary: bytes, folder: Path, limits: UploadLimits) -> Form:
    """Feed the parser piece by piece, in a thread: hashing and writing would hold up every other request.
    Files are closed whatever happens."""
    receiver = Receiver(folder, limits)
    try:
        parser = MultipartParser(boundary, receiver.callbacks())
        async for piece in gathered(chunks(request)):
            await run_sync(parser.write, piece)
        parser.finalize()
    except FormParserError as error:
        raise Refusal("malformed_request", f"The multipart body cannot be read: {error}") from None
    finally:
        receiver.close()
    if not receiver.ended:
        raise Refusal("malformed_request", "The multipart body breaks off before its last boundary.")
    return receiver.form


class Receiver:
    """The parser's callbacks. A part named like a file is written to disk, any other is a short field."""

    def __init__(self, folder: Path, limits: UploadLimits) -> None:
        self.folder, self.limits = folder, limits
        self.form = Form()
        self.ended = False
        self.bytes_of_files = self.bytes_of_fields = self.parts = 0
        self.name = ""
        self.label = self.content = self.disposition = b""
        self.from_file = False
        self.value = bytearray()
        self.file: IO[bytes] | None = None
        self.hash = hashlib.sha256()

    def callbacks(self) -> Any:  # noqa: ANN401 (the parser's own TypedDict is not exported)
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished")
        return {f"on_{name}": getattr(self, name) for name in (*names, "part_data", "part_end", "end")}

    def part_begin(self) -> None:
        self.disposition = b""
        self.value.clear()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.label += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def header_end(self) -> None:
        if self.label.lower() == b"content-disposition":
            self.disposition = self.content
        self.label = self.content = b""

    def headers_finished(self) -> None:
        """The part's name decides what it is; its filename is never read, only whether there is one."""
        _, parameters = parse_options_header(self.disposition)
        self.from_file = bool(parameters.keys() & {b"filename", b"filename*"})
        name = decoded(parameters.get(b"name", b""), "The name of a part is not UTF-8 text.")
        self.name = name.removesuffix("[]")
        if not self.name:
            raise Refusal("malformed_request", "A part of the multipart body has no name.")
        self.parts += 1
        if self.parts > self.limits.files + FIELDS:
            raise too_large("number of parts", self.limits.files + FIELDS, self.parts, "parts")
        if self.name in FILE_PARTS:
            self.file = (self.folder / str(self.parts)).open("wb")
            self.hash = hashlib.sha256()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self.file is None:
            self.keep_field(piece)
        else:
            self.keep_file(self.file, piece)

    def keep_field(self, piece: memoryview) -> None:
        self.bytes_of_fields += len(piece)
        if self.bytes_of_fields > FIELD_BYTES:
            if self.from_file:
                raise Refusal("malformed_request", misnamed(self.name))
            raise too_large("size of the fields", FIELD_BYTES, self.bytes_of_fields, "bytes")
        self.value += piece

    def keep_file(self, file: IO[bytes], piece: memoryview) -> None:
        self.bytes_of_files += len(piece)
        if self.bytes_of_files > self.limits.bytes_:
            raise too_large("upload", self.limits.bytes_, self.bytes_of_files, "bytes")
        file.write(piece)
        self.hash.update(piece)

    def part_end(self) -> None:
        if self.file is None:
            wrong = misnamed(self.name) if self.from_file else "A plain field is not UTF-8 text."
            self.form.fields.append((self.name, decoded(bytes(self.value), wrong)))
            return
        size = self.file.tell()
        path = Path(self.file.name)
        self.close()
        if not self.from_file and size <= TEXT_BYTES and is_text(path.read_bytes()):
            raise invalid(f"/{self.name}", f"`{self.name}` came as text; did you mean `-F {self.name}=@...`?")
        files = self.form.files.setdefault(self.name, [])
        files.append(ReceivedFile(path, size, self.hash.hexdigest()))
        if len(files) > self.limits.files:
            raise too_large("number of files", self.limits.files, len(files), "files")

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def misnamed(name: str) -> str:
    """A file under the name of an option, or of nothing."""
    short = name[:NAME_CHARACTERS]
    return f"`{short}` is no part for a file: the clip goes as `media`, with curl `-F media=@clip.mp4`."


def is_text(content: bytes) -> bool:
    try:
        return b"\0" not in content and content.decode().isprintable()
    except UnicodeDecodeError:
        return False
