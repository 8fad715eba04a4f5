"""A visit of the playground, as its tests make them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage

PATIENCE = 60_000  # milliseconds; machines that run tests are busy
DONE = '.stage[data-state="done"]'
REDS = """(least) => {  // of a copy: a canvas that is read becomes a slow one
    const shown = document.querySelector(".pane canvas");
    const { width, height } = shown;
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(shown, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    return data.filter((level, at) => at % 4 === 0 && level > least).length;
}"""
HOLD = """(seconds) => new Promise((resolve) => {
    const video = document.querySelector("video");
    video.pause();
    video.addEventListener("seeked", () => setTimeout(resolve, 200), { once: true });
    video.currentTime = seconds;
})"""


class Visit:
    """A page, and what went wrong in its console; what Chromium logs for a refusal of ours is no error."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.heard)
        self.page.goto(url)
        self.page.wait_for_selector(".run:enabled")

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def run(self) -> None:
        self.page.click(".run")
        self.page.wait_for_selector(f"{DONE}, .problem")
        assert self.page.locator(".problem").all_inner_texts() == []

    def problem(self) -> str:
        return self.page.inner_text(".problem")

    def pick(self, path: Path) -> None:
        self.page.set_input_files("#file", path)

    def lanes(self) -> list[str]:
        return self.page.locator(".lane:not(:has(.thin)) .lane-name").all_inner_texts()[1:]

    def at(self, seconds: float) -> None:
        """Holds the clip at a moment."""
        self.page.evaluate(HOLD, seconds)

    def bright(self, least: int = 240) -> int:
        """How many pixels of the first canvas are as red as an outline, or redder than `least`."""
        return int(self.page.evaluate(REDS, least))
