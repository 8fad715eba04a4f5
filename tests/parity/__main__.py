"""`python -m tests.parity FOLDER [GROUP ...]`: a line an array. 0 all equal, 1 not, 2 nothing to compare."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    tpavi,
    train_step,
    vggish,
    visual,
)
from tests.parity.golden import DEFAULT, FileAbsent, FolderInvalid, Golden
from tests.parity.row import Row, failed, skipped

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
    "vggish": vggish.rows,
    "tpavi": tpavi.rows,
    "strategies": strategies.rows,
}
AGAIN = {"strategies"}  # groups without a file of their own: they compare arrays of others, used another way
# The golden values were made with two threads and MKL's AVX2 kernels. Its AVX-512 kernels sum in another
# order, which moves what all but cancels: the quietest bin of a spectrum (-191 dB) by 5e-5 of its value, the
# norm of a small gradient by 4e-3. No better arithmetic helps: the golden bin is itself 3e-5 from what the
# same product gives in double precision. The rows are to measure our code, not the processor.
THREADS = 2
MKL_KERNELS = "AVX2"


def compare(golden: Golden, group: str) -> Iterator[Row]:
    """The rows of one group, and a failing one for each array that it forgot or did not come to."""
    missing = {} if group in AGAIN else dict.fromkeys(golden.arrays(group))
    try:
        for row in GROUPS[group](golden):
            missing.pop(row.name, None)
            yield replace(row, name=f"{group}/{row.name}")
    except FileAbsent as absent:
        yield skipped(group, str(absent))
    except Exception as error:  # noqa: BLE001  (a folder may be wrong in any way; the other groups still count)
        lacking = f"; it lacks {', '.join(golden.lacking)}" if golden.lacking else ""
        yield failed(group, f"cannot be compared: {type(error).__name__}: {error}{lacking}")
    for name in missing:
        yield failed(f"{group}/{name}", "never compared")


def table(golden: Golden, groups: Sequence[str]) -> Iterator[Row]:
    """The rows of all groups. A file that the folder has not got is said, and is no difference."""
    for group in groups:
        try:
            yield from compare(golden, group)
        except FileAbsent as absent:
            yield skipped(group, str(absent))
        except FolderInvalid as broken:
            yield failed(group, str(broken))
    for path in sorted(golden.folder.glob("*.npz")):
        if path.stem not in GROUPS:
            yield skipped(path.name, "no group compares this file")


def main(arguments: list[str]) -> int:
    """Print the table of every group, or of the named ones, and the verdict."""
    folder, groups = Path(arguments[0] if arguments else DEFAULT), arguments[1:] or list(GROUPS)
    if unknown := [group for group in groups if group not in GROUPS]:
        print(
            f"There is no group named {', '.join(unknown)}; there are {', '.join(GROUPS)}.", file=sys.stderr
        )
        return 2
    if not any((folder / f"{group}.npz").is_file() for group in groups):
        print(f"{folder} holds no golden file of the groups {', '.join(groups)}.", file=sys.stderr)
        return 2
    counts = Counter[str]()
    for row in table(Golden(folder), groups):
        print(row, flush=True)
        counts["skipped" if row.kind == "skipped" else "ok" if row.ok else "failed"] += 1
    print(f"{counts['ok']} of {counts['ok'] + counts['failed']} rows ok, {counts['skipped']} skipped.")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    os.environ.setdefault("MKL_CBWR", MKL_KERNELS)  # MKL reads it at the first product, which is to come
    torch.set_num_threads(THREADS)
    sys.exit(main(sys.argv[1:]))
