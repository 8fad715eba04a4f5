"""The playground in a real browser, against a real service: what a visitor does, and what can go wrong."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.masks import to_rle
from service.pages import SAMPLES
from tests import browser
from tests.clips import make_clip
from tests.cluster import Cluster, until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if browser.chromium() is None:
    pytest.skip("there is no Chromium: `apt-get install chromium`", allow_module_level=True)

PATIENCE = 60_000  # milliseconds; machines that run tests are busy
FIRST_LOAD = 200_000  # bytes: everything that is sent until the page is still, the first clip too
INTERACTIVE = 1000  # milliseconds
DONE = '.stage[data-state="done"]'


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(registry="tests.page_strategies") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)
        yield opened
        opened.close()


class Visit:
    """A page, and what its console said. `refused` errors are those that Chromium logs for a 4xx of ours."""

    def __init__(self, context, url: str) -> None:
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.heard)
        self.page.goto(url)
        self.page.wait_for_selector(".run:enabled")

    def heard(self, message) -> None:
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

    def bright(self) -> int:
        """How many pixels of the first canvas are as red as an outline."""
        return self.page.evaluate("""() => {
            const canvas = document.querySelector(".pane canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.filter((level, at) => at % 4 === 0 && level > 240).length;
        }""")


@pytest.fixture
def visit(cluster: Cluster, chromium) -> Iterator[Callable[..., Visit]]:
    """Opens the page, in a fresh profile; at the end nothing must have gone wrong in its console."""
    contexts, visits = [], []

    def opened(width: int = 1280, height: int = 860, **more) -> Visit:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **more))
        visits.append(Visit(contexts[-1], cluster.url))
        return visits[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [error for one in visits for error in one.errors] == []


def test_the_first_load_is_small_and_soon_there(cluster, chromium) -> None:
    """Each visit is a first one. Of the times the shortest counts: the cores are shared with other tests."""
    for _ in range(8):
        size, when = first_load(chromium, cluster.url)
        assert size < FIRST_LOAD
        if when < INTERACTIVE:
            break
    assert when < INTERACTIVE


RUN_ENABLED = """
    const look = () => {
        if (document.querySelector(".run:enabled")) window.interactive = performance.now();
        else requestAnimationFrame(look);
    };
    look();
"""


def first_load(chromium, url: str) -> tuple[int, float]:
    """Bytes on the wire, headers included, and milliseconds until Run can be pressed."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.add_init_script(RUN_ENABLED)
    page = context.new_page()
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    sizes: list[int] = []
    wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(url)
    page.wait_for_function("() => window.interactive")
    when = page.evaluate("window.interactive")
    page.wait_for_load_state("networkidle")
    context.close()
    return sum(sizes), when


def test_from_a_sample_to_masks_and_the_line_that_does_the_same(cluster, visit, tmp_path) -> None:
    one = visit()
    one.page.click(".clip:has-text('One of three')")
    one.run()
    assert one.lanes() == ["third"]
    assert until(lambda: one.page.evaluate("document.querySelector('video').currentTime") > 0.2, 20)
    assert one.bright() > 100, "the outline is on the picture"
    with one.page.expect_download() as download:
        one.page.click("text=RLE JSON")
    saved = json.loads(download.value.path().read_text())
    assert [frame["sounding"] for frame in saved["frames"]] == [True] * 5
    line = one.page.inner_text("#code")
    assert f"{cluster.url}/v1/segment/lit" in line
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-ec", line], cwd=tmp_path, capture_output=True, text=True, check=True)
        again = json.loads(done.stdout)
        assert [frame["mask"] for frame in again["frames"]] == [frame["mask"] for frame in saved["frames"]]
    one.page.click("#open-jobs")
    with one.page.expect_download(timeout=60_000) as download:
        one.page.click(".job.succeeded >> text=Overlay")
    assert download.value.path().read_bytes()[4:8] == b"ftyp"


def test_only_what_differs_from_the_defaults_is_sent(visit) -> None:
    one = visit()
    sent = []
    one.page.on("request", lambda request: sent.append(request) if request.url.endswith("/v1/jobs") else None)
    one.page.click("summary:has-text('Options of the method')")
    one.page.click("summary:has-text('Sampling and output')")
    one.page.fill("[data-path='fps'] input.number", "2")
    one.page.click("[data-path='points'] label:has-text('local')")
    one.page.click("[data-path='thresholds.heatmap'] [role=switch]")
    one.page.fill("[data-path='thresholds.heatmap'] input.number", "0.7")
    one.page.click("[data-path='gate.noise'] [role=switch]")
    one.page.click("[data-path='outputs.heatmap'] [role=switch]")
    one.page.fill("[data-path='metadata'] textarea", '{"ref": "abc"}')
    one.run()
    document = json.loads(sent[0].post_data)
    document.pop("upload_id")
    assert document == {
        "strategy": "lit",
        "fps": 2,
        "points": "local",
        "thresholds": {"heatmap": 0.7},
        "gate": {"noise": False},
        "outputs": {"heatmap": True},
        "metadata": {"ref": "abc"},
    }
    words = shlex.split(one.page.inner_text("#code").replace("\\\n", " "))
    assert {"fps=2", "thresholds.heatmap=0.7", "gate.noise=false", "points=local"} <= set(words)
    one.page.click("text=Heat map")
    assert until(lambda: one.page.evaluate("document.querySelector('[data-path=\"fps\"]').isConnected"), 20)


def test_muted_the_masks_go_and_the_reason_is_told(visit) -> None:
    one = visit()
    one.page.click(".sound:has-text('Mute')")
    one.page.wait_for_selector(".verdict strong")
    assert one.page.inner_text(".verdict strong") == "0 %"
    assert one.page.locator(".pane").count() == 2
    assert "silent" in one.lanes()
    assert "There is no sound in this second." in one.page.inner_text(".pane >> nth=1")
    line = one.page.inner_text("#code")
    assert "video=@turns.mp4" in line
    assert "audio=@silence.wav" in line
    one.page.click(".sound:has-text('Its own sound')")
    assert one.page.locator(".pane").count() == 1


def test_another_sound_moves_the_masks(visit) -> None:
    one = visit()
    one.page.click(".clip:has-text('One of three')")
    one.page.click(".sound:has-text('Swap') >> nth=0")
    one.page.wait_for_selector(".verdict strong")
    assert one.page.inner_text(".verdict strong") == "0 %"
    assert one.lanes() == ["third", "first"]
    assert one.page.evaluate("document.querySelector('video').muted"), "the swapped sound is heard instead"


def test_two_methods_side_by_side(visit) -> None:
    one = visit()
    one.page.select_option("#rival", "full-mask")
    one.page.wait_for_selector(".verdict strong")
    assert "overlap (IoU)" in one.page.inner_text(".verdict")
    assert one.page.locator("figcaption").all_inner_texts() == [
        "lit",
        "full-mask",
    ]


@pytest.mark.parametrize(
    ("content", "title"),
    [(b"this is no video " * 50, "not supported"), (b"", "cannot be decoded")],
    ids=["text", "empty"],
)
def test_a_file_that_is_no_clip_is_refused_in_words_and_the_page_goes_on(
    visit, tmp_path, content, title
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    one = visit()
    one.pick(path)
    one.page.wait_for_selector(".problem")
    assert title in one.problem()
    one.page.click(".problem >> text=Dismiss")
    one.page.click(".clip:has-text('Taking turns')")
    one.run()
    assert one.lanes()


def test_a_clip_without_sound_says_so_and_takes_one(visit, tmp_path) -> None:
    path = tmp_path / "quiet.mp4"
    make_clip(path, seconds=2, size=(64, 48), fps=10, audio=False)
    one = visit()
    one.pick(path)
    one.page.wait_for_selector("text=This clip has no sound")
    one.run()
    assert one.lanes() == ["silent"]
    one.page.set_input_files(".sounds input[type=file]", SAMPLES / "trio-b.m4a")
    one.page.wait_for_selector(".verdict strong")
    assert "trio-b.m4a" in one.page.inner_text("figcaption >> nth=1")


def test_a_run_can_be_stopped(cluster, visit) -> None:
    one = visit()
    one.page.check("input[value=slow]")
    one.page.click("summary:has-text('Sampling and output')")
    one.page.fill("[data-path='fps'] input.number", "20")
    one.page.click(".run")
    one.page.wait_for_selector(".progress >> text=of 100 frames")
    one.page.click(".cancel")
    one.page.wait_for_selector("text=Stopped.")
    newest = cluster.http.get("/v1/jobs?limit=1").json()["data"][0]
    assert (newest["strategy"], newest["status"]) == ("slow", "canceled")


def test_a_job_that_was_deleted_meanwhile(cluster, visit) -> None:
    one = visit()
    one.run()
    for job in cluster.http.get("/v1/jobs?limit=100").json()["data"]:
        cluster.http.delete(f"/v1/jobs/{job['id']}")
    one.page.click("text=COCO")
    one.page.wait_for_selector(".problem")
    assert "no such job" in one.problem()
    one.page.click(".problem >> text=Try again")
    one.page.wait_for_selector(DONE)


def test_a_missing_method_says_how_it_is_installed(visit) -> None:
    one = visit()
    one.page.check("input[value=tpavi]")
    assert "python -m service weights import" in one.page.inner_text(".strategy:has(:checked)")
    assert one.page.is_disabled(".run")


def test_a_key_is_asked_for_and_used(visit) -> None:
    one = visit()
    refusal = {"title": "A valid API key is needed", "detail": "Send your key.", "code": "unauthorized"}

    def guarded(route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(refusal))

    one.page.route("**/v1/**", guarded)
    one.page.click(".run")
    one.page.fill("#key-field", "secret")
    one.page.click("dialog >> text=Use it")
    one.run()
    assert "EARSHOT_KEY" in one.page.inner_text("#code")


def test_on_a_phone_nothing_sticks_out(visit) -> None:
    one = visit(390, 844, device_scale_factor=2, has_touch=True, is_mobile=True)
    one.page.click(".big")
    one.page.wait_for_selector(DONE)
    one.page.click(".sound:has-text('Mute')")
    one.page.wait_for_selector(".verdict strong")
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_by_keyboard_alone(visit) -> None:
    one = visit()
    one.page.focus("body")
    one.page.keyboard.press("r")
    one.page.wait_for_selector(DONE)
    one.page.focus(".seek")
    before = one.page.evaluate("document.querySelector('video').currentTime")
    one.page.keyboard.press("End")
    assert one.page.evaluate("document.querySelector('video').currentTime") > before
    assert re.fullmatch(r"\d\.\d s of 5\.0 s", one.page.get_attribute(".seek", "aria-valuetext"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, tmp_path, scheme: str) -> None:
    if not browser.AXE.exists():
        pytest.skip("axe-core is not here: `python -m tests.browser` fetches it")
    one = visit(color_scheme=scheme, reduced_motion="reduce")
    one.page.evaluate(browser.AXE.read_text())
    judged(one, "empty")
    one.page.click("summary:has-text('Options of the method')")
    one.page.click("summary:has-text('Sampling and output')")
    one.page.click(".sound:has-text('Mute')")
    one.page.wait_for_selector(".verdict strong")
    judged(one, "two takes")
    one.page.click("#open-jobs")
    one.page.wait_for_selector(".job")
    judged(one, "jobs")
    one.page.keyboard.press("Escape")
    (tmp_path / "no.mp4").write_text("no")
    one.pick(tmp_path / "no.mp4")
    one.page.wait_for_selector(".problem")
    judged(one, "problem")


def judged(one: Visit, state: str) -> None:
    found = one.page.evaluate("axe.run()")["violations"]
    grave = [
        f"{state}: {finding['id']} at {[node['target'] for node in finding['nodes']]}"
        for finding in found
        if finding["impact"] in {"serious", "critical"}
    ]
    assert grave == []


def test_run_lengths_are_read_as_they_were_written(visit) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((7, 11)) < 0.5, np.zeros((3, 5), bool), np.ones((3, 5), bool)]
    large = np.zeros((1200, 2000), bool)
    large[300:900, 400:1700] = True
    one = visit()
    for mask in [*masks, large]:
        decoded = one.page.evaluate(
            "async (mask) => { const { pixelsOf } = await import('/playground/rle.js');"
            "const found = pixelsOf(mask); let at = []; found.forEach((set, i) => { if (set) at.push(i); });"
            "return [found.length, at.length, at.reduce((sum, one) => (sum * 31 + one) % 1000003, 0)]; }",
            to_rle(mask),
        )
        places = np.flatnonzero(mask).tolist()
        expected = 0
        for place in places:
            expected = (expected * 31 + place) % 1_000_003
        assert decoded == [mask.size, len(places), expected]


def test_the_service_goes_and_comes_back(cluster, visit) -> None:
    """Last: it takes the API away from the others."""
    one = visit()
    assert cluster.api is not None
    cluster.api.kill()
    cluster.api.wait()
    one.page.click(".run")
    one.page.wait_for_selector(".problem")
    assert "does not answer" in one.problem()
    cluster.start_api()
    assert until(cluster.ready, 60) is not None
    one.page.wait_for_selector(".problem", state="detached")
    one.run()
    assert one.lanes()
