"""The evaluator: what an oracle, a deaf model and a model of one noun score, and how a table says it."""

from __future__ import annotations

import argparse
import errno
import json
import math
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.acfpn import ACFPN, CONFIG
from models.batching import Batcher
from models.checkpoints import weights_of, write_safetensors
from models.datasets.ceilings import deaf_ceiling
from models.datasets.kinds import CLASS_NAMES
from models.datasets.layouts import Order, write_layout
from models.datasets.scenes import SynthConfig
from models.errors import InvalidOption
from models.networks import Networks
from models.strategies import STRATEGIES
from models.strategies.full_mask import full_mask
from models.strategies.options import DetectionThresholds
from models.suppliers import Prompt
from models.training import gate
from models.training.arms import settings
from models.training.benches import Bench, folder_bench, synth_bench
from models.training.evaluate import Asked, evaluate, main
from models.training.judging import SUMS, Arm, Counted, grouped, judge
from models.training.metrics import FrameIoU, PerDataset, PerImage
from models.training.remembering import Remembering, content
from models.training.scores import ROBUST_PROBES, Score, formulas, scored
from models.training.tables import Line, Report
from tests.mutants import Deaf, FirstNoun, Oracle, arm
from tests.test_training import LEAST
from tests.tiny_networks import tiny_networks

CLIPS = 12
ROBUST = Asked("robust", ROBUST_PROBES)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return synth_bench("test", CLIPS, config=SynthConfig(size=32))


@pytest.fixture(scope="module")
def measured(bench: Bench) -> dict[str, dict[str, Score]]:
    """Every mutant's scores, in one pass."""
    oracle = Oracle.of(bench)
    arms = [
        arm("oracle", oracle),
        arm("deaf", Deaf(oracle)),
        arm("first-noun", FirstNoun.of(bench)),
        arm("full-mask", full_mask),
    ]
    results = evaluate(arms, bench, ROBUST, Remembering())
    return {a.name: scores for a, (scores, _) in zip(arms, results, strict=True)}


@pytest.fixture(scope="module")
def robust(measured) -> dict[str, dict[str, float]]:
    """Without the intervals."""
    return {
        name: {score: value.value for score, value in scores.items()} for name, scores in measured.items()
    }


def report_of(bench: Bench, **lines: dict[str, Score]) -> Report:
    """A report in which strategies (underscores for dashes) have these scores."""
    return Report(
        protocol="robust",
        note="",
        data=bench.data,
        split=bench.split,
        clips=CLIPS,
        seed=0,
        probes=ROBUST_PROBES,
        lines=[Line(name.replace("_", "-"), "best", {}, {}, scores, 0.0) for name, scores in lines.items()],
        ceilings=bench.ceilings(),
    )


def test_an_oracle_is_perfect_and_passes_the_gate(bench: Bench, robust, measured) -> None:
    scores = robust["oracle"]
    for name in ("mIoU+", "F", "swap-follow IoU", "empty-frame accuracy", "G-mIoU"):
        assert scores[name] == pytest.approx(1, abs=1e-6), name
    for name in ("FPR silence", "FPR noise", "FPR offscreen", "mIoU-"):
        assert scores[name] == 0, name
    everybody = dict.fromkeys(
        ("ac_fpn", "box_prompt", "point_prompt", "heatmap_box_prompt"), measured["oracle"]
    )
    baselines = {"random_sam": measured["first-noun"], "full_mask": measured["full-mask"]}
    verdicts = gate.verdicts(report_of(bench, **everybody, **baselines))
    assert len(verdicts) == 4 and not any(verdicts.values())


def test_the_mutants_fail_the_gate(bench: Bench, measured) -> None:
    def problems(scores: dict[str, Score]) -> str:
        return " ".join(gate.verdicts(report_of(bench, ac_fpn=scores))["ac-fpn"])

    assert "mIoU+ is 0.000" in problems(measured["deaf"])
    for missed in ("mIoU+", "G-mIoU", "FPR silence", "FPR noise", "FPR offscreen", "deaf"):
        assert missed in problems(measured["first-noun"]), missed
    nothing = dict.fromkeys(measured["oracle"], Score(math.nan, math.nan, math.nan))
    assert problems(nothing), "what was not measured is not passed"


