"""`python -m tests.bench [NAME ...]`: JSON lines. Each benchmark has a process, and so a peak, of its own.

Without a name all run, which takes a quarter of an hour or so on two cores: the strategies in full size take
two minutes each, and Box-Prompt five. `--help` says what each field of a line is.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from inspect import cleandoc

import torch

from tests.bench import decode, networks, service, strategies, synthavs
from tests.bench.timing import Timing, device

BENCHMARKS: Mapping[str, Callable[[], Iterator[Timing]]] = {
    "decode": decode.decode,
    "audio-tower": networks.audio_tower,
    "image-tower": networks.image_tower,
    "heat-map": networks.heat_map,
    "ac-fpn": networks.ac_fpn,
    "fbsp-kernel": networks.fbsp_kernel,
    "synthavs": synthavs.synthavs,
    "service": service.service,
    **{f"{name}-tiny": partial(strategies.tiny, name) for name in strategies.COMPARED},
    **{f"{name}-vit-b": partial(strategies.full_size, name) for name in strategies.COMPARED},
}
THREADS = 2  # unless OMP_NUM_THREADS says otherwise


def main(names: list[str]) -> int:
    """One named benchmark runs here; several, or all, run one after the other in children."""
    if {"-h", "--help"} & set(names):
        explained = (__doc__, f"Benchmarks: {', '.join(BENCHMARKS)}.", Timing.__doc__, strategies.__doc__)
        print(*(cleandoc(text or "") for text in explained), sep="\n\n")
        return 0
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(
            f"There is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}.", file=sys.stderr
        )
        return 2
    if len(names) != 1:
        children = [
            subprocess.run([sys.executable, "-m", "tests.bench", name], check=False)
            for name in names or BENCHMARKS
        ]
        return max(child.returncode for child in children)
    torch.manual_seed(0)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(THREADS)
    machine = {
        "device": str(device()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": platform.machine(),
    }
    for timing in BENCHMARKS[names[0]]():
        row = asdict(timing)
        print(json.dumps(row | row.pop("details") | machine), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
