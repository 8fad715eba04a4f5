"""A large file over HTTP, safely: resumed after a cut, checked before it counts, in place all at once.

The bytes go to `NAME.part`, with the server's validator (ETag or date) beside it in `NAME.part.json`. A later
call, in this process or the next, goes on from there if the server still has the same file, and starts again
if not. Imports no torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx
from tqdm import tqdm

from models.errors import WeightsInvalid, WeightsMissing

ATTEMPTS = 5  # in a row without a single new byte
UNMET_ATTEMPTS = 2  # of a server that has never answered: it is missing, not busy
PAUSE = 1.0  # s before the second attempt; doubles with each
TIMEOUT = httpx.Timeout(30.0, connect=10.0)  # s without any byte
SPARE = 256 << 20  # bytes that stay free on the disk
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Check = Callable[[Path], None]


def download(url: str, target: Path, *, size: int, check: Check, progress: bool = True) -> Path:
    """Bring `url` to `target`; `check` sees the whole file before it gets its name, and raises to reject it.

    `size` in bytes is for the disk-space check, before the server has said its own.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file, httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        _alone(file, part)
        require_space(target.parent, size - file.tell())
        _receive_all(client, url, file, part, progress)
        file.flush()
        os.fsync(file.fileno())
        try:
            check(part)
        except WeightsInvalid:
            _forget(part)
            raise
        part.replace(target)
        _forget(part)
    return target


def require_space(folder: Path, needed: int) -> None:
    """WeightsMissing when the disk would have less than the spare room left."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        wanted = (needed + SPARE) / 1e9
        raise WeightsMissing(
            f"Not enough disk space in {folder}: {wanted:.2f} GB needed, {free / 1e9:.2f} free."
        )


class _Incomplete(Exception):
    """The connection ended before the file did; worth another attempt."""


def _receive_all(client: httpx.Client, url: str, file: IO[bytes], part: Path, progress: bool) -> None:
    """Attempt after attempt until the file is whole; only attempts that bring nothing count against it."""
    fruitless, allowed = 0, UNMET_ATTEMPTS
    while True:
        before = file.tell()
        try:
            _receive(client, url, file, part, progress)
            return
        except OSError as error:
            raise WeightsMissing(f"{part} cannot be written: {error.strerror}.") from error
        except (httpx.TransportError, _Incomplete) as error:
            if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                allowed = ATTEMPTS
            fruitless = 0 if file.tell() > before else fruitless + 1
            if fruitless >= allowed:
                unmet = allowed == UNMET_ATTEMPTS
                raise WeightsMissing(_unreachable(url, error) if unmet else _given_up(url, error)) from error
            time.sleep(PAUSE * 2**fruitless)


def _receive(client: httpx.Client, url: str, file: IO[bytes], part: Path, progress: bool) -> None:
    """One request: for the rest where the server allows it, else for the whole."""
    headers = {"Accept-Encoding": "identity"}
    validator = _validator(part)
    if file.tell() and validator:
        headers |= {"Range": f"bytes={file.tell()}-", "If-Range": validator}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{file.tell()}":
                return  # the last call ended between the last byte and the check
            _start_again(file)
            raise _Incomplete("the server has a shorter file than the part kept here")
        _refuse(response, url)
        total = _place(response, file)
        _remember(part, response)
        require_space(part.parent, (total or 0) - file.tell())
        with tqdm(
            desc=part.name.removesuffix(".part"),
            total=total,
            initial=file.tell(),
            unit="B",
            unit_scale=True,
            disable=not progress,
        ) as bar:
            for block in response.iter_raw():  # as they come: a cut must not lose a block in the making
                file.write(block)
                bar.update(len(block))
    if total is not None and file.tell() != total:
        raise _Incomplete(f"the connection ended after {file.tell()} of {total} bytes")


def _refuse(response: httpx.Response, url: str) -> None:
    """5xx is worth another attempt; 4xx is not."""
    if response.is_server_error:
        raise _Incomplete(f"the server answered {response.status_code}")
    if not response.is_success:
        raise WeightsMissing(
            f"{url} cannot be downloaded: the server answered {response.status_code} "
            f"{response.reason_phrase}. Get the file another way and use: "
            "python -m service weights import NAME FILE"
        )


def _place(response: httpx.Response, file: IO[bytes]) -> int | None:
    """Put the file's end where the body begins; the whole length if the server says it."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found and int(found[1]) == file.tell():
            return int(found[2])
        _start_again(file)
        raise _Incomplete("the server sent another part than the one asked for")
    _start_again(file)
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _start_again(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _validator(part: Path) -> str | None:
    """What `If-Range` may carry: a strong ETag or a date, as the server gave it for the bytes held."""
    try:
        return str(json.loads(_notes(part).read_text())["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(part: Path, response: httpx.Response) -> None:
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    _notes(part).unlink(missing_ok=True)
    if validator:
        _notes(part).write_text(json.dumps({"validator": validator}))


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _given_up(url: str, error: Exception) -> str:
    return (
        f"{url} cannot be downloaded: {str(error) or type(error).__name__}. What came so far is kept; "
        "run the same command again to go on from there."
    )


def _unreachable(url: str, error: Exception) -> str:
    host = httpx.URL(url).host
    return (
        f"{url} cannot be downloaded: {host} cannot be reached from this machine ({error}). Behind a proxy, "
        "set HTTPS_PROXY; without a network, bring the file from another machine and use: "
        "python -m service weights import NAME FILE"
    )


def _alone(file: IO[bytes], part: Path) -> None:
    """One download of a file at a time, whatever the process; the lock goes when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have given the part its final name between our opening and our locking it.
        moved = not part.exists() or part.stat().st_ino != os.fstat(file.fileno()).st_ino
    except BlockingIOError:
        moved = True
    if moved:
        raise WeightsMissing(f"Another process is downloading {part.stem}; wait for it to end.")
