"""A cluster whose strategies go wrong on request; and one of them for all promises that break no process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.cluster import Cluster
from tests.fault_strategies import FAULTS


class Lab(Cluster):
    """`with Lab(workers=2, max_attempts=5) as lab:`."""

    def __init__(self, workers: int = 1, **settings: object) -> None:
        super().__init__(workers, strategies=",".join(FAULTS), **settings)


_shared: list[Lab] = []


@contextlib.contextmanager
def shared_lab() -> Iterator[Lab]:
    """One worker of two threads; made at the first call, and again after a fault that killed a process."""
    if _shared and _shared[0].fallen():
        close_shared_lab()
    if not _shared:
        lab = Lab(worker_threads=2)
        lab.__enter__()
        _shared.append(lab)
    yield _shared[0]


def close_shared_lab() -> None:
    while _shared:
        _shared.pop().stop()
