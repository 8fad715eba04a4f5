"""`python -m tests.parity FOLDER [GROUP ...]`: a line an array. 0 all equal, 1 a difference, 2 no folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from tests.parity import (
    acfpn,
    audioclip_audio,
    audioclip_forward,
    avss,
    cavp,
    data,
    metrics,
    points,
    strategies,
    surgery,
    train_step,
    visual,
)
from tests.parity.golden import DEFAULT, FolderInvalid, Golden
from tests.parity.row import Row

GROUPS: Mapping[str, Callable[[Golden], Iterator[Row]]] = {
    "audioclip_audio": audioclip_audio.rows,
    "audioclip_forward": audioclip_forward.rows,
    "visual": visual.rows,
    "surgery": surgery.rows,
    "points": points.rows,
    "acfpn": acfpn.rows,
    "train_step": train_step.rows,
    "metrics": metrics.rows,
    "data": data.rows,
    "avss": avss.rows,
    "cavp": cavp.rows,
    "strategies": strategies.rows,
}
AGAIN = {"strategies"}  # groups without a file of their own: they compare arrays of others, used another way
THREADS = 2  # the golden values were made with two; more only changes the order of sums


def compare(golden: Golden, group: str) -> Iterator[Row]:
    """The rows of one group, and a failing one for each array that it forgot."""
    missing = {} if group in AGAIN else dict.fromkeys(golden.arrays(group))
    for row in GROUPS[group](golden):
        missing.pop(row.name, None)
        yield replace(row, name=f"{group}/{row.name}")
    for name in missing:
        yield Row(f"{group}/{name} (never compared)", float("inf"), 0.0, "exact")


def main(arguments: list[str]) -> int:
    """Print the table of every group, or of the named ones, and the verdict."""
    folder, groups = Path(arguments[0] if arguments else DEFAULT), arguments[1:] or list(GROUPS)
    if unknown := [group for group in groups if group not in GROUPS]:
        print(
            f"There is no group named {', '.join(unknown)}; there are {', '.join(GROUPS)}.", file=sys.stderr
        )
        return 2
    golden, rows = Golden(folder), 0
    failed: list[str] = []
    try:
        for group in (group for group in groups if group not in AGAIN):
            golden.arrays(group)
        for group in groups:
            for row in compare(golden, group):
                print(row, flush=True)
                rows += 1
                failed += [] if row.ok else [row.name]
    except FolderInvalid as wrong:
        print(wrong, file=sys.stderr)
        return 2
    print(f"{rows - len(failed)} of {rows} rows ok.")
    return 1 if failed else 0


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    sys.exit(main(sys.argv[1:]))
