"""Installs the browser of the tests where it may (Debian packages as root; axe-core from npm, into `build/`).

It never fails: it says what is missing, and the tests that need it are skipped by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.browser import AXE, AXE_VERSION, chromium

PACKAGES = ("chromium", "fonts-inter")  # the font that the page asks for first, so that pictures look alike
NO_CHROMIUM = "No Chromium (`apt-get install chromium`): tests/test_playground*.py are skipped."
NO_AXE = f"No axe-core {AXE_VERSION} from npm: the check of the page's accessibility is skipped."


def install_chromium() -> bool:
    apt = shutil.which("apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return (
        apt is not None
        and os.geteuid() == 0
        and all(
            subprocess.run([apt, "-qq", *words], env=quiet, stdout=subprocess.DEVNULL, check=False).returncode
            == 0
            for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES])
        )
    )


def install_axe() -> bool:
    npm, folder = shutil.which("npm"), AXE.parents[2]
    if npm is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    words = ["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    done = subprocess.run([npm, *words, f"axe-core@{AXE_VERSION}"], stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    if chromium() is None and not install_chromium():
        print(NO_CHROMIUM)
    if not AXE.exists() and not install_axe():
        print(NO_AXE)
