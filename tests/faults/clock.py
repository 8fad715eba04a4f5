"""Times one address from a process of its own, so that nothing of the load's own program is measured.

`python -m tests.faults.clock URL` asks twenty times a second until its input ends; then it prints its times.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx

PAUSE = 0.05  # seconds between two questions


class Clock:
    """`with clock.running():` fills `taken`, in seconds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.taken: list[float] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        program = [sys.executable, "-m", "tests.faults.clock", self.url]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield
            finally:
                self.taken = json.loads(process.communicate("", timeout=60)[0])

    def quantile(self, part: float) -> float:
        return quantile(self.taken, part)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[round(part * (len(values) - 1))] if values else 0.0


def main(url: str) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    taken = []
    with httpx.Client(timeout=30) as client:
        client.get(url).raise_for_status()  # the connection is made
        while not ended.wait(PAUSE):
            began = time.monotonic()
            client.get(url).raise_for_status()
            taken.append(time.monotonic() - began)
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main(sys.argv[1])
