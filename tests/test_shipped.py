"""The shipped AC-FPN passes the gate on a few clips, and fails it as soon as it cannot hear; and the gate of
the strategies that need no training does what it is for.

The whole family: `python -m models.training.evaluate all --data synth:test --protocol robust --gate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import pytest

from models.media import Window
from models.networks import Networks
from models.strategies import STRATEGIES, FrameMasks, Segmenter, ac_fpn
from models.strategies.options import GateOptions
from models.training import gate
from models.training.benches import Bench, synth_bench
from models.training.evaluate import Asked, evaluate
from models.training.judging import Arm
from models.training.remembering import Remembering
from models.training.scores import ROBUST_PROBES, Score
from models.weights import TINY_FOLDER, Weights
from tests.mutants import Deaf, FirstNoun, arm

CLIPS, FEW = 60, 8

pytestmark = pytest.mark.skipif(
    not (TINY_FOLDER / "ac-fpn.safetensors").is_file(), reason="models/tiny/ac-fpn.safetensors is missing"
)


@dataclass(frozen=True)
class OneSound:
    """The mutant that always hears the same: its strategy gets one second in place of all others."""

    inner: Segmenter
    second: dict[int, np.ndarray]

    def __call__(self, window: Window, options: object) -> Iterator[FrameMasks]:
        same = {rate: np.broadcast_to(self.second[rate], sound.shape) for rate, sound in window.audio.items()}
        return self.inner(replace(window, audio=same), options)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return synth_bench("test", CLIPS)


@pytest.fixture(scope="module")
def measured(bench: Bench, tmp_path_factory) -> dict[str, dict[str, Score]]:
    memory = Remembering()
    networks = Networks("cpu", Weights(tmp_path_factory.mktemp("none")), memory)
    shipped, options = ac_fpn.build(networks), STRATEGIES["ac-fpn"].presets["best"]
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32) / 10
    arms = [
        Arm("shipped", shipped, options, (44_100,)),
        Arm("deaf", Deaf(shipped), options, (44_100,)),
        Arm("one sound", OneSound(shipped, {44_100: tone}), options, (44_100,)),
        arm("first noun", FirstNoun.of(bench)),
    ]
    results = evaluate(arms, bench, Asked("robust", ROBUST_PROBES), memory)
    return {a.name: scores for a, (scores, _) in zip(arms, results, strict=True)}


def problems(bench: Bench, scores: dict[str, Score]) -> list[str]:
    return list(gate.listens(scores, bench.ceilings()["deaf ceiling"], {}))


def test_the_shipped_network_passes_the_gate(bench: Bench, measured) -> None:
    assert problems(bench, measured["shipped"]) == []


@pytest.mark.parametrize("mutant", ["deaf", "one sound", "first noun"])
def test_mutants_of_it_fail(bench: Bench, measured, mutant: str) -> None:
    assert any("deaf" in problem for problem in problems(bench, measured[mutant]))


# What needs no training: its least mIoU+ on a few clips, and options that make it quicker.
FOUND: Mapping[str, tuple[float, Mapping[str, object]]] = {
    "box-prompt": (0.4, {}),
    "heatmap-box-prompt": (0.4, {}),
    "point-prompt": (0.4, {}),
    "no-prompt": (0.1, {"points_per_side": 8}),
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Networks:
    return Networks("cpu", Weights(tmp_path_factory.mktemp("none")), Remembering())


@pytest.mark.parametrize("name", FOUND)
def test_silence_noise_and_what_is_off_screen_are_empty_and_true_sounds_are_not(
    shipped: Networks, name: str
) -> None:
    """The same without the gate, and with a name for whatever is heard, shows that it would be noticed."""
    strategy, (least, quicker) = STRATEGIES[name], FOUND[name]
    best = replace(strategy.presets["best"], **quicker)
    always = replace(best, gate=GateOptions(enabled=False), **({"top_k": 1} if name == "box-prompt" else {}))
    segmenter = import_module(strategy.module).build(shipped)
    arms = [Arm(name, segmenter, options, strategy.audio_rates) for options in (best, always)]
    bench = synth_bench("test", FEW)
    (gated, _), (answering, _) = evaluate(arms, bench, Asked("robust", ROBUST_PROBES), shipped.batcher)
    assert gated["mIoU+"].value > least
    assert gated["FPR silence"].value == gated["FPR noise"].value == 0
    assert gated["FPR offscreen"].value < 0.1
    assert min(answering["FPR silence"].value, answering["FPR noise"].value) > 0.02
