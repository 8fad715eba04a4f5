"""The evaluator: what an oracle, a deaf model and a model of one noun score, and how a table says it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.acfpn import ACFPN, CONFIG
from models.checkpoints import weights_of, write_safetensors
from models.datasets.ceilings import deaf_ceiling
from models.datasets.layouts import Order, write_layout
from models.datasets.scenes import SynthConfig
from models.media import Window
from models.strategies import FrameMasks, Segmenter
from models.strategies.full_mask import full_mask
from models.strategies.options import FullMaskOptions
from models.training.benches import Bench, folder_bench, synth_bench
from models.training.evaluate import Asked, evaluate, main
from models.training.judging import SUMS, Arm, Counted, Remembering, grouped, judge, window_of
from models.training.metrics import FrameIoU, PerDataset, PerImage
from models.training.scores import ROBUST_PROBES, formulas, gate, scored
from tests.test_training import LEAST

CLIPS = 12
ROBUST = Asked("robust", ROBUST_PROBES)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return synth_bench("test", CLIPS, config=SynthConfig(size=32))


@dataclass(frozen=True)
class Oracle:
    """Knows every answer by heart: pictures and sound together are the question."""

    answers: dict[bytes, np.ndarray]

    @classmethod
    def of(cls, bench: Bench) -> Oracle:
        answers = {}
        for probe in (None, *ROBUST_PROBES):
            clips = bench.clips if probe is None else bench.probe(probe)
            for index in range(len(clips)):
                clip = clips[index]
                answers[question(window_of(clip, {44_100}))] = clip.expected != 0
        return cls(answers)

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        for mask in self.answers.get(
            question(window), np.zeros((len(window.timestamps), *window.size), bool)
        ):
            yield FrameMasks(mask=mask)


def question(window: Window) -> bytes:
    assert window.frames is not None
    return window.frames.tobytes() + window.audio[44_100].tobytes()


@dataclass(frozen=True)
class Deaf:
    """The mutant that hears nothing: its strategy gets zeros for a sound."""

    inner: Segmenter

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        silent = {rate: np.zeros_like(sound) for rate, sound in window.audio.items()}
        return self.inner(replace(window, audio=silent), options)


@dataclass(frozen=True)
class FirstNoun:
    """The mutant that always names one and the same thing in view, whatever sounds."""

    things: dict[bytes, np.ndarray]

    @classmethod
    def of(cls, bench: Bench) -> FirstNoun:
        clips = (bench.clips[index] for index in range(len(bench.clips)))
        return cls({clip.frames.tobytes(): clip.instances == 1 for clip in clips})

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        assert window.frames is not None
        for mask in self.things[window.frames.tobytes()]:
            yield FrameMasks(mask=mask)


def arm(name: str, segmenter: Segmenter) -> Arm:
    return Arm(name, segmenter, FullMaskOptions(), (44_100,))


@pytest.fixture(scope="module")
def robust(bench: Bench) -> dict[str, dict[str, float]]:
    """Every mutant's scores, in one pass."""
    oracle = Oracle.of(bench)
    arms = [
        arm("oracle", oracle),
        arm("deaf", Deaf(oracle)),
        arm("first-noun", FirstNoun.of(bench)),
        arm("full-mask", full_mask),
    ]
    results = evaluate(arms, bench, ROBUST)
    return {
        a.name: {name: score.value for name, score in scores.items()}
        for a, (scores, _) in zip(arms, results, strict=True)
    }


def test_an_oracle_is_perfect_and_passes_the_gate(bench: Bench, robust) -> None:
    scores = robust["oracle"]
    for name in ("mIoU+", "F", "swap-follow IoU", "empty-frame accuracy", "G-mIoU"):
        assert scores[name] == pytest.approx(1, abs=1e-6), name
    for name in ("FPR silence", "FPR noise", "FPR offscreen", "mIoU-"):
        assert scores[name] == 0, name
    assert gate(scores, bench.ceilings()["deaf ceiling"]) == []


def test_the_mutants_fail_the_gate(bench: Bench, robust) -> None:
    deaf = bench.ceilings()["deaf ceiling"]
    assert any("mIoU+ is 0.000" in problem for problem in gate(robust["deaf"], deaf))
    problems = " ".join(gate(robust["first-noun"], deaf))
    for missed in ("mIoU+", "G-mIoU", "FPR silence", "FPR noise", "FPR offscreen"):
        assert missed in problems
    assert gate(dict.fromkeys(robust["oracle"], math.nan), deaf), "what was not measured is not passed"


