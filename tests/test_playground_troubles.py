"""The playground where something is wrong: it says what happened and what to do, and stays usable."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from service.pages import SAMPLES
from tests import browser
from tests.browser.visit import DONE, Visit
from tests.clips import Picture, Sound, make_clip
from tests.cluster import Cluster, until

pytestmark = browser.NEEDED


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(registry="tests.page_strategies") as cluster:
        yield cluster


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
    assert one.lanes() == ["nothing lit"]
    one.page.set_input_files("#sound-file", SAMPLES / "trio-b.m4a")
    one.page.wait_for_selector(".verdict strong")
    assert "trio-b.m4a" in one.page.inner_text("figcaption >> nth=1")


def test_a_sound_that_is_none_is_refused_as_a_sound(visit, tmp_path) -> None:
    path = tmp_path / "song.wav"
    path.write_text("no song")
    one = visit()
    one.run()
    one.page.set_input_files("#sound-file", path)
    one.page.wait_for_selector(".problem >> text=Choose another sound")
    one.page.click(".problem >> text=Dismiss")
    one.page.click(".sound:has-text('Its own sound')")
    assert one.lanes()


def test_a_clip_that_the_browser_cannot_play_is_segmented_all_the_same(visit, tmp_path) -> None:
    path = tmp_path / "old.avi"
    make_clip(path, seconds=2, size=(64, 48), fps=10, video=Picture(codec="mpeg4"), audio=Sound(codec="mp3"))
    one = visit()
    one.pick(path)
    one.page.wait_for_selector("text=Your browser cannot play this clip.")
    assert one.bright(32) == 0, "nothing of the clip before is left on the stage"
    one.run()
    assert one.lanes()
    with one.page.expect_download() as download:
        one.page.click(".downloads >> text=Overlay")
    assert download.value.path().read_bytes()[4:8] == b"ftyp"


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


@pytest.fixture
def forgetful() -> Iterator[Cluster]:
    """Keeps results for a few seconds."""
    with Cluster(registry="tests.page_strategies", result_ttl=4, sweep_seconds=0.5) as cluster:
        yield cluster


def test_a_result_that_has_expired(forgetful, chromium) -> None:
    context = chromium.new_context()
    one = Visit(context, forgetful.url)
    one.run()
    job = forgetful.http.get("/v1/jobs?limit=1").json()["data"][0]["id"]
    assert until(lambda: forgetful.http.get(f"/v1/jobs/{job}/result").status_code == 410, 30, every=0.2)
    one.page.click(".downloads >> text=COCO")
    one.page.wait_for_selector(".problem")
    assert "Run it again." in one.problem()
    one.page.click(".problem >> text=Try again")
    one.page.wait_for_selector(DONE)
    assert one.errors == []
    context.close()


LIT = f"{DONE} ~ .timeline .lane-name:text-is('sounding')"


def slow_run(one: Visit) -> None:
    one.page.check("input[value=slow]")
    one.page.click("summary:has-text('Sampling and output')")
    one.page.fill("[data-path='fps'] input.number", "2")
    one.page.click(".run")
    one.page.wait_for_selector(".progress >> text=of 10 frames")


def restart(cluster: Cluster) -> None:
    cluster.start_api()
    assert until(cluster.ready, 60) is not None


def kill_api(cluster: Cluster) -> None:
    assert cluster.api is not None
    cluster.api.kill()
    cluster.api.wait()


def test_a_run_goes_on_when_the_service_is_soon_back(cluster, visit) -> None:
    one = visit()
    slow_run(one)
    kill_api(cluster)
    restart(cluster)
    one.page.wait_for_selector(LIT)


def test_the_service_goes_in_the_middle_of_a_run_and_comes_back(cluster, visit) -> None:
    one = visit()
    slow_run(one)
    kill_api(cluster)
    one.page.wait_for_selector(".problem")
    assert "does not answer" in one.problem()
    restart(cluster)
    one.page.wait_for_selector(".problem", state="detached")
    one.page.wait_for_selector(LIT)  # the run was taken up again
    one.page.check("input[value=lit]")
    one.run()
    assert set(one.lanes()) == {"first", "second"}
