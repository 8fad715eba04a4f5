"""Batching: equal calls merge, unequal ones never, nobody waits in vain, a failure stays with its cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models.batching import Batcher
from models.errors import OutOfDeviceMemory


class OutOfMemoryError(RuntimeError):
    """Named and derived as torch's own."""


class Device:
    """A function that doubles numbers, notes each batch, and has a size."""

    def __init__(self, fits: int = 100, seconds: float = 0.0) -> None:
        self.fits, self.seconds = fits, seconds
        self.batches: list[list[int]] = []
        self.running = 0

    def double(self, items: list[int]) -> list[int]:
        self.running += 1
        assert self.running == 1, "two batches at once on one device"
        time.sleep(self.seconds)
        self.batches.append(list(items))
        self.running -= 1
        if len(items) > self.fits:
            raise OutOfMemoryError("CUDA out of memory")
        if -1 in items:
            raise ValueError("a bad item")
        return [2 * item for item in items]

    def triple(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        return [3 * item for item in items]


def together(batcher: Batcher, *calls: Callable[[], Any]) -> list[Any]:
    """Each call in a window of its own, all begun at the same moment; results or exceptions."""
    start = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        with batcher.window():
            start.wait()
            try:
                return call()
            except Exception as error:  # noqa: BLE001 (handed to the test)
                return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_equal_calls_become_one_batch() -> None:
    device, batcher = Device(), Batcher(wait=1.0)
    results = together(batcher, *(lambda n=n: batcher(device.double, [n, n + 10]) for n in range(4)))
    assert results == [[2 * n, 2 * n + 20] for n in range(4)]
    assert [len(batch) for batch in device.batches] == [8]


def test_unequal_calls_never_mix() -> None:
    device, batcher = Device(), Batcher(wait=0.05)
    calls: list[Callable[[], Any]] = [
        lambda: batcher(device.double, [1], key="small"),
        lambda: batcher(device.double, [2], key="large"),
        lambda: batcher(device.triple, [3], key="small"),
    ]
    assert together(batcher, *calls) == [[2], [4], [9]]
    assert sorted(device.batches) == [[1], [2], [3]]


def test_a_lone_caller_does_not_wait() -> None:
    device, batcher = Device(), Batcher(wait=10.0)
    began = time.monotonic()
    with batcher.window():
        assert batcher(device.double, [1]) == [2]
    assert batcher(device.double, [1]) == [2]
    assert time.monotonic() - began < 1.0


def test_nobody_waits_once_every_window_is_in_a_call() -> None:
    device, batcher = Device(), Batcher(wait=10.0)
    began = time.monotonic()
    assert together(batcher, lambda: batcher(device.double, [1]), lambda: batcher(device.triple, [1])) == [
        [2],
        [3],
    ]
    assert time.monotonic() - began < 2.0


def test_company_that_does_not_come_costs_the_wait_and_no_more() -> None:
    device, batcher = Device(), Batcher(wait=0.05)
    with batcher.window(), batcher.window():  # the other window decodes, say
        began = time.monotonic()
        assert batcher(device.double, [1]) == [2]
    assert 0.04 < time.monotonic() - began < 1.0


def test_a_full_batch_leaves_at_once_and_the_next_begins() -> None:
    device, batcher = Device(), Batcher(limit=4, wait=10.0)
    began = time.monotonic()
    results = together(batcher, *(lambda n=n: batcher(device.double, [n, n]) for n in range(4)))
    assert results == [[2 * n, 2 * n] for n in range(4)]
    assert time.monotonic() - began < 5.0
    assert [len(batch) for batch in device.batches] == [4, 4]


def test_more_items_than_a_batch_holds_are_cut() -> None:
    device, batcher = Device(), Batcher(limit=4)
    assert batcher(device.double, list(range(10))) == [2 * n for n in range(10)]
    assert [len(batch) for batch in device.batches] == [4, 4, 2]
    assert batcher(device.double, []) == []


def test_the_next_batch_fills_while_the_device_is_busy() -> None:
    device, batcher = Device(seconds=0.2), Batcher(wait=0.0)

    def late(n: int) -> list[int]:
        time.sleep(0.05)
        return batcher(device.double, [n])

    together(batcher, lambda: batcher(device.double, [0]), lambda: late(1), lambda: late(2), lambda: late(3))
    assert sorted(len(batch) for batch in device.batches) == [1, 3]


def test_out_of_memory_is_halved_once() -> None:
    released = []
    device, batcher = Device(fits=2), Batcher(release=lambda: released.append(1))
    assert batcher(device.double, [1, 2, 3, 4]) == [2, 4, 6, 8]
    assert device.batches == [[1, 2, 3, 4], [1, 2], [3, 4]]
    assert released == [1]
    with pytest.raises(OutOfDeviceMemory):
        batcher(device.double, list(range(8)))
    assert batcher(device.double, [5]) == [10], "the device goes on"


def test_a_single_item_that_does_not_fit_is_not_halved() -> None:
    device, batcher = Device(fits=0), Batcher()
    with pytest.raises(OutOfDeviceMemory):
        batcher(device.double, [1])
    assert len(device.batches) == 1


def test_out_of_memory_reaches_every_caller_of_the_batch() -> None:
    device, batcher = Device(fits=1), Batcher(wait=1.0)
    results = together(batcher, *(lambda: batcher(device.double, [1, 1]) for _ in range(3)))
    assert [type(result) for result in results] == [OutOfDeviceMemory] * 3


def test_an_error_stays_with_the_caller_that_caused_it() -> None:
    device, batcher = Device(), Batcher(wait=1.0)
    results = together(batcher, *(lambda n=n: batcher(device.double, [n]) for n in (1, -1, 3)))
    assert results[0] == [2]
    assert isinstance(results[1], ValueError)
    assert results[2] == [6]


def test_under_load_every_result_is_right_and_sizes_are_bounded() -> None:
    generator = np.random.default_rng(0)
    device, batcher = Device(seconds=0.0005), Batcher(limit=16, wait=0.001)

    def window(numbers: Sequence[int]) -> bool:
        with batcher.window():
            parts = [numbers[start : start + 3] for start in range(0, len(numbers), 3)]
            return all(batcher(device.double, part) == [2 * n for n in part] for part in parts)

    jobs = [generator.integers(0, 1000, size=30).tolist() for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(window, jobs))
    sizes = [len(batch) for batch in device.batches]
    assert max(sizes) <= 16
    assert sum(sizes) == 3000
    assert len(sizes) < 700, "1,000 calls should have merged"
