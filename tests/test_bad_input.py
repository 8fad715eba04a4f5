"""What makes no sense, and clips in which there is nothing: over HTTP through the real service, and asked of
the strategies themselves. A problem that points at the option, or an empty mask with its reason.

The networks are the tiny ones, untrained: what they answer means nothing, that they answer does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter

from models.networks import Networks
from models.strategies import STRATEGIES, FrameMasks
from models.strategies.box_prompt import UNNAMED
from models.strategies.gate import SILENT
from models.strategies.no_prompt import NO_OBJECT
from models.strategies.options import LABEL_CHARACTERS, MOST_LABELS
from models.vocabularies import vocabulary
from models.weights import Weights
from service.masks import grey_png, read_mask
from service.settings import Settings
from service.worker import Worker
from tests.api import Api, is_problem
from tests.clips import Sound, clip_bytes
from tests.tiny_networks import tiny_networks, window

SIZE = (64, 48)  # width, height
LISTENING = [name for name, strategy in STRATEGIES.items() if strategy.audio_rates]
EVERY = [(name, preset) for name in STRATEGIES for preset in ("best", "paper")]
FEW_POINTS = {"no-prompt": {"points_per_side": 3}}
SOUNDLESS = ("no audio track", "silent audio")
AWKWARD = (*SOUNDLESS, "one frame", "one colour")
NO_SOUND = "The clip has no sound; it was treated as silent."
DEAF = {"gate": {"noise": False}}  # untrained networks hear noise in anything
OPEN = {name: {"gate": {"enabled": False}} for name in LISTENING if name not in ("ac-fpn", "tpavi")}
Parts = list[tuple[str, tuple[str, bytes]]]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return tiny_networks(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_server: Any, networks: Networks) -> Iterator[Api]:
    def untrained(settings: Settings) -> Worker:
        worker = Worker(settings)
        worker.loaded.weights = Weights(settings.weights_dir, tiny=networks.weights.tiny)
        return worker

    folder = tmp_path_factory.mktemp("service")
    with Api(folder, redis_server.url, untrained, weights_dir=folder / "none", torch_threads=1) as service:
        assert service.worker.loaded.refusals == {}
        yield service


@pytest.fixture(scope="module")
def clips(service: Api) -> Mapping[str, str]:
    """Awkward ones by name, uploaded once: the worker keeps what it has decoded."""
    sound = clip_bytes(2, video=False, audio=Sound(codec="pcm_s16le"), container="wav")
    parts: Mapping[str, Parts] = {
        "no audio track": [media(clip_bytes(2, SIZE, fps=10, audio=False))],
        "silent audio": [media(clip_bytes(2, SIZE, fps=10, audio=Sound(gain=0)))],
        "one frame": pictures(sound, 2),
        "one colour": pictures(sound, 1, 1),
        "sliver": [
            ("frames[]", ("0.png", grey_png(np.full((1, 1000), 90, np.uint8)))),
            ("audio", ("sound.wav", sound)),
        ],
        "ordinary": [media(clip_bytes(2, SIZE, fps=10))],
    }
    sent = {kind: service.http.post("/v1/uploads", files=files) for kind, files in parts.items()}
    return {kind: response.json()["upload_id"] for kind, response in sent.items()}


def media(clip: bytes) -> tuple[str, tuple[str, bytes]]:
    return "media", ("clip.mp4", clip)


def pictures(sound: bytes, *colours: int) -> Parts:
    """A PNG of stripes in so many colours for each frame, and a sound."""
    frames = []
    for index, count in enumerate(colours):
        pixels = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        pixels[:, ::2] = 90 * count
        frames.append(("frames[]", (f"{index}.png", grey_png(pixels))))
    return [*frames, ("audio", ("sound.wav", sound))]


def post(service: Api, strategy: str, upload: str, **params: Any) -> httpx.Response:
    given = {**FEW_POINTS.get(strategy, {}), **params, "upload_id": upload}
    return service.http.post(f"/v1/segment/{strategy}", json=given)


def frames_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return response.json()["frames"]


def is_empty(frame: dict[str, Any], reason: str) -> bool:
    """Whether the mask is one of zeros, for this reason."""
    return not read_mask(frame["mask"]).any() and (frame["area"], frame.get("reason")) == (0, reason)


def run(networks: Networks, name: str, preset: str, clip: Any) -> list[FrameMasks]:
    strategy = STRATEGIES[name]
    options = replace(strategy.presets[preset], **FEW_POINTS.get(name, {}))
    return list(import_module(strategy.module).build(networks)(clip, options))


# --- options

TOO_MUCH = {
    "no word": ("box-prompt", {"labels": [""]}, "/labels/0", "Name something"),
    "only marks": ("box-prompt", {"labels": ["dog", " ?!"]}, "/labels/1", "Name something"),
    "unknown": ("box-prompt", {"vocabulary": "avsbench", "labels": ["dog barkin"]}, "/", "'dog barking'"),
    "10,000 characters": (
        "box-prompt",
        {"labels": ["x" * 10_000]},
        "/labels/0",
        f"at most {LABEL_CHARACTERS} characters",
    ),
    "1,001 labels": (
        "box-prompt",
        {"labels": [f"thing {index}" for index in range(MOST_LABELS + 1)]},
        "/labels",
        f"at most {MOST_LABELS} items",
    ),
    "caption of 10,000 characters": (
        "box-prompt",
        {"prompt": "caption", "captions": ["x" * 10_000]},
        "/captions/0",
        "at most 200 characters",
    ),
}
OUTSIDE = {
    "ac-fpn": {"thresholds.mask": (-0.1, 1.1), "unevenness": (-0.1, 11)},
    "tpavi": {"thresholds.mask": (-0.1, 1.1), "unevenness": (-0.1, 11)},
    "box-prompt": {
        "thresholds.box": (-0.1, 1.1),
        "thresholds.audio": (-1.1, 1.1),
        "nms": (-0.1, 1.1),
        "gate.agreement": (-1.1, 1.1),
    },
    "heatmap-box-prompt": {"thresholds.heatmap": (-0.1, 1.1), "gate.energy": (-121, 1)},
    "point-prompt": {"thresholds.heatmap": (-0.1, 1.1), "gate.unevenness": (-0.1, 11)},
    "no-prompt": {
        "thresholds.quality": (-0.1, 1.1),
        "thresholds.stability": (-0.1, 1.1),
        "thresholds.overlap": (-0.1, 1.1),
        "thresholds.score": (-1.1, 1.1),
    },
}
OUT_OF_RANGE = [
    (name, option, value)
    for name, options in OUTSIDE.items()
    for option, (low, high) in options.items()
    for value in (low, high, "nan", "inf", "much", "")
]


@pytest.mark.parametrize(("strategy", "params", "pointer", "complaint"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_labels_that_make_no_sense_are_pointed_at(
    service: Api, clips: Mapping[str, str], strategy: str, params: Any, pointer: str, complaint: str
) -> None:
    document = is_problem(post(service, strategy, clips["ordinary"], **params), 422, "invalid_option")
    assert document["errors"][0]["pointer"] == pointer
    assert complaint in document["errors"][0]["message"]
    assert len(document["detail"]) < 1000


@pytest.mark.parametrize(("strategy", "option", "value"), OUT_OF_RANGE)
def test_a_threshold_out_of_range_is_pointed_at(
    service: Api, clips: Mapping[str, str], strategy: str, option: str, value: Any
) -> None:
    data = {"upload_id": clips["ordinary"], option: str(value)}
    response = service.http.post(f"/v1/segment/{strategy}", data=data)
    document = is_problem(response, 422, "invalid_option")
    assert document["errors"][0]["pointer"] == "/" + option.replace(".", "/")


def test_every_threshold_is_tried() -> None:
    """All numbers of the options that lie between two bounds and are no counts."""
    for name, strategy in STRATEGIES.items():
        schema = TypeAdapter(strategy.options).json_schema()
        tried = {option.rpartition(".")[2] for option in OUTSIDE.get(name, {})}
        tried |= {"energy", "unevenness", "agreement"}  # of the gate, which they share
        objects = [schema, *schema.get("$defs", {}).values()]
        assert {
            option
            for each in objects
            for option, field in each.get("properties", {}).items()
            for choice in (field, *field.get("anyOf", ()))
            if choice.get("type") == "number"
        } <= tried


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"labels": "dog"}, "/labels: Input should be a list, in JSON"),
        ({"labels": None}, "/labels: Input should be a list, in JSON"),
        ({"thresholds": 3}, "/thresholds: Input should be an object."),
        ({"labels": ["x"] * (MOST_LABELS + 1)}, "/labels: A list should have at most 1000 items"),
    ],
)
def test_refusals_speak_of_json(service: Api, clips: Mapping[str, str], params: Any, complaint: str) -> None:
    document = is_problem(post(service, "box-prompt", clips["ordinary"], **params), 422, "invalid_option")
    assert document["detail"].startswith(complaint)


@pytest.mark.parametrize("form", ["fields", "lines"])
def test_a_thousand_labels_fit_into_a_form(service: Api, clips: Mapping[str, str], form: str) -> None:
    labels = [f"thing {index}" for index in range(MOST_LABELS)]
    data: dict[str, Any] = {"upload_id": clips["ordinary"], "gate.noise": "false"}
    data["labels"] = labels if form == "fields" else "\n".join(labels)
    frames_of(service.http.post("/v1/segment/box-prompt", data=data))


@pytest.mark.parametrize("recogniser", ["clap", "audioclip"])
def test_a_thousand_labels_are_answered(service: Api, clips: Mapping[str, str], recogniser: str) -> None:
    labels = [f"thing {index}" for index in range(MOST_LABELS)]
    response = post(service, "box-prompt", clips["ordinary"], labels=labels, recogniser=recogniser, **DEAF)
    for frame in frames_of(response):
        assert {each["label"] for each in frame["instances"]} <= set(labels)
        assert frame["area"] > 0 or frame["reason"]


def test_a_label_too_long_for_the_recogniser_is_named(service: Api, clips: Mapping[str, str]) -> None:
    """No schema knows how many tokens a text has: the worker says it."""
    label = "very " * 19 + "long"
    response = post(service, "box-prompt", clips["ordinary"], labels=[label], recogniser="audioclip")
    assert "tokens; 77 fit" in is_problem(response, 422, "invalid_option")["detail"]


def test_labels_that_nobody_knows_are_answered(service: Api, clips: Mapping[str, str]) -> None:
    """Without a vocabulary any word is a name."""
    for frame in frames_of(post(service, "box-prompt", clips["ordinary"], labels=["qzxv", "犬"])):
        assert frame["area"] > 0 or frame["reason"]


def test_no_labels_are_those_that_the_recogniser_learnt(service: Api, clips: Mapping[str, str]) -> None:
    response = post(service, "box-prompt", clips["ordinary"], labels=[], thresholds={"box": 1}, **DEAF)
    for frame in frames_of(response):
        assert any(f"heard: {name}." in frame["reason"] for name in vocabulary("synthavs"))


# --- clips


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_awkward_clips_are_answered(service: Api, clips: Mapping[str, str], name: str, preset: str) -> None:
    """Empty for a reason, or not empty and without one; never a failure."""
    for kind in AWKWARD:
        response = post(service, name, clips[kind], preset=preset)
        frames = frames_of(response)
        assert len(frames) == (1 if kind == "one frame" else 2)
        for frame in frames:
            assert frame["mask"]["size"] == [SIZE[1], SIZE[0]]
            assert read_mask(frame["mask"]).any() == ("reason" not in frame) == (frame["area"] > 0)
            if preset == "best" and name in LISTENING and kind in SOUNDLESS:
                assert is_empty(frame, SILENT)
        warned = kind == "no audio track" and name in LISTENING
        assert response.json()["warnings"] == ([NO_SOUND] if warned else [])


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_slivers_are_answered(service: Api, clips: Mapping[str, str], name: str, preset: str) -> None:
    """A pixel by a thousand: scaled to the size of a network, its short side would be none at all."""
    (frame,) = frames_of(post(service, name, clips["sliver"], preset=preset, **OPEN.get(name, {})))
    assert frame["mask"]["size"] == [1, 1000]
    assert read_mask(frame["mask"]).any() == ("reason" not in frame)
    assert all(read_mask(each["mask"]).any() for each in frame["instances"])


def test_what_nobody_finds_is_empty(service: Api, clips: Mapping[str, str]) -> None:
    clip = clips["ordinary"]
    for frame in frames_of(post(service, "box-prompt", clip, labels=["dog"], thresholds={"box": 1}, **DEAF)):
        assert is_empty(frame, "Nothing in the frame looks like what is heard: dog.")
    for frame in frames_of(post(service, "box-prompt", clip, thresholds={"audio": 1}, **DEAF)):
        assert is_empty(frame, UNNAMED)
    for frame in frames_of(post(service, "no-prompt", clip, thresholds={"quality": 1})):
        assert is_empty(frame, NO_OBJECT)


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_strategies_answer_awkward_windows(networks: Networks, name: str, preset: str) -> None:
    """The same, asked without a service."""
    black, white = np.zeros((1, 40, 50, 3), np.uint8), np.full((2, 40, 50, 3), 255, np.uint8)
    for clip in (window(0.0, 0.0), window(0.5), window(0.5, pixels=black), window(0.5, 0.4, pixels=white)):
        answers = run(networks, name, preset, clip)
        assert [answer.mask.shape for answer in answers] == [clip.size] * len(clip.indices)
        for answer in answers:
            assert answer.mask.any() == (answer.reason is None)
            if preset == "best" and name in LISTENING and not clip.has_audio:
                assert answer.reason == SILENT