def test_prompted_strategies_must_stand_above_the_baselines(bench: Bench, measured) -> None:
    weak, strong = measured["full-mask"], measured["oracle"]
    lines = {"box_prompt": weak, "point_prompt": weak, "heatmap_box_prompt": strong, "full_mask": weak}
    verdicts = gate.verdicts(report_of(bench, **lines, random_sam=weak))
    assert "below 0.65" in verdicts["box-prompt"][0]
    assert len(verdicts["point-prompt"]) == 2 and "not clearly above" in verdicts["point-prompt"][0]
    assert verdicts["heatmap-box-prompt"] == []
    verdicts = gate.verdicts(report_of(bench, **lines))
    assert verdicts["heatmap-box-prompt"] == ["random-sam was not measured beside it"]
    assert gate.order(report_of(bench, **lines).lines).startswith("By mIoU+: heatmap-box-prompt 1.000, ")


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
        evaluate([arm("x", first)], bench, Asked(protocol), Remembering())[0]
        for protocol in ("per-image", "per-dataset")
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
    first = replace(clip, annotated=(True, False, False, False, False), negative=True)
    row = judge([arm("full", full_mask)], {None: [first]}, Remembering())[None][0].rows[0]
    assert row[SUMS.index("pixels")] == 32 * 32


def test_only_wrong_sounds_make_false_positives(bench: Bench) -> None:
    """A swapped sound of the class in view keeps its truth: the full mask is no false positive there."""
    sets = {None: [replace(bench.clips[0], negative=negative) for negative in (False, True)]}
    right, wrong = judge([arm("full", full_mask)], sets, Remembering())[None][0].rows
    assert right[SUMS.index("lit")] == right[SUMS.index("pixels")] == 0
    assert wrong[SUMS.index("lit")] == wrong[SUMS.index("pixels")] == 5 * 32 * 32


def test_memory_asks_once_a_clip() -> None:
    asked = []

    def double(items: list[int]) -> list[int]:
        asked.append(items)
        return [2 * item for item in items]

    memory = Remembering()
    assert memory(double, [1, 2]) == memory(double, [1, 2]) == [2, 4]
    assert memory(double, [3, 2, 3]) == [6, 4, 6]
    assert asked == [[1, 2], [3]], "item by item"
    memory.forget()
    memory(double, [1, 2])
    assert len(asked) == 3


def test_what_was_spared_is_on_the_clock() -> None:
    def slow(items: list[int]) -> list[int]:
        time.sleep(0.02 * len(items))
        return items

    memory = Remembering()
    memory(slow, [1, 2])
    assert memory.spared == 0
    memory(slow, [2, 3])
    assert 0.02 <= memory.spared < 0.04


def test_things_are_known_by_their_content() -> None:
    one, other = (Prompt(0, np.full((1, 2), value, np.float32), box=(0, 0, 1, 1)) for value in (1, 2))
    again = replace(one, points=np.array(one.points))
    assert content([one, torch.ones(2)]) == content([again, torch.ones(2)])
    assert content(one) != content(other)
    assert content(torch.ones(2)) != content(torch.ones(2, dtype=torch.float64))


def test_strategies_answer_from_memory_what_they_answer_without(tmp_path: Path) -> None:
    """Frames under two sounds, looked at once."""
    bench = synth_bench("test", 1, config=SynthConfig(size=32, tracks=1, seconds=2))
    tiny = tiny_networks(tmp_path)
    asked = Asked("robust", ("swap",))
    results = []
    for memory in (Remembering(), Forgetful()):
        networks = Networks("cpu", tiny.weights, memory)
        arms = [
            Arm(name, import_module(strategy.module).build(networks), options, strategy.audio_rates)
            for name, strategy in STRATEGIES.items()
            for options in [replace(strategy.presets["best"], **SMALL_OPTIONS.get(name, {}))]
        ]
        results.append([scores for scores, _ in evaluate(arms, bench, asked, memory)])
    for remembered, anew in zip(*results, strict=True):
        assert len({score.value for score in anew.values()}) > 1
        for name, score in anew.items():  # batches of other sizes round otherwise
            assert remembered[name].value == pytest.approx(score.value, abs=0.01, nan_ok=True), name


SMALL_OPTIONS = {
    "no-prompt": {"points_per_side": 2},
    "box-prompt": {"labels": CLASS_NAMES, "thresholds": DetectionThresholds(box=0.0)},
}


class Forgetful(Remembering):
    """Computes everything, as a batcher does."""

    def __call__(self, function, items, key=None):
        return Batcher.__call__(self, function, items, key)


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
    assert "gate: ac-fpn: not passed: mIoU+ is" in capsys.readouterr().out


