"""Where uploads and results lie: a local folder, or any object store that fsspec knows (`s3://bucket/prefix`).

    uploads/<clip>/<part>            what a client sent
    windows/<job>/<window>-<token>   NDJSON, one frame a line; the token keeps late writers apart
    renders/<job>/overlay.mp4        a result in another form

A file is there whole or not at all: it is written elsewhere and moved. Keys are made by us, not by a client.
"""

from __future__ import annotations

import errno
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

KEY = re.compile(r"(uploads|windows|renders)(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,2}/?")
PARTIAL = "partial"  # the folder of files that are being written, inside a local store
AT_WORK = ("upload-*", "render-*")  # folders of scratch, each of one body or one render
READ_ONLY = "nobody can write to"
UNFIT = {  # kinds of store that open without an error and are of no use: what is wrong with each
    "memory": "every process has for itself, while the API and its workers must share one",
    "http": READ_ONLY,
    "https": READ_ONLY,
    "data": READ_ONLY,
}


class StorageUnfit(Exception):
    """The message is a sentence that says what to change."""


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Each backend of fsspec has errors of its own (botocore's); who uses a store need know only one kind."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


class Storage:
    """One store. `scratch` holds what is on its way in or out; losing it loses nothing."""

    def __init__(self, url: str, scratch: Path) -> None:
        try:
            # A listing that was kept knows nothing of what other processes have written since.
            self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError, OSError) as error:
            raise StorageUnfit(f"STORAGE_URL is {shown(url)}, which cannot be used: {error}.") from error
        self.root = root.rstrip("/")
        self.folder = Path(self.root) if isinstance(self.fs, LocalFileSystem) else None
        self.partial = (self.folder or scratch) / PARTIAL
        self.scratch, self.copies = scratch, scratch / "copies"
        for folder, setting in ((self.partial, "STORAGE_URL"), (scratch, "EARSHOT_SCRATCH_DIR")):
            make_writable(folder, setting)
        self._copying = threading.Lock()

    @contextmanager
    def open_write(self, key: str) -> Iterator[IO[bytes]]:
        """A file that appears under `key` when the block ends well, and never otherwise."""
        partial = self.partial / uuid4().hex
        try:
            with partial.open("wb") as file:
                yield file
            self.put_file(partial, key)
        finally:
            partial.unlink(missing_ok=True)

    def put_file(self, path: Path, key: str) -> None:
        """Move a local file into the store; whether `path` is left over depends on the store."""
        target = self._path(key)
        if self.folder is None:
            with as_os_errors():
                self.fs.put_file(str(path), target)
            return
        for _ in range(1000):  # a sweeper may remove the folder as soon as it is made
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._move(path, Path(target))
            except FileNotFoundError:
                if not path.exists():
                    raise
                time.sleep(random.uniform(0, 0.001))  # out of step with a sweeper that is at it as often
            else:
                return
        raise FileNotFoundError(f"The storage folder of {key} disappears as it is made.")

    def _move(self, path: Path, target: Path) -> None:
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # the scratch folder is on another disk
                raise
            partial = self.partial / uuid4().hex
            try:
                shutil.copyfile(path, partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)

    def open_read(self, key: str) -> IO[bytes]:
        """The file for streaming; FileNotFoundError if it is gone."""
        path = self._path(key)
        with as_os_errors():
            file: IO[bytes] = self.fs.open(path, "rb")
        return file

    def read(self, key: str) -> bytes:
        with self.open_read(key) as file, as_os_errors():
            return file.read()

    def size(self, key: str) -> int:
        """Bytes of a file."""
        path = self._path(key)
        with as_os_errors():
            return int(self.fs.size(path))

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with as_os_errors():
            return bool(self.fs.exists(path))

    def local_copy(self, key: str) -> Path:
        """A path on this machine: the file itself where the store is local, else a copy fetched once."""
        if self.folder is not None:
            return Path(self._path(key))
        path = self._path(key)
        copy = self.copies / sha256(key.encode()).hexdigest()
        with self._copying, as_os_errors():
            if not copy.exists():
                self.copies.mkdir(parents=True, exist_ok=True)
                partial = self.partial / uuid4().hex
                self.fs.get_file(path, str(partial))
                partial.replace(copy)
            copy.touch()  # its age is counted from its last use
        return copy

    def delete(self, key: str) -> None:
        """Remove one file, and the folder that it leaves empty; no error if it is gone."""
        path = self._path(key)
        if self.folder is None:
            with as_os_errors():
                if self.fs.exists(path):
                    self.fs.rm_file(path)
            return
        Path(path).unlink(missing_ok=True)
        try:
            Path(path).parent.rmdir()
        except OSError:
            return  # other files are in it, or it is gone

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything under `windows/<job>/`, `uploads/<clip>/` or `renders/<job>/`."""
        path = self._path(prefix).rstrip("/")
        if self.folder is not None:
            shutil.rmtree(path, ignore_errors=True)
            return
        with as_os_errors():
            if self.fs.exists(path):
                self.fs.rm(path, recursive=True)

    def owners(self, kind: str, older_than: float) -> list[str]:
        """Ids that have files under `kind` (`windows`, `uploads`...), all older than this (seconds).

        What others put there (`.DS_Store`, `lost+found`) is not ours to remove.
        """
        newest: dict[str, float] = {}
        base = f"{self.root}/{kind}"
        with as_os_errors():
            self.fs.invalidate_cache()
            files = self.fs.find(base, detail=True) if self.fs.exists(base) else {}
        for path, info in files.items():
            owner = path[len(base) :].lstrip("/").split("/", 1)[0]
            newest[owner] = max(newest.get(owner, 0.0), modified(info))
        limit = time.time() - older_than
        return [one for one, at in newest.items() if at < limit and KEY.fullmatch(f"{kind}/{one}/")]

    def sweep(self, older_than: float) -> None:
        """Remove what a process that died was writing, and copies that nobody used for so long (seconds)."""
        limit = time.time() - older_than
        for path in [*self.partial.glob("*"), *self.copies.glob("*")]:
            with suppress(FileNotFoundError):  # another sweeper was first
                if path.stat().st_mtime < limit:
                    path.unlink()
        for folder in (one for pattern in AT_WORK for one in self.scratch.glob(pattern)):
            with suppress(FileNotFoundError):
                if max(path.stat().st_mtime for path in [folder, *folder.iterdir()]) < limit:
                    shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> str:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of this store.")
        return f"{self.root}/{key}"


def refuse_unfit(url: str) -> None:
    """Refuse a kind of store that could not serve several processes, in a chain of fsspec's too (`a::b://`)."""
    for link in url.split("::"):
        wrong = UNFIT.get(link.partition(":")[0])
        if wrong is not None:
            raise StorageUnfit(
                f"STORAGE_URL is {shown(url)}, which {wrong}; name a folder (file:///srv/earshot) "
                "or a bucket (s3://bucket/prefix)."
            )


def shown(url: str) -> str:
    """Without a key in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def make_writable(folder: Path, setting: str) -> None:
    """Make the folder where it is missing, and put a file into it and away again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise StorageUnfit(
            f"{folder} cannot be written to ({error.strerror}); name another folder in {setting}."
        ) from error


def modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, epoch seconds; each fsspec backend has its own word for it."""
    for name in ("mtime", "LastModified", "created", "last_modified", "updated"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return time.time()  # unknown: never called old
