"""`python -m tests.faults [--short] [--only 1a --only 4] [--scale 0.1]`: breaks what the service promises."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from tests.faults import endings, inputs, lifecycle, memory, overload, size
from tests.faults.lab import close_shared_lab
from tests.faults.promise import Measured, Promise, Scale

PROMISES = [
    promise for part in (lifecycle, endings, overload, memory, inputs, size) for promise in part.PROMISES
]
SHORT = 0.04  # 100 jobs for 2,500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer jobs and shorter waits, for CI")
    parser.add_argument("--scale", type=float, help="this part of the jobs, requests and files (1)")
    parser.add_argument("--only", action="append", metavar="N", help="a promise by its number: 1, 1b, 14")
    parser.add_argument("--list", action="store_true", help="name the promises and stop")
    arguments = parser.parse_args()
    chosen = [promise for promise in PROMISES if is_chosen(promise, arguments.only)]
    if arguments.list:
        print(*(f"{promise.number:>4}  {promise.sentence}" for promise in chosen), sep="\n")
        return 0
    scale = Scale(arguments.scale or (SHORT if arguments.short else 1.0), arguments.short)
    began = time.monotonic()
    try:
        with ThreadPoolExecutor() as beside:
            early = {one.number: beside.submit(attempted, one, scale) for one in chosen if one.patient}
            held = sum(
                told(one, *(early[one.number].result() if one.patient else attempted(one, scale)))
                for one in chosen
            )
    finally:
        close_shared_lab()
    print(f"{held} of {len(chosen)} promises held or were skipped, in {time.monotonic() - began:.0f} s.")
    return 0 if held == len(chosen) else 1


def is_chosen(promise: Promise, only: list[str] | None) -> bool:
    return only is None or any(
        promise.number in (one, *(one + letter for letter in "abcdef")) for one in only
    )


def attempted(promise: Promise, scale: Scale) -> tuple[Measured | None, float]:
    """What came of trying to break it, None where it cannot be tried; and the seconds it took."""
    began = time.monotonic()
    try:
        measured = promise.attempt(scale) if promise.attempt else None
    except Exception as error:  # noqa: BLE001 (one promise that cannot be tried must not hide the others)
        traceback.print_exc()
        measured = Measured(ok=False, text=f"{type(error).__name__}: {error}"[:300])
    return measured, time.monotonic() - began


def told(promise: Promise, measured: Measured | None, seconds: float) -> bool:
    """Print its line; whether it held."""
    name = f"{promise.number:>4}  {promise.sentence}"
    if measured is None:
        print(f"{name}  SKIPPED", flush=True)
        return True
    verdict = "ok" if measured.ok else "BROKEN"
    print(f"{name}  [{measured.text}]  {verdict}  ({seconds:.0f} s)", flush=True)
    return measured.ok


if __name__ == "__main__":
    sys.exit(main())
