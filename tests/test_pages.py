"""What is served at `/`: the page for browsers, addresses for programs, and nothing that is no part of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from models.datasets.kinds import CLASS_NAMES
from models.media import Media, probe
from service.app import create_app
from service.pages import PLAYGROUND, SAMPLES
from service.settings import Settings

SOURCES = sorted([*PLAYGROUND.glob("*.js"), *PLAYGROUND.glob("*.html"), *PLAYGROUND.glob("*.css")])
LISTED = json.loads((SAMPLES / "samples.json").read_text())


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    """Without its lifespan: files need neither Redis nor a worker."""
    app: FastAPI = create_app(Settings())
    yield TestClient(app)


def test_browsers_get_the_page_and_programs_addresses(page: TestClient) -> None:
    html = page.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert "<title>Earshot" in html.text
    assert page.get("/").json()["strategies"] == "/v1/strategies"
    assert {html.headers["vary"], page.get("/").headers["vary"]} == {"Accept, Accept-Encoding", "Accept"}


def test_the_policy_lets_in_nothing_inline_and_nothing_from_elsewhere(page: TestClient) -> None:
    for path in ("/playground/app.js", "/playground/style.css", "/samples/turns.mp4"):
        policy = page.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert page.get("/", headers={"Accept": "text/html"}).headers["content-security-policy"] == policy


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_nothing_is_inline_or_comes_from_elsewhere(source: Path) -> None:
    text = source.read_text()
    assert re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w+/", text) == []
    if source.suffix == ".html":
        assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", text) == []


def test_what_a_browser_has_is_not_sent_again(page: TestClient) -> None:
    first = page.get("/playground/app.js")
    again = page.get("/playground/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, first.headers["cache-control"]) == (200, 304, "no-cache")


@pytest.mark.parametrize(
    "path",
    ["/samples/synth.py", "/samples/__init__.py", "/samples/../app.py", "/playground/../app.py", "/samples/"],
)
def test_programs_and_folders_are_not_served(page: TestClient, path: str) -> None:
    answer = page.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/playground/app.js", "/samples/samples.json"])
def test_texts_are_packed_for_who_takes_it(page: TestClient, path: str) -> None:
    plain, packed = (
        page.get(path, headers={"Accept": "text/html", "Accept-Encoding": how})
        for how in ("identity", "gzip")
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


def test_clips_are_sent_as_they_are(page: TestClient) -> None:
    assert "content-encoding" not in page.get("/samples/turns.mp4").headers


@pytest.mark.parametrize("sample", LISTED["data"], ids=lambda sample: sample["name"])
def test_every_sample_is_whole(sample: dict) -> None:
    video = probe(Media(video=SAMPLES / sample["file"]))
    assert (video.duration, video.width, video.height) == (5.0, 320, 320)
    assert set(sample["labels"]) <= set(CLASS_NAMES)
    assert (SAMPLES / sample["poster"]).exists()
    for sound in [*sample["sounds"], {"file": LISTED["silence"]}]:
        swapped = probe(Media(video=SAMPLES / sample["file"], audio=SAMPLES / sound["file"]))
        assert swapped.has_audio
