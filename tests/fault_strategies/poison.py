"""Kills its own process with -9 once it has begun: a clip that crashes a driver, say."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.options import FullMaskOptions
from tests.fault_strategies import full

BEFORE_SECONDS = 0.2  # for its neighbours to be in work too


def poison(window: Window, options: FullMaskOptions) -> Iterator[FrameMasks]:
    yield full(window)
    time.sleep(BEFORE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def build(networks: object) -> Segmenter:
    return poison