def test_another_seed_is_other_clips() -> None:
    small = SynthConfig(size=16)
    benches = [synth_bench("test", 3, seed, small) for seed in (0, 7)]
    for name in (None, "silence", "noise", "offscreen", "swap"):
        one, other = (each.clips[0] if name is None else each.probe(name)[0] for each in benches)
        assert not np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.audio, other.audio) == (name == "silence")
    assert benches[0].ceilings() != benches[1].ceilings()


def test_seeds_are_held_against_each_other(tmp_path: Path, capsys) -> None:
    ask = ("full-mask", "--data", "synth", "--protocol", "robust", "--clips", "24", "--size", "16")
    out, earlier = tmp_path / "one", str(tmp_path / "one/report.json")
    assert main([*ask, "--out", str(out)]) == 0
    assert main([*ask, "--seed", "7", "--against", earlier]) == 0
    assert "9 of 9 scores agree with the earlier report" in capsys.readouterr().out

    told = json.loads((out / "report.json").read_text())
    told["lines"][0]["scores"]["mIoU+"] = {"value": 0.9, "low": 0.85, "high": 0.95}
    (out / "report.json").write_text(json.dumps(told))
    assert main([*ask, "--seed", "7", "--against", earlier]) == 1
    assert "apart: full-mask, mIoU+: 0." in capsys.readouterr().out

    assert main([*ask, "--size", "18", "--against", earlier]) == 2
    assert "The earlier report's data is 'synth at 16 px', and here it is 'synth at 18 px'" in (
        capsys.readouterr().err
    )
    headless = {key: told[key] for key in ("protocol", "data", "split")}
    for broken in ("[]", json.dumps(headless | {"lines": [{"strategy": "full-mask"}]})):
        Path(earlier).write_text(broken)
        assert main([*ask, "--against", earlier]) == 2
        assert "is no report of an evaluation" in capsys.readouterr().err


def test_options_of_one_strategy_among_all() -> None:
    asked = argparse.Namespace(set=["no-prompt:points_per_side=4"], sweep=[], preset="best")
    options = {name: next(settings(name, STRATEGIES[name], asked))[1] for name in STRATEGIES}
    assert options["no-prompt"].points_per_side == 4
    assert options["box-prompt"] == STRATEGIES["box-prompt"].presets["best"]
    with pytest.raises(InvalidOption, match="There is no strategy 'nobody'"):
        list(settings("no-prompt", STRATEGIES["no-prompt"], argparse.Namespace(set=["nobody:x=1"], sweep=[])))


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
        (["full-mask", "--data", "synth", "--sweep", "thresholds.mask=1"], "no option 'thresholds.mask'"),
        (["full-mask", "--data", "synth", "--set", "mask"], "'mask' is not KEY=VALUE."),
        (["full-mask", "--data", "synth", "--masks"], "To save masks, name a folder with --out."),
    ],
)
def test_bad_arguments(arguments, said, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("models.weights.TINY_FOLDER", tmp_path)
    code = main([*arguments, "--clips", "3", "--size", "32"])
    if said == "ac-fpn" and code == 0:
        pytest.skip("the shipped network is installed")
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--clips", "0"), ("--size", "3"), ("--seed", "-1"), ("--device", "tpu")])
def test_numbers_that_make_no_sense(wrong, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["full-mask", "--data", "synth", *wrong])
    assert end.value.code == 2 and wrong[0] in capsys.readouterr().err


def test_what_breaks_off_leaves_nothing(tmp_path: Path, capsys, monkeypatch) -> None:
    """Neither half of the masks nor an empty folder."""
    ask = ["full-mask", "--data", "synth", "--clips", "3", "--size", "16", "--masks"]
    out = tmp_path / "out"
    saved = []

    def full(picture: Image.Image, place: Path) -> None:
        saved.append(place)
        if len(saved) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        assert main([*ask, "--out", str(out)]) == 2
    assert f"{out} cannot be written: the disk is full." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    assert main([*ask, "--out", str(out)]) == 0
    assert main([*ask, "--out", str(out)]) == 2
    assert f"{out / 'masks'} is there already" in capsys.readouterr().err


def test_an_option_out_of_its_range(trained: Path, capsys) -> None:
    ask = ("ac-fpn", "--data", "synth", "--weights", str(trained), *SMALL)
    assert main([*ask, "--set", "thresholds.mask=2"]) == 2
    assert "The option thresholds.mask cannot be 2" in capsys.readouterr().err
