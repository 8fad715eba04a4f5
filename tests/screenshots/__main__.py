"""`python -m tests.screenshots [FOLDER]` starts the service and writes what a visitor sees as PNG files.

Each state in light and dark: empty, running, done, another sound, muted, two methods, options, an error, the
jobs, a phone. The clips are the samples; the methods are those whose weights are there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser import FLAGS, chromium
from tests.browser.visit import HOLD
from tests.cluster import Cluster

FOLDER = Path("build") / "screenshots"
DESK, PHONE = (1360, 900), (390, 844)
PATIENCE = 300_000  # milliseconds, for networks on a busy machine
FINISHED = '.stage[data-state="done"], .problem'


def run(page: Page) -> None:
    page.click(".run")
    page.wait_for_selector(FINISHED)


def at(page: Page, seconds: float) -> None:
    """Holds the clip at a moment, and waits until that picture is there."""
    page.evaluate(HOLD, seconds)


def empty(page: Page) -> None:
    page.wait_for_function("document.querySelector('video').videoWidth > 0")


def running(page: Page) -> None:
    page.click("summary:has-text('Sampling and output')")
    page.fill("[data-path='fps'] input.number", "25")
    page.click(".run")
    page.wait_for_selector(".progress >> text=/^[1-9]/")


def done(page: Page) -> None:
    run(page)
    at(page, 1.4)


def listening(page: Page) -> None:
    run(page)
    page.click(".sound:has-text('Swap') >> nth=0")
    page.wait_for_selector(".verdict strong, .problem")
    at(page, 1.4)


def muted(page: Page) -> None:
    run(page)
    page.click(".sound:has-text('Mute')")
    page.wait_for_selector(".verdict strong, .problem")
    at(page, 1.4)


def compare(page: Page) -> None:
    run(page)
    names = page.locator("#rival option").all_inner_texts()[1:]
    page.select_option("#rival", names[0])
    page.wait_for_selector(".verdict strong, .problem")
    at(page, 3.3)


def options(page: Page) -> None:
    run(page)
    page.check("input[value=box-prompt]")
    page.click("summary:has-text('Options of the method')")
    page.wait_for_selector(".lane:not(:has(.thin)) .lane-name:text-is('wavy moon')")
    at(page, 3.3)


def error(page: Page) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "holiday.mp4"
        path.write_text("This is no video.\n" * 100)
        page.set_input_files("#file", path)
        page.wait_for_selector(".problem")


def jobs(page: Page) -> None:
    run(page)
    page.click("#open-jobs")
    page.wait_for_selector(".job")


STATES: dict[str, Callable[[Page], None]] = {
    "empty": empty,
    "running": running,
    "done": done,
    "listening": listening,
    "muted": muted,
    "compare": compare,
    "options": options,
    "error": error,
    "jobs": jobs,
}
WHOLE = {"listening", "muted", "compare"}  # the pages worth seeing to their end


@contextmanager
def opened(browser: Browser, url: str, scheme: Any, size: tuple[int, int]) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        device_scale_factor=2,
        is_mobile=size == PHONE,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_selector(".run:enabled")
    yield page
    context.close()


def main(folder: Path) -> int:
    program = chromium()
    if program is None:
        print("There is no Chromium: `apt-get install chromium`.", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with Cluster(registry="models.strategies") as cluster, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        for scheme in ("light", "dark"):
            for name, reach in STATES.items():
                with opened(browser, cluster.url, scheme, DESK) as page:
                    reach(page)
                    taken(page, folder / f"{name}-{scheme}.png", name in WHOLE)
            with opened(browser, cluster.url, scheme, PHONE) as page:
                listening(page)
                taken(page, folder / f"phone-{scheme}.png", whole=False)
        browser.close()
    return 0


def taken(page: Page, path: Path, whole: bool) -> None:
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=whole)
    print(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER))
