"""How long things take: `python -m tests.bench [NAME ...]` prints one JSON object a line.

A benchmark is a function that yields `Timing`s and one line in `BENCHMARKS` (`tests/bench/__main__.py`).
"""
