"""The store: whole files or none, keys of ours only, alike on a folder and on an object store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fsspec import AbstractFileSystem, register_implementation

from service.redis_server import PrivateRedis
from service.storage import Storage
from tests.api import Api, is_problem, sent


class Unreachable(AbstractFileSystem):
    """An object store without credentials: its errors are its library's own, as botocore's are."""

    protocol = "unreachable"

    def __getattribute__(self, name: str) -> Any:
        if name in {"put_file", "open", "size", "exists", "get_file"}:
            raise LookupError("Unable to locate credentials")
        return super().__getattribute__(name)


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    # fsspec's memory:// store stands for every object store: no folders, no rename.
    url = f"file://{tmp_path}/store" if request.param == "file" else f"memory://{uuid4().hex}"
    return Storage(url, tmp_path / "scratch")


def test_what_is_written_is_read_back(storage: Storage) -> None:
    with storage.open_write("windows/job/0-a.ndjson") as file:
        file.write(b"one\n")
        file.write(b"two\n")
    assert storage.read("windows/job/0-a.ndjson") == b"one\ntwo\n"
    with storage.open_read("windows/job/0-a.ndjson") as file:
        assert list(file) == [b"one\n", b"two\n"]


def test_a_write_that_fails_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(RuntimeError), storage.open_write("windows/job/0-a.ndjson") as file:
        file.write(b"half")
        raise RuntimeError
    assert not storage.exists("windows/job/0-a.ndjson")
    assert list(storage.partial.iterdir()) == []


def test_a_local_file_goes_in_and_a_local_path_comes_out(storage: Storage, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(bytes(range(256)))
    storage.put_file(clip, "uploads/u1/video")
    first, second = storage.local_copy("uploads/u1/video"), storage.local_copy("uploads/u1/video")
    assert first == second
    assert first.read_bytes() == bytes(range(256))


def test_delete_is_idempotent_and_spares_the_neighbours(storage: Storage) -> None:
    for key in ("windows/a/0-x", "windows/a/1-x", "windows/ab/0-x"):
        with storage.open_write(key) as file:
            file.write(b"x")
    storage.delete("windows/a/0-x")
    storage.delete("windows/a/0-x")
    assert storage.exists("windows/a/1-x")
    storage.delete_prefix("windows/a/")
    storage.delete_prefix("windows/a/")
    assert not storage.exists("windows/a/1-x")
    assert storage.exists("windows/ab/0-x")


@pytest.mark.parametrize(
    "key",
    [
        "../etc/passwd",
        "uploads/../../x",
        "uploads/a/../b",
        "/etc/passwd",
        "windows",
        "uploads/a/b/c",
        "uploads//x",
    ],
)
def test_a_key_that_is_not_ours_never_becomes_a_path(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        storage.read(key)
    with pytest.raises(ValueError, match="not a key"):
        storage.delete_prefix(key)


def test_owners_names_only_what_is_old(storage: Storage) -> None:
    with storage.open_write("windows/young/0-x") as file:
        file.write(b"x")
    assert storage.owners("windows", older_than=60) == []
    assert storage.owners("windows", older_than=-60) == ["young"]
    assert storage.owners("renders", older_than=-60) == []


def test_sweep_removes_what_a_dead_writer_left(storage: Storage) -> None:
    left, fresh = storage.partial / "dead", storage.partial / "alive"
    left.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(left, (time.time() - 100, time.time() - 100))
    storage.sweep(older_than=50)
    assert not left.exists()
    assert fresh.exists()


def test_sweep_removes_the_bodies_that_a_dead_process_was_receiving(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store", tmp_path / "scratch")
    dead, busy, other = (storage.scratch / name for name in ("upload-1", "render-2", "lost+found"))
    for folder in (dead, busy, other):
        folder.mkdir()
        (folder / "1").write_bytes(b"x")
        for path in (folder / "1", folder):
            os.utime(path, (time.time() - 100,) * 2)
    os.utime(busy / "1")
    storage.sweep(older_than=50)
    assert (dead.exists(), busy.exists(), other.exists()) == (False, True, True)


def test_a_folder_that_a_sweeper_removes_under_the_writer_is_made_again(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store", tmp_path / "scratch")
    stop = threading.Event()

    def sweeper() -> None:
        while not stop.is_set():
            storage.delete("windows/job/none")  # removes the folder when it is empty

    thread = threading.Thread(target=sweeper)
    thread.start()
    try:
        for number in range(200):
            with storage.open_write(f"windows/job/{number}-x") as file:
                file.write(b"x")
            storage.delete(f"windows/job/{number}-x")
    finally:
        stop.set()
        thread.join()


def test_no_empty_folder_is_left(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store", tmp_path / "scratch")
    with storage.open_write("windows/job/0-x") as file:
        file.write(b"x")
    storage.delete("windows/job/0-x")
    assert list((tmp_path / "store/windows").iterdir()) == []


def test_no_listing_of_a_bucket_is_kept(tmp_path: Path) -> None:
    store = Storage("s3://bucket/prefix", tmp_path).fs
    store.dircache["bucket/prefix/windows"] = []  # and what is there since would be neither found nor deleted
    assert "bucket/prefix/windows" not in store.dircache


STEPS: dict[str, Callable[[Storage], object]] = {
    "put": lambda storage: storage.put_file(Path(__file__), "renders/a/b"),
    "read": lambda storage: storage.read("renders/a/b"),
    "size": lambda storage: storage.size("renders/a/b"),
    "exists": lambda storage: storage.exists("renders/a/b"),
    "copy": lambda storage: storage.local_copy("renders/a/b"),
    "delete": lambda storage: storage.delete("renders/a/b"),
    "delete all": lambda storage: storage.delete_prefix("renders/a/"),
    "owners": lambda storage: storage.owners("renders", 0),
}


@pytest.fixture
def unreachable() -> str:
    register_implementation(Unreachable.protocol, Unreachable, clobber=True)
    return "unreachable://bucket"


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_an_object_store_fails_as_a_disk_does(
    unreachable: str, step: Callable[[Storage], object], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="LookupError: Unable to locate credentials"):
        step(Storage(unreachable, tmp_path))


def test_an_object_store_that_cannot_be_reached_is_a_pause(
    unreachable: str, tmp_path: Path, own_redis: PrivateRedis, clip: bytes
) -> None:
    with Api(tmp_path, own_redis.url, storage_url=unreachable) as api:
        readiness = is_problem(api.http.get("/readyz"), 503, "not_ready")
        assert readiness["detail"] == "The storage cannot be written to."
        for address in ("/v1/uploads", "/v1/segment/full-mask"):
            is_problem(api.http.post(address, files=sent(clip)), 503, "storage_unavailable")
