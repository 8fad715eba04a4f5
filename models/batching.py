"""Merges equal calls of concurrent windows into one batch on the device.

A call brings a list of items (frames, say) and a function that maps a list to as many results. Calls of the
same function with the same key, made at the same time by several threads, become one call on all their items:

    first caller  -> opens a batch, waits for company, then for the device, and runs everybody's items
    other callers -> join while there is room, and take their part of the results

Nobody waits for company that cannot come: a window that runs alone is never held up. While the device is busy
the next batch fills by itself. The device runs one batch at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from models.errors import OutOfDeviceMemory

Item = TypeVar("Item")
Result = TypeVar("Result")
LIMIT = 16  # items of one batch
WAIT_SECONDS = 0.005


class Batch:
    """Items of several callers on their way through one function."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.callers = 0
        self.results: Sequence[Any] | None = None  # None after `done`: it failed, each caller runs alone
        self.too_large = False
        self.done = threading.Event()

    def join(self, items: Sequence[Any]) -> slice:
        start = len(self.items)
        self.items.extend(items)
        self.callers += 1
        return slice(start, len(self.items))


class Batcher:
    """One a device. `release` frees cached memory before a retry; `observe` is told what ran and its size."""

    def __init__(
        self,
        limit: int = LIMIT,
        wait: float = WAIT_SECONDS,
        release: Callable[[], None] = lambda: None,
        observe: Callable[[str, int], None] = lambda name, size: None,  # noqa: ARG005
    ) -> None:
        self.limit, self.wait = limit, wait
        self.release, self.observe = release, observe
        self._device = threading.Lock()
        self._changed = threading.Condition()  # guards what follows
        self._open: dict[Hashable, Batch] = {}
        self._windows = 0
        self._inside = 0  # callers between entry and result

    @contextmanager
    def window(self) -> Iterator[None]:
        """A window is in work in this thread: its calls are company to others."""
        self._count(windows=1)
        try:
            yield
        finally:
            self._count(windows=-1)

    def __call__(
        self, function: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], key: Hashable = None
    ) -> list[Result]:
        """One result an item, in order. Calls with equal `function` and `key` may share a batch.

        Raises OutOfDeviceMemory when even half a batch does not fit. The function holds the device and must
        not call the batcher itself.
        """
        self._count(inside=1)
        try:
            parts = [items[start : start + self.limit] for start in range(0, len(items), self.limit)]
            return [result for part in parts for result in self._merged(function, part, key)]
        finally:
            self._count(inside=-1)

    def _merged(
        self, function: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], key: Hashable
    ) -> Sequence[Result]:
        group = (function, key)
        with self._changed:
            batch = self._open.get(group)
            leads = batch is None or len(batch.items) + len(items) > self.limit
            if batch is None or leads:
                batch = self._open[group] = Batch()
            mine = batch.join(items)
            self._changed.notify_all()
        if leads:
            self._lead(function, batch, group)
        else:
            batch.done.wait()
        if batch.too_large:
            raise OutOfDeviceMemory("The frames do not fit into the device's memory; send smaller ones.")
        if batch.results is None:  # somebody's items broke it: each on its own, so that only those fail
            with self._device:
                return self._fitted(function, list(items))
        return batch.results[mine]

    def _lead(self, function: Callable[[list[Any]], Sequence[Any]], batch: Batch, group: Hashable) -> None:
        """Wait for company and for the device, close the batch, run it."""
        try:
            self._gather(batch)
            with self._device:
                self._close(batch, group)
                batch.results = self._fitted(function, batch.items)
                self.observe(owner(function), len(batch.items))
        except OutOfDeviceMemory:
            batch.too_large = True
        except Exception:
            if batch.callers == 1:
                raise
        finally:
            self._close(batch, group)
            batch.done.set()

    def _gather(self, batch: Batch) -> None:
        """Until the batch is full, the time is up, or every window in work is in some call already."""
        deadline = time.monotonic() + self.wait
        with self._changed:
            while len(batch.items) < self.limit and self._inside < self._windows:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    return

    def _close(self, batch: Batch, group: Hashable) -> None:
        with self._changed:
            if self._open.get(group) is batch:
                del self._open[group]

    def _fitted(self, function: Callable[[list[Any]], Sequence[Any]], items: list[Any]) -> Sequence[Any]:
        """Run the items, in two halves if the whole does not fit."""
        try:
            return self._run(function, items)
        except MemoryError:
            if len(items) == 1:
                raise OutOfDeviceMemory("A single frame does not fit into the device's memory.") from None
        self.release()
        half = len(items) // 2
        try:
            return [*self._run(function, items[:half]), *self._run(function, items[half:])]
        except MemoryError:
            self.release()
            raise OutOfDeviceMemory(f"A batch of {len(items) - half} does not fit, even halved.") from None

    def _run(self, function: Callable[[list[Any]], Sequence[Any]], items: list[Any]) -> Sequence[Any]:
        """One call; the ways in which a device says that its memory is used up become MemoryError."""
        try:
            results = function(items)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(str(error)) from None  # without the frames that hold the batch's tensors
        assert len(results) == len(items), f"{function} gave {len(results)} results for {len(items)} items"
        return results

    def _count(self, windows: int = 0, inside: int = 0) -> None:
        with self._changed:
            self._windows += windows
            self._inside += inside
            self._changed.notify_all()


def owner(function: Callable[..., object]) -> str:
    """The class that a method belongs to, or a plain function's name: a metric's label."""
    owned_by = getattr(function, "__self__", None)
    return type(owned_by).__name__ if owned_by is not None else getattr(function, "__name__", "function")


def out_of_memory(error: RuntimeError) -> bool:
    """torch has a class for CUDA's, and a sentence for the CPU's; it need not be imported to be known."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
