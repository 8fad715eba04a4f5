"""Clients in a process of their own: what they cost, or wait for, is not the harness's own doing.

    with asking(Calls(url, rate=20)) as answers:    # filled when the block ends
        ...

A load runs at low priority (`niceness`), so that it takes only what the service and the clocks leave; a clock
(one client, some calls a second) runs at the usual one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

END_SECONDS = 120.0  # the last answers may take so long
KEEP_SECONDS = 2.0  # that a connection may idle: less than at the server, which would close it under a call


@dataclass(frozen=True)
class Calls:
    """What is asked, how often, and by how many at once."""

    url: str
    body: Mapping[str, object] | None = None
    """The JSON of a POST; a call without body and clip is a GET."""
    clip: str = ""
    """The path of a file that a POST sends as `media`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: float = 0.0
    """A second, all clients together, answered or not; 0: each client asks again once it is answered."""
    clients: int = 1
    niceness: int = 0


@dataclass(frozen=True)
class Answer:
    """`status` 0 where none came."""

    status: int
    seconds: float
    good: bool


@contextlib.contextmanager
def asking(calls: Calls) -> Iterator[list[Answer]]:
    """Asks until the block ends; the list has an answer for every call then."""
    answers: list[Answer] = []
    program = [sys.executable, "-m", "tests.faults.callers", json.dumps(asdict(calls))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield answers
        finally:
            output, _ = process.communicate("", timeout=END_SECONDS)
            answers += [Answer(*row) for row in json.loads(output)]


def quantile(values: Sequence[float], part: float) -> float:
    """0 without values."""
    return sorted(values)[round(part * (len(values) - 1))] if values else 0.0


def caller(calls: Calls, client: httpx.Client) -> Callable[[], Answer]:
    """What makes one call."""
    clip = Path(calls.clip).read_bytes() if calls.clip else b""
    method = "POST" if clip or calls.body is not None else "GET"

    def call() -> Answer:
        began = time.monotonic()
        files = {"media": clip} if clip else None
        try:
            got = client.request(method, calls.url, json=calls.body, files=files, headers=calls.headers)
        except httpx.TransportError:
            return Answer(0, time.monotonic() - began, good=False)
        return Answer(got.status_code, time.monotonic() - began, good=is_good(got))

    return call


def is_good(got: httpx.Response) -> bool:
    """Complete where it is a result; a refusal that says when to come again."""
    if not got.is_success:
        return "Retry-After" in got.headers
    if "/segment/" in str(got.url):
        return got.status_code == httpx.codes.OK and len(got.json()["frames"]) > 0
    return True


def at_a_rate(
    call: Callable[[], Answer], calls: Calls, ended: threading.Event, crowd: ThreadPoolExecutor
) -> list[Answer]:
    began = time.monotonic()
    futures: list[Future[Answer]] = []
    while True:
        due = began + len(futures) / calls.rate
        if ended.wait(max(0.0, due - time.monotonic())):
            # What this process never came to send, on a machine that is busy elsewhere, is no call.
            return [future.result() for future in futures if not future.cancel()]
        futures.append(crowd.submit(call))


def one_after_the_other(
    call: Callable[[], Answer], calls: Calls, ended: threading.Event, crowd: ThreadPoolExecutor
) -> list[Answer]:
    def loop(_: int) -> list[Answer]:
        answers = []
        while not ended.is_set():
            answers.append(call())
        return answers

    return [answer for answers in crowd.map(loop, range(calls.clients)) for answer in answers]


def await_end(ended: threading.Event) -> None:
    """The end of the input is the end of the asking."""
    sys.stdin.read()
    ended.set()


def main(calls: Calls) -> None:
    os.nice(calls.niceness)
    ended = threading.Event()
    threading.Thread(target=await_end, args=(ended,), daemon=True).start()
    limits = httpx.Limits(max_connections=calls.clients, keepalive_expiry=KEEP_SECONDS)
    with httpx.Client(timeout=90, limits=limits) as client, ThreadPoolExecutor(calls.clients) as crowd:
        way = at_a_rate if calls.rate else one_after_the_other
        answers = way(caller(calls, client), calls, ended, crowd)
    rows = [(one.status, one.seconds, one.good) for one in answers]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main(Calls(**json.loads(sys.argv[1])))
