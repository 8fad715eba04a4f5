"""The store: whole files or none, keys of ours only, alike on a folder and on an object store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from service.storage import Storage


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