def test_no_model_without_ears_beats_the_deaf_ceiling(bench: Bench, robust) -> None:
    deaf = bench.ceilings()["deaf ceiling"]
    assert robust["first-noun"]["mIoU+"] <= deaf < 0.75
    assert robust["full-mask"]["mIoU+"] <= deaf
    assert deaf == deaf_ceiling(bench.synth.family(number)[1] for number in range(CLIPS // 3))


def test_the_full_mask_lights_everything(robust) -> None:
    scores = robust["full-mask"]
    assert scores["FPR silence"] == scores["FPR offscreen"] == 1
    assert scores["empty-frame accuracy"] == 0
    assert scores["mIoU-"] == pytest.approx(scores["mIoU+"]), "the same answer to the same pictures"
    p = scores["mIoU+"]
    assert scores["G-mIoU"] == pytest.approx(2 * p * (1 - p)), "as LISTENING has it of a deaf model"


def test_protocols_agree_with_the_metrics(bench: Bench) -> None:
    """Sums of sums are the metrics of metrics.py on all clips together."""
    first = FirstNoun.of(bench)
    (image, _), (whole, _) = (
        evaluate([arm("x", first)], bench, Asked(protocol))[0] for protocol in ("per-image", "per-dataset")
    )
    published, matrix, plain = PerImage(), PerDataset(), FrameIoU()
    for index in range(CLIPS):
        clip = bench.clips[index]
        mask, truth = torch.from_numpy(clip.instances == 1), torch.from_numpy(clip.truth != 0)
        for metric in (published, matrix, plain):
            metric.update(mask, truth)
    for name, value in published.result().items():
        assert image[name].value == pytest.approx(value, abs=1e-6)
    assert image["mIoU+"].value == pytest.approx(plain.result()["mIoU"])
    assert {name: score.value for name, score in whole.items()} == pytest.approx(matrix.result())


def test_intervals_hold_the_value_and_shrink_with_more_clips() -> None:
    rng = np.random.RandomState(0)
    widths = []
    for clips in (30, 480):
        rows = np.ones((clips, len(SUMS)))
        rows[:, 0] = rng.random_sample(clips)
        score = scored({None: Counted(rows, 0.0)}, {"x": formulas("robust", (), follows=True)["mIoU+"]})["x"]
        assert score.low < score.value < score.high
        widths.append(score.high - score.low)
    # A mean of 30 uniform numbers: 2 * 1.96 * 0.2887 / sqrt(30).
    assert widths[0] == pytest.approx(0.207, rel=0.3)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.3)


def test_families_are_drawn_whole() -> None:
    """Neighbours that say the same thing are no evidence of their own."""
    rows = np.ones((60, len(SUMS)))
    rows[:, 0] = np.repeat(np.random.RandomState(1).random_sample(20), 3)
    columns = {"x": formulas("robust", (), follows=True)["mIoU+"]}
    single, family = (scored({None: Counted(rows, 0.0)}, columns, family=f)["x"] for f in (1, 3))
    assert (family.high - family.low) / (single.high - single.low) == pytest.approx(3**0.5, rel=0.15)
    assert grouped(rows, 3).shape == (20, len(SUMS))


def test_only_annotated_frames_are_judged(bench: Bench) -> None:
    clip = bench.clips[0]
    first = replace(clip, annotated=(True, False, False, False, False))
    row = judge([arm("full", full_mask)], [first])[0].rows[0]
    assert row[SUMS.index("pixels")] == 32 * 32


def test_memory_asks_once_a_clip() -> None:
    asked = []

    def double(items: list[int]) -> list[int]:
        asked.append(items)
        return [2 * item for item in items]

    memory = Remembering()
    assert memory(double, [1, 2]) == memory(double, [1, 2]) == [2, 4]
    assert memory(double, [3]) == [6]
    assert asked == [[1, 2], [3]]
    memory.forget()
    memory(double, [1, 2])
    assert len(asked) == 3


# The command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "run.safetensors"
    told = {"fusion": LEAST.fusion, "config": CONFIG.dump_json(LEAST).decode()}
    write_safetensors(path, weights_of(ACFPN(LEAST)), told)
    return path


SMALL = ("--clips", "3", "--size", "32", "--threads", "1", "--device", "cpu")


def test_every_form_of_the_table(tmp_path: Path, trained: Path, capsys) -> None:
    nowhere = ("--weights-dir", str(tmp_path / "empty"))
    ask = ("all", "--data", "synth:test", "--protocol", "robust", "--weights", str(trained))
    assert main([*ask, *SMALL, *nowhere, "--out", str(tmp_path / "out"), "--masks"]) == 0
    text = capsys.readouterr().out
    for said in ("robust", "seed 0", "deaf ceiling", "blind ceiling", "G-mIoU", "swap-follow IoU", "s/clip"):
        assert said in text
    assert text == (tmp_path / "out/report.txt").read_text()
    report = json.loads((tmp_path / "out/report.json").read_text())
    lines = {line["strategy"]: line for line in report["lines"]}
    assert {"ac-fpn", "full-mask"} <= set(lines)
    assert lines["ac-fpn"]["weights"]["ac-fpn"]["id"] == "run.safetensors"
    assert lines["ac-fpn"]["options"]["thresholds"] == {"mask": 0.5}
    assert lines["full-mask"]["scores"]["FPR noise"]["value"] == 1
    assert "| full-mask |" in (tmp_path / "out/report.md").read_text()
    masks = sorted((tmp_path / "out/masks/plain/full-mask").rglob("*.png"))
    assert len(masks) == 15
    with Image.open(masks[0]) as mask:
        assert np.asarray(mask).all()


def test_a_sweep_asks_the_network_once(trained: Path, capsys, monkeypatch) -> None:
    calls = []
    decode = ACFPN.decode

    def counting(self: ACFPN, *arguments: object) -> torch.Tensor:
        calls.append(1)
        return decode(self, *arguments)

    monkeypatch.setattr(ACFPN, "decode", counting)
    ask = ("ac-fpn", "--data", "synth", "--weights", str(trained), *SMALL, "--format", "json")
    assert main([*ask, "--sweep", "thresholds.mask=0,0.5,1"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert [line["options"]["thresholds"]["mask"] for line in lines] == [0, 0.5, 1]
    assert lines[0]["scores"]["mIoU+"]["value"] > lines[2]["scores"]["mIoU+"]["value"] == 0
    assert len(calls) == 3, "one a clip"


def test_the_gate_is_an_exit_code(trained: Path, capsys) -> None:
    ask = ("ac-fpn", "--data", "synth:val", "--protocol", "robust", "--gate", "--weights", str(trained))
    assert main([*ask, *SMALL]) == 1
    assert "Not passed: mIoU+ is" in capsys.readouterr().out


def test_a_folder_of_avsbench(tmp_path: Path, capsys) -> None:
    """On real layouts a swapped sound is a wrong sound, and nothing is known about the deaf."""
    write_layout(tmp_path / "s4", Order("s4", clips=28, size=32, videos=False))
    ask = ("full-mask", "--data", str(tmp_path / "s4"), "--format", "json", "--protocol", "robust")
    assert main([*ask, "--probe", "composite", "--split", "train"]) == 0
    report = json.loads(capsys.readouterr().out)
    scores = report["lines"][0]["scores"]
    assert report["ceilings"] == {} and scores["FPR swap"]["value"] == 1
    assert 0 < scores["mIoU+ composite"]["value"] < scores["mIoU+"]["value"]
    assert len(folder_bench(tmp_path / "s4", None, "train", 2).clips) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody", "--data", "synth"], "There is no strategy 'nobody'; there are all, ac-fpn"),
        (["full-mask", "--data", "synth:nowhere"], "SynthAVS has no split 'nowhere'"),
        (["full-mask", "--data", "/nowhere"], "/nowhere is not a folder."),
        (["full-mask", "--data", "synth", "--probe", "smell"], "There is no probe 'smell'"),
        (["full-mask", "--data", "synth", "--gate"], "The gate needs SynthAVS and the protocol robust."),
        (["ac-fpn", "--data", "synth", "--weights", "/no.safetensors"], "There is no file /no.safetensors."),
        (["ac-fpn", "--data", "synth", "--weights-dir", "/nowhere/at/all"], "ac-fpn"),
        (["full-mask", "--data", "synth", "--sweep", "thresholds.mask=1"], "has no option 'thresholds.mask'"),
        (["full-mask", "--data", "synth", "--set", "mask"], "'mask' is not KEY=VALUE."),
    ],
)
def test_bad_arguments(arguments, said, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("models.weights.TINY_FOLDER", tmp_path)
    code = main([*arguments, "--clips", "3", "--size", "32"])
    if said == "ac-fpn" and code == 0:
        pytest.skip("the shipped network is installed")
    assert code == 2
    assert said in capsys.readouterr().err


def test_an_option_out_of_its_range(trained: Path, capsys) -> None:
    ask = ("ac-fpn", "--data", "synth", "--weights", str(trained), *SMALL)
    assert main([*ask, "--set", "thresholds.mask=2"]) == 2
    assert "The option thresholds.mask cannot be 2" in capsys.readouterr().err
