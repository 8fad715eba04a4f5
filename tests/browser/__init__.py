"""The browser of the playground's tests: Debian's Chromium, and axe-core, which judges accessibility.

Nothing of it reaches a visitor of the page. `python -m tests.browser` installs what is missing.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE_VERSION = "4.14.1"
AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def chromium() -> str | None:
    """Where it is, if it is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


NEEDED = pytest.mark.skipif(
    chromium() is None or find_spec("playwright") is None,
    reason="there is no Chromium, or no Playwright: `apt-get install chromium`, `pip install playwright`",
)
