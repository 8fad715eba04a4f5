"""SynthAVS at 96 pixels: clips drawn and played, and clips as a training gets them, on one core.

In seconds of the processor, so that a busy machine does not change the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from models.datasets.synthavs import SynthAVS
from models.training.batches import SYNTH, Feed
from models.training.recipes import tiny_acfpn
from tests.bench.timing import Timing, measure

CLIPS = 120  # of a repeat; their tables are filled by the call that is not counted


def synthavs() -> Iterator[Timing]:
    """100 clips/s and more are promised."""
    clips = SynthAVS("train")
    yield counted("synthavs", lambda: [clips[number] for number in range(CLIPS)])
    recipe = tiny_acfpn()
    feed = Feed(SYNTH, recipe)
    yield counted("synthavs-feed", lambda: [feed[step] for step in range(CLIPS // recipe.batch)])


def counted(name: str, call: Callable[[], object]) -> Timing:
    """With the clips that a second of one core makes, the best of all repeats."""
    spent = []

    def watched() -> None:
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)

    timing = measure(name, watched)
    return replace(timing, details={"clips": CLIPS, "clips_per_core_s": round(CLIPS / min(spent), 1)})
