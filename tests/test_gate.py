"""The gate, the vocabularies, and the options as they are checked and published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from models.datasets.synthavs import SynthAVS
from models.segments import resampled
from models.strategies import STRATEGIES
from models.strategies.gate import (
    HISS,
    NOISY,
    SILENT,
    UNSEEN,
    by_agreement,
    by_ear,
    by_noise,
    by_waveform,
    decibels,
    united,
)
from models.strategies.options import (
    LABEL_CHARACTERS,
    MOST_LABELS,
    AcFpnOptions,
    BoxPromptOptions,
    GateOptions,
)
from models.training.judging import window_of
from models.vocabularies import NOISE, chosen, vocabulary

CLOSED = GateOptions(enabled=False)


def tone(amplitude: float) -> np.ndarray:
    return (amplitude * np.sin(np.arange(4800) * 0.1)).astype(np.float32)


# --- the gate


def test_decibels_are_those_of_full_scale() -> None:
    assert decibels(np.ones(100, np.float32)) == 0
    assert decibels(tone(1)) == pytest.approx(-3.01, abs=0.05)
    assert decibels(np.zeros(100, np.float32)) < -120


def test_energy() -> None:
    seconds = np.stack([tone(0.5), tone(0.0005), tone(0)])
    assert by_waveform(seconds, GateOptions()) == [None, SILENT, SILENT]
    assert by_waveform(seconds, GateOptions(energy=-80)) == [None, None, SILENT]
    assert by_waveform(seconds, CLOSED) == [None] * 3


def white(seed: int = 0, rate: int = 44_100, amplitude: float = 0.1) -> np.ndarray:
    return (amplitude * np.random.default_rng(seed).standard_normal(rate)).astype(np.float32)


def coloured(slope: float) -> np.ndarray:
    """Its power falls as frequency to the power `slope`."""
    spectrum = np.fft.rfft(white(1))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    sound = np.fft.irfft(spectrum)
    return (0.1 * sound / sound.std()).astype(np.float32)


NOISES = {
    "white": white(),
    "white at 16 kHz": white(rate=16_000),
    "white at 48 kHz": white(rate=48_000),
    "white, sampled at 16 kHz": resampled(white(rate=16_000), 16_000, 44_100),
    "quiet": white(amplitude=0.003),
    "pink": coloured(1.0),
    "brown": coloured(2.0),
}


@pytest.mark.parametrize("name", NOISES)
def test_noise_of_any_colour_and_nothing_else_is_no_sound(name: str) -> None:
    seconds = NOISES[name][None]
    assert by_waveform(seconds, GateOptions()) == [HISS]
    assert by_waveform(seconds, GateOptions(unevenness=0)) == [None]
    assert by_waveform(seconds, CLOSED) == [None]
    assert by_ear(seconds, AcFpnOptions()) == [None if "sampled" in name else HISS]
    assert by_ear(seconds, STRATEGIES["ac-fpn"].presets["paper"]) == [None]


def test_what_is_more_than_noise_is_a_sound() -> None:
    """A click has the spectrum of white noise and is not steady; a faint tone, and noise that begins, are
    heard through noise."""
    click = np.zeros(44_100, np.float32)
    click[20_000] = 0.9
    faint = white() + 0.02 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32)
    begins = white() * np.linspace(0, 1, 44_100, dtype=np.float32)
    assert by_waveform(np.stack([click, faint, begins]), GateOptions(energy=-120)) == [None] * 3


def test_nearly_every_second_of_synthavs_noise_is_noise_and_hardly_any_of_its_sounds() -> None:
    noise = [window_of(SynthAVS("val", probe="noise")[index], {44_100}) for index in range(12)]
    heard = [each for clip in noise for each in by_waveform(clip.audio[44_100], GateOptions())]
    assert heard.count(HISS) >= 0.97 * len(heard)
    sounding = []
    for index in range(24):
        clip = SynthAVS("val")[index]
        verdicts = by_waveform(window_of(clip, {44_100}).audio[44_100], GateOptions())
        sounding += [verdict for verdict, truth in zip(verdicts, clip.truth, strict=True) if truth.any()]
    assert len(sounding) > 60
    assert sum(verdict is not None for verdict in sounding) <= 0.03 * len(sounding)


def test_noise() -> None:
    names, noises = np.array([[0.3, 0.1], [0.1, 0.2]]), np.array([[0.2], [0.25]])
    assert by_noise(names, noises, GateOptions()) == [None, NOISY]
    assert by_noise(names, noises, GateOptions(noise=False)) == [None, None]
    assert by_noise(names, noises, CLOSED) == [None, None]
    assert by_noise(names, np.zeros((2, 0)), GateOptions()) == [None, None]


def test_agreement() -> None:
    cosines = np.array([0.3, 0.1], np.float32)
    assert by_agreement(cosines, GateOptions()) == [None, None]
    assert by_agreement(cosines, GateOptions(agreement=0.2)) == [None, UNSEEN]
    assert by_agreement(cosines, GateOptions(enabled=False, agreement=0.2)) == [None, None]
    assert by_agreement(cosines, GateOptions(), calibrated=0.2) == [None, UNSEEN]
    assert by_agreement(cosines, GateOptions(agreement=-1), calibrated=0.2) == [None, None]
    assert by_agreement(cosines, GateOptions(enabled=False), calibrated=0.2) == [None, None]


def test_a_union_is_empty_for_a_reason_only() -> None:
    mask = np.eye(3, dtype=bool)
    assert united((3, 3), [mask, mask[::-1]]).mask.sum() == 5
    assert united((3, 3), [mask]).reason is None
    assert united((3, 3), [], otherwise="Nothing.").reason == "Nothing."


# --- vocabularies


def test_the_lists_are_whole() -> None:
    assert {name: len(set(vocabulary(name))) for name in ("audioset", "avsbench", "avss", "synthavs")} == {
        "audioset": 527,
        "avsbench": 23,
        "avss": 70,
        "synthavs": 12,
    }
    assert vocabulary("audioset")[0] == "Speech"
    assert "emergency car" in vocabulary("avss")
    assert set(NOISE) < set(vocabulary("audioset"))


def test_names_of_a_list_are_spelled_as_in_it() -> None:
    assert chosen("avsbench", ["Dog Barking"]) == ("dog barking",)
    with pytest.raises(ValueError, match=r"'lion roaring' is not in .*'lions roaring'"):
        chosen("avsbench", ["lion roaring"])


# --- options


def test_candidates() -> None:
    assert len(BoxPromptOptions().candidates()) == 527
    assert BoxPromptOptions().candidates("synthavs")[0] == "striped star"
    assert BoxPromptOptions(labels=("a dog",)).candidates("synthavs") == ("a dog",)
    assert BoxPromptOptions(vocabulary="synthavs", labels=("Wavy Moon",)).candidates() == ("wavy moon",)
    assert BoxPromptOptions(labels=("a Dog", "a cat", "A dog ")).candidates() == ("a Dog", "a cat")
    assert len(BoxPromptOptions(vocabulary="avsbench").candidates()) == 23
    assert BoxPromptOptions(vocabulary="audioset", labels=("speech",)).candidates() == ("Speech",)
    assert BoxPromptOptions(prompt="text", text="the object in the middle").candidates() == ()
    assert BoxPromptOptions(labels=("  a \n dog ",)).labels == ("a dog",)


@pytest.mark.parametrize(
    ("strategy", "given", "complaint"),
    [
        ("box-prompt", {"labels": [""]}, "Name something"),
        ("box-prompt", {"labels": ["  "]}, "Name something"),
        ("box-prompt", {"labels": ["?!."]}, "Name something"),
        ("box-prompt", {"labels": ["x" * 10_000]}, f"at most {LABEL_CHARACTERS} characters"),
        ("box-prompt", {"labels": [f"thing {i}" for i in range(MOST_LABELS + 1)]}, f"at most {MOST_LABELS}"),
        ("box-prompt", {"labels": [3]}, "valid string"),
        ("box-prompt", {"vocabulary": "avsbench", "labels": ["kazoo"]}, "not in the vocabulary"),
        ("box-prompt", {"vocabulary": "imagenet"}, "'audioset'"),
        ("box-prompt", {"top_k": 0}, "greater than or equal to 1"),
        ("box-prompt", {"top_k": 11}, "less than or equal to 10"),
        ("box-prompt", {"prompt": "caption"}, "go together"),
        ("box-prompt", {"captions": ["A dog barks."]}, "go together"),
        ("box-prompt", {"prompt": "text"}, "go together"),
        ("box-prompt", {"prompt": "text", "text": "x" * 201}, "at most 200 characters"),
        ("box-prompt", {"thresholds": {"box": 1.01}}, "less than or equal to 1"),
        ("box-prompt", {"thresholds": {"audio": -2}}, "greater than or equal to -1"),
        ("box-prompt", {"thresholds": {"box": float("nan")}}, "thresholds.box"),
        ("box-prompt", {"max_boxes": 101}, "less than or equal to 100"),
        ("no-prompt", {"score": "cosine"}, "there is no published value"),
        ("no-prompt", {"points_per_side": 65}, "less than or equal to 64"),
        ("no-prompt", {"thresholds": {"stability": -0.1}}, "greater than or equal to 0"),
        ("point-prompt", {"points": "peak"}, "'global', 'local' or 'dense'"),
        ("point-prompt", {"thresholds": {"heatmap": 7}}, "less than or equal to 1"),
        ("heatmap-box-prompt", {"thresholds": {"heatmap": -1}}, "greater than or equal to 0"),
        ("heatmap-box-prompt", {"gate": {"energy": 3}}, "less than or equal to 0"),
        ("random-sam", {"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_what_makes_no_sense_is_refused(strategy: str, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TypeAdapter(STRATEGIES[strategy].options).validate_python(given)


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_survive_json_and_say_what_they_are(name: str) -> None:
    strategy = STRATEGIES[name]
    adapter = TypeAdapter(strategy.options)
    for preset in strategy.presets.values():
        assert adapter.validate_json(adapter.dump_json(preset)) == preset
    schema = adapter.json_schema()
    described = [schema, *schema.get("$defs", {}).values()]
    fields = {
        name: field
        for each in described
        for name, field in each.get("properties", {}).items()
        if "$ref" not in field
    }
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_the_published_behaviour_has_no_gate() -> None:
    gates = {name: getattr(each.presets["paper"], "gate", CLOSED) for name, each in STRATEGIES.items()}
    assert {name for name, gate in gates.items() if gate.enabled} == set()
