"""A cluster whose strategies go wrong on request."""

from __future__ import annotations

from tests.cluster import Cluster


class Lab(Cluster):
    """`with Lab(workers=2, max_attempts=5) as lab:`."""

    def __init__(self, workers: int = 1, **settings: object) -> None:
        super().__init__(workers, registry="tests.faults.strategies", **settings)
